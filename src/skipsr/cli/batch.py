"""The verb `batch`, and what it shows while it runs."""

from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from skipsr.cli.flags import ModelJob
from skipsr.cli.spelling import spell
from skipsr.errors import SkipsrError
from skipsr.files import check_there
from skipsr.settings import BatchSettings

if TYPE_CHECKING:
    from rich.progress import TaskID

    from skipsr.farm.batch import Watch
    from skipsr.farm.pool import Said, Working
    from skipsr.farm.report import FileReport, Started

SourcePath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|LIST|FILE")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]


@dataclass(frozen=True, kw_only=True)
class Batch(ModelJob):
    """Upscale many files, or one long video, on as many devices as there are. Finished files are
    skipped, so the same command resumes an interrupted batch. The last line printed is a JSON
    report."""

    input: SourcePath
    """Folder: all videos and images in it and its subfolders are taken; or a text file that lists
    them, one per line: a path, or JSON, {"input": PATH, "output": PATH}; or a single video."""
    output: OutPath
    """Folder for the results, which are named after the inputs."""
    batch: BatchSettings = field(default_factory=BatchSettings)

    def run(self) -> None:
        check_there(self.input)
        from skipsr.farm.batch import run_batch
        from skipsr.farm.report import BatchError
        from skipsr.farm.task import ModelSettings

        model = ModelSettings(
            name=self.model, skip=self.skip, runtime=self.runtime, options=self.family.given
        )
        try:
            with _show() as watch:
                report = run_batch(self.input, self.output, model, self.job, self.batch, watch)
        except BatchError as error:
            print(error.report.to_json(), flush=True)
            raise
        print(report.to_json(), flush=True)
        failed = report.count("failed")
        if failed:
            raise SkipsrError(f"{failed} of {len(report.files)} files failed")


@contextmanager
def _show() -> "Generator[Watch]":
    """Yields what a batch reports to: a line for every file, and bars on a terminal."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        yield _Bars(bars)


class _Lines:
    """A line for every file that is done with, and in a log each minute for what a worker is at."""

    def __init__(self, console: Console) -> None:
        from skipsr.cli.progress import Pulse

        self._console = console
        self._pulses: defaultdict[int, Pulse] = defaultdict(Pulse)  # by worker
        self._done = self._files = 0

    def __call__(self, event: "Started | FileReport | Working | Said") -> None:
        from skipsr.farm.pool import Said, Working
        from skipsr.farm.report import FileReport, Started

        match event:
            case Started(files, skipped):
                self._files, self._done = files, skipped
                if skipped:
                    self._print(f"{skipped} of {files} files are done already")
            case FileReport():
                self._done += 1
                self._print(f"[{self._done}/{self._files}] {_line(event)}")
            case Said(text):
                self._print(f"skipsr: {text}")
            case Working(worker, device, task, progress):
                if not self._console.is_terminal and self._pulses[worker].is_due():
                    done = f"{progress.frames} of {progress.of} frames"
                    self._print(f"{device} {task.input}: {done}")

    def _print(self, text: str) -> None:
        self._console.print(spell(text))


class _Bars(_Lines):
    """The same, above a bar for all and one for each worker."""

    def __init__(self, bars: Progress) -> None:
        super().__init__(bars.console)
        self._bars = bars
        self._all = bars.add_task("files", total=None)
        self._workers: dict[int, TaskID] = {}  # bars
        self._at: dict[str, set[TaskID]] = {}  # by output

    def __call__(self, event: "Started | FileReport | Working | Said") -> None:
        from skipsr.farm.pool import Working
        from skipsr.farm.report import FileReport

        super().__call__(event)
        if isinstance(event, Working):
            if event.worker not in self._workers:
                self._workers[event.worker] = self._bars.add_task("")
            bar = self._workers[event.worker]
            self._at.setdefault(str(event.task.output), set()).add(bar)
            self._bars.update(
                bar,
                description=f"{event.device} {event.task.input.name}: {event.progress.stage}",
                completed=event.progress.frames + event.progress.ahead,
                total=event.progress.of,
                visible=True,
            )
        elif isinstance(event, FileReport):
            for bar in self._at.pop(event.output, ()):
                self._bars.update(bar, visible=False)
        self._bars.update(self._all, completed=self._done, total=self._files or None)


def _line(report: "FileReport") -> str:
    if report.error:
        return f"failed: {report.error}"
    figures = report.figures
    return (
        f"{report.output}: {figures['frames']} frames, {figures['width']}x{figures['height']}, "
        f"{figures['seconds']:.1f} s, {figures['computed']:.0%} computed"
    )
