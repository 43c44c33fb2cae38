"""A batch: a queue of files over a pool of workers, with a record, retries and a report."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from skipsr.errors import Interrupted, MediaError, SettingsError, SkipsrError, describe
from skipsr.farm.cluster import Cluster, check_cluster
from skipsr.farm.devices import device_names, make_workers
from skipsr.farm.listing import Item, list_items
from skipsr.farm.pool import Event, Lost, Pool, Said, Working
from skipsr.farm.processes import Processes
from skipsr.farm.record import Record, content_hash
from skipsr.farm.report import BatchError, BatchReport, FileReport, Started, Status
from skipsr.farm.shared import SharedFiles
from skipsr.farm.task import Divided, Done, Failed, ModelSettings, Section, Task
from skipsr.fields import given
from skipsr.loading import Model
from skipsr.pipeline.job import Report
from skipsr.pipeline.manifest import NAME as MANIFEST
from skipsr.pipeline.manifest import job_folder
from skipsr.settings import BatchSettings, JobSettings
from skipsr.video import check_format, default_suffix, target_kind

Watch = Callable[[Started | FileReport | Working | Said], None]
_NO_MATTER = ("overwrite", "restart", "max_memory")  # to what a result is
_ENCODING = ("codec", "crf", "preset")
_OF_VIDEOS = (*_ENCODING, "deinterlace")
_ANY = 2**16  # workers: how many a cluster has is known once it is joined


def run_batch(
    source: Path,
    out: Path,
    model: ModelSettings,
    job: JobSettings | None = None,
    settings: BatchSettings | None = None,
    watch: Watch = lambda _: None,
) -> BatchReport:
    """Enlarge the files of a folder or a list into the folder `out`; see `list_items`.

    A file's result is that of `skipsr.pipeline.job.upscale_video`. What is there already, made of
    the same source with the same settings, is left as it is. A file that fails is reported, and the
    others go on. A long video on which workers would wait in the end is made by all of them.

    Args:
        watch: told what is begun, every file that is done or has failed, how far workers are, and
            what they have to say.

    Raises:
        SkipsrError: before anything is computed, for a list, a model, a device or a setting that
            cannot work, and for results that would meet; later when no worker can be started, as
            `BatchError` where something of the batch was done before.
        Interrupted: on a KeyboardInterrupt; what is finished stays.
    """
    job, settings = job or JobSettings(), settings or BatchSettings()
    began = time.monotonic()
    found = model.find()
    listing = list_items(source, out, _suffix(settings, job))
    _check_videos(job, listing.items)
    available, make_pool = _pools(model, settings)
    batch = _Batch(
        items={item.output: item for item in listing.items},
        record=Record(out),
        job=job,
        told=_told(found, model, job),
        retries=settings.retries,
        shared=SharedFiles(found.limits),
        report=BatchReport(found.name),
        watch=watch,
    )
    if listing.left_out:
        watch(Said(f"{source}: left out as no video or image by name: {listing.left_out}"))
    tasks = batch.choose()
    try:
        if tasks:
            batch.work(tasks, make_pool(batch.shared.useful_workers(tasks, available)))
    except KeyboardInterrupt as error:
        raise Interrupted(batch.how_to_go_on("interrupted")) from error
    except SkipsrError as error:
        if not batch.report.files:
            raise
        raise BatchError(batch.how_to_go_on(str(error)), batch.report) from error
    finally:
        batch.report.seconds = time.monotonic() - began
    return batch.report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The files of a batch, and what becomes of them."""

    items: Mapping[Path, Item]  # by output
    record: Record
    job: JobSettings
    told: Mapping[str, object]  # settings that are not as usual, by name
    retries: int
    shared: SharedFiles
    report: BatchReport
    watch: Watch
    tries: Counter[object] = field(default_factory=Counter[object])  # by `_name`
    begun: set[Path] = field(default_factory=set[Path])  # outputs
    found: dict[Path, int | None] = field(default_factory=dict[Path, int | None])  # see `_begun`
    said: set[str] = field(default_factory=set[str])  # by workers

    def choose(self) -> list[Task]:
        """The files that are to be done."""
        tasks: list[Task] = []
        refused: list[tuple[Item, str]] = []
        for item in self.items.values():
            objection = None
            if self.job.overwrite or not _is_there(item.output):
                tasks.append(Task(input=item.input, output=item.output, job=self._job_of(item)))
            elif objection := self.record.objection(item, self._settings_of(item)):
                refused.append((item, objection))
            else:
                figures = (self.record.find(item) or {}).get("figures", {})
                self._end(item, "skipped", figures)
        self.watch(Started(len(self.items), self.report.count("skipped")))
        for item, objection in refused:
            error = f"{item.output} exists, and {objection}: remove it, or give `overwrite`"
            self._end(item, "failed", error=error)
        return tasks

    def work(self, tasks: Sequence[Task], pool: Pool) -> None:
        """Do them, the largest first, or shared, so that in the end no worker is long alone."""
        running = 0
        with pool:
            waiting = deque(self.shared.choose(tasks, pool.alike))
            while waiting or running:
                while waiting and pool.free:
                    task = waiting.popleft()
                    if self._begin(task):
                        pool.start(task)
                        running += 1
                if not running and not waiting:
                    return
                event = pool.wait()
                running -= isinstance(event, Done | Divided | Failed | Lost)
                self._take(event, waiting)

    def how_to_go_on(self, why: str) -> str:
        """After what ended the batch early."""
        done = len(self.report.files) - self.report.count("failed")
        again = "the same command does the rest"
        if self.job.restart:  # which would begin the files anew that it was at
            again = "the same command without `restart` does the rest"
        if self.job.overwrite:
            but = "`overwrite` and `restart`" if self.job.restart else "`overwrite`"
            again = f"the same command without {but} does those that have no result yet"
        return f"{why}; {done} of {len(self.items)} files are done and stay: {again}"

    def _begin(self, task: Task) -> bool:
        """Note that a task begins; whether it can."""
        item = self.items[task.output]
        try:
            if task.output not in self.begun:
                self.record.begin(item, self._settings_of(item))
                self.begun.add(task.output)
                self.found[task.output] = _begun(task.output)
        except (OSError, MediaError) as error:
            self._end(item, "failed", error=describe(error))
            return False
        self.tries[_name(task)] += 1
        return True

    def _take(self, event: Event | None, waiting: deque[Task]) -> None:
        """Note what happened, and what is to be done then."""
        match event:
            case Divided():
                waiting.extendleft(reversed(self.shared.divide(event)))
            case Done(Section() as task, report):
                waiting.extendleft(self.shared.end(task, report.seconds["total"]))
            case Failed(Section() as task, _):  # what is to blame is told when the rest is made
                waiting.extendleft(self.shared.end(task))
            case Done(task, report):
                item = self.items[task.output]
                figures = _figures(report, self.shared.seconds(task.output))
                try:
                    self.record.finish(item, figures)
                except OSError as error:
                    told = f"{item.output} was made, but cannot be recorded: {describe(error)}"
                    self._end(item, "failed", error=told)
                else:
                    self._end(item, "done", figures)
            case Failed(task, error):
                self._end(self.items[task.output], "failed", error=error)
            case Lost(task, reason):
                self._lost(task, reason, waiting)
            case Said(text):
                if text not in self.said:  # as of each section of a file
                    self.said.add(text)
                    self.watch(event)
            case Working():
                self.watch(event)
            case None:
                pass

    def _lost(self, task: Task, reason: str, waiting: deque[Task]) -> None:
        tries = self.tries[_name(task)]
        if tries <= self.retries:
            self.watch(Said(f"{task.input} is tried again: its worker was {reason}"))
            # it may have died right after the last step, and nobody else writes there; last: by
            # then others may need less memory
            anew = task.job.restart and _begun(task.output) == self.found[task.output]
            job = replace(task.job, overwrite=True, restart=anew)
            waiting.append(replace(task, job=job))
        elif isinstance(task, Section):
            waiting.extendleft(self.shared.end(task))
        else:
            error = f"{task.input}: its worker was {reason}, {tries} times: give fewer `devices`, "
            error += "a smaller `max_memory`, `scale` or `height`"
            self._end(self.items[task.output], "failed", error=error)

    def _end(
        self,
        item: Item,
        status: Status,
        figures: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        report = FileReport(
            input=str(item.input),
            output=str(item.output),
            status=status,
            figures=figures or {},
            error=error,
        )
        self.report.files.append(report)
        if status != "skipped":
            self.watch(report)

    def _job_of(self, item: Item) -> JobSettings:
        if _is_video(item):
            return self.job
        usual = JobSettings()
        return replace(self.job, **{name: getattr(usual, name) for name in _ENCODING})

    def _settings_of(self, item: Item) -> dict[str, object]:
        of_videos = () if _is_video(item) else _OF_VIDEOS
        return {name: value for name, value in self.told.items() if name not in of_videos}


def _pools(model: ModelSettings, settings: BatchSettings) -> tuple[int, Callable[[int], Pool]]:
    """How many workers there may be, and what makes so many of them; devices are checked before."""
    retries = settings.retries
    if settings.ray is not None:
        check_cluster(settings.devices, model)
        address, devices = settings.ray, settings.devices
        return _ANY, lambda most: Cluster(address, devices, model, most, retries)
    names = device_names(settings.devices, model.runtime.device)
    return len(names), lambda most: Processes(make_workers(names[:most], model), retries)


def _suffix(settings: BatchSettings, job: JobSettings) -> str:
    """Of video results."""
    if settings.suffix is None:
        return default_suffix(job.codec)
    suffix = f".{settings.suffix.lstrip('.')}"
    if suffix == "." or target_kind(Path(f"name{suffix}")) != "video":
        raise SettingsError(
            f"`suffix` {settings.suffix} is no container of videos: give .mp4, .mkv"
        )
    return suffix


def _check_videos(job: JobSettings, items: Sequence[Item]) -> None:
    """Refuse at once what would be refused for every video, or is for none of the files."""
    videos = [item.output for item in items if _is_video(item)]
    for suffix in sorted({output.suffix for output in videos}):
        check_format(Path(f"name{suffix}"), job.encoding)
    for name in () if videos else given(job, _ENCODING):
        raise SettingsError(f"`{name}` is for videos, and there is none: leave it out")
    if job.fps is not None and not any(item.input.is_dir() for item in items):
        raise SettingsError(
            "`fps` is for folders of frames, which only a list can name, and there is none: leave "
            "it out"
        )


def _told(found: Model, model: ModelSettings, job: JobSettings) -> dict[str, object]:
    """The settings on which a result depends, but those that are as usual."""
    told: dict[str, object] = {"model": found.name}
    if model.runtime.dtype != "auto":
        told["dtype"] = model.runtime.dtype
    if model.runtime.weights is not None:
        told["weights"] = content_hash(model.runtime.weights)
    for part in (job, model.skip, found.options):
        usual = asdict(type(part)())
        own = asdict(part).items()
        told |= {k: v for k, v in own if v != usual[k] and k not in _NO_MATTER}
    return told


def _name(task: Task) -> object:
    """What a task is, however often it is tried."""
    return type(task), task.output, task.stretch if isinstance(task, Section) else None


def _figures(report: Report, before: float) -> dict[str, Any]:
    """What is told of a file, for which workers have spent so many seconds before."""
    return {
        "frames": report.frames,
        "width": report.width,
        "height": report.height,
        "seconds": round(before + report.seconds["total"], 3),
        "computed": round(report.computed, 4),
    }


def _begun(output: Path) -> int | None:
    """When the manifest of an output's unfinished job was last written, by which jobs are told
    apart; None where there is none."""
    with suppress(OSError):
        return (job_folder(output) / MANIFEST).stat().st_mtime_ns
    return None


def _is_video(item: Item) -> bool:
    return target_kind(item.output) == "video"


def _is_there(output: Path) -> bool:
    return any(output.iterdir()) if output.is_dir() else output.exists()
