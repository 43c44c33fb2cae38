"""One file in, one file out: the page to read first."""

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sized
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipsr.backbones.contract import Upscaled, Upscaler, arranged
from skipsr.clip import Clip
from skipsr.errors import MediaError
from skipsr.pipeline.crossfade import Joined
from skipsr.pipeline.manifest import ALL
from skipsr.pipeline.overlap import Behind, ahead
from skipsr.pipeline.plan import JobPlan, plan_frames, plan_job
from skipsr.pipeline.sections import SectionWork
from skipsr.pipeline.segments import SegmentedWork, goes_in_segments
from skipsr.pipeline.stream import Reach, stream
from skipsr.pipeline.work import WholeWork, Work
from skipsr.settings import JobSettings
from skipsr.timeline import split_shots
from skipsr.tracing import Trace, peak_memory_gib, reached
from skipsr.video import frames_info, open_source

_END: Any = object()


@dataclass(slots=True)
class Report:
    """What happened."""

    model: str
    frames: int = 0
    width: int = 0
    height: int = 0
    asked: Mapping[str, float] = field(default_factory=dict[str, float])  # the dial and its value
    computed: float = 0.0  # share of the model's units that ran: cells, tokens, or blocks of tiles
    spent: float = 0.0  # share of the dense model's compute, in the unit of `budget`
    stages: dict[str, float] = field(default_factory=dict[str, float])  # the same of each stage
    seconds: dict[str, float] = field(default_factory=dict[str, float])  # see `stage_seconds`
    peak_memory_gib: float = 0.0
    device: str = ""
    dtype: str = ""
    scale: int | None = None  # by how much the network enlarged that ran; None: it has no one scale
    shots: int = 0  # that were processed apart; with `shots` off all frames are one

    def to_json(self, **files: str) -> str:
        """One line, which begins with the files that it is of, by what they are."""
        told = {name: _rounded(value) for name, value in asdict(self).items()}
        return json.dumps(files | told | {"asked": dict(self.asked)})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    stage: str
    frames: int  # written
    of: int  # expected; 0 where nobody knows
    ahead: float = 0.0  # frames' worth of work that is done beyond those, where a model tells it


def upscale_video(
    source: Path | str,
    target: Path | str,
    upscaler: Upscaler,
    settings: JobSettings | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Report:
    """Enlarge a video, an image or a folder of images.

    Nothing appears under the name `target` unless the whole of it was written and checked. Of a
    video longer than `JobSettings.segment` what is finished is kept beside it until then, so that
    the same call goes on where one was stopped.

    Args:
        watch: told as each stage begins and whenever frames are written; to end the job it raises
            `skipsr.errors.Cancelled`, and nothing is kept.

    Raises:
        MediaError: when the source cannot be read or the target not written.
        SettingsError: for settings that do not fit, or differ from those of the job that is kept.
    """
    plan = plan_job(source, target, upscaler.limits, settings)
    return run_job(plan, upscaler, watch)


def run_job(
    plan: JobPlan,
    upscaler: Upscaler,
    watch: Callable[[Progress], None] | None = None,
    note: Callable[[Upscaled], None] = lambda _: None,
) -> Report:
    """Do what was planned: read, enlarge, write. See `upscale_video`.

    Args:
        note: told the result of every window before it is cross-faded and written.

    Returns:
        Frames and shares of the whole result, seconds and memory of this run.
    """
    report = Report(
        upscaler.name, asked=upscaler.asked, device=upscaler.device, dtype=upscaler.dtype
    )
    report.height, report.width = plan.size
    source = plan.source.height, plan.source.width
    report.scale = upscaler.limits.towards(source, plan.size).scale

    def tell(stage: str) -> None:
        behind.check()  # a full disk ends the job now, not after the window
        if watch is not None:
            frames, of = report.frames, max(report.frames, plan.expected)
            done = min(of, reach.frames(trace.share))
            watch(Progress(stage, frames, of, max(0.0, done - frames)))

    def run(clip: Clip) -> Upscaled:
        reach.enter(clip, stretch.start, stretch.end)
        reached(0)
        result = upscaler.upscale(clip, plan.size, seed=plan.settings.seed)
        reached(1)
        return result

    def count(result: Upscaled) -> None:
        behind.settle()  # the work is told things in order, by one thread at a time
        work.note(result)
        note(result)

    def write(joined: Joined) -> None:
        work.shots.update(reader.shots)
        work.write(joined)

    reach = Reach()
    work = _work(plan, upscaler)
    beside = upscaler.device.partition(":")[0] != "cpu"  # which is busy already
    behind = Behind(write, beside=beside)
    with (
        arranged(upscaler, plan.memory),
        Trace(tell, upscaler.device) as trace,
        open_source(plan.source) as reader,
        work,
        behind,
    ):
        report.frames = work.written
        reach.done = work.written
        for stretch in work.stretches():
            tell("read")
            clips = reader.clips(work.window, work.overlap, plan.shots, stretch.first)
            with ahead(clips, reader.stop) if beside else nullcontext(clips) as coming:
                for joined in stream(coming, run, count, work.take_rest()):
                    end = joined.clip.end
                    if joined.clip.start >= stretch.start:  # what is before only leads to it
                        behind.put(joined)
                        report.frames = work.written
                        tell("write")
                    del joined  # before the next one is made
                    if end == stretch.end:
                        break
            behind.settle()
            report.frames = work.written
    report.frames, report.shots, tally = work.written, len(work.shots), work.tally
    report.computed, report.spent, report.stages = tally.fraction, tally.spent, tally.stages
    report.seconds = stage_seconds(trace)
    report.peak_memory_gib = peak_memory_gib(upscaler.device)
    return report


def _work(plan: JobPlan, upscaler: Upscaler) -> Work:
    if plan.stretch != ALL:
        return SectionWork(plan, upscaler)
    return SegmentedWork(plan, upscaler) if goes_in_segments(plan) else WholeWork(plan)


def upscale_frames(
    frames: Iterable[NDArray[Any]], upscaler: Upscaler, settings: JobSettings | None = None
) -> Generator[NDArray[Any]]:
    """Enlarge frames from memory, one for each, so that times and sound stay the caller's.

    Frames are asked for as they are needed and memory does not grow with their number; the results
    of a window come once the frames of the next were taken, or there are no more. Closed early, it
    asks for no more.

    Args:
        frames: RGB `h w 3`, uint8 or uint16, all alike. Each is copied when it comes, so that its
            memory may be used for the next, as cameras do.
        settings: whose scale or height, seed, window, overlap, shots and max_memory count.

    Yields:
        Larger frames of the same dtype, `h w 3` in C order, each with memory of its own.

    Raises:
        MediaError: for frames of another shape, dtype, or too small.
        SettingsError: for settings that do not fit.
    """
    settings = settings or JobSettings()
    source = iter(frames)
    first = next(source, _END)
    if first is _END:
        return
    height, width = _check_frame(first, first).shape[:2]
    info = frames_info((height, width), bits=8 if first.dtype == np.uint8 else 16)
    plan = plan_frames(info, upscaler.limits, settings, frames=_count(frames))
    yield from enlarged(
        (_check_frame(frame, first).copy() for frame in chain([first], source)), upscaler, plan
    )


def enlarged(
    frames: Iterable[NDArray[Any]], upscaler: Upscaler, plan: JobPlan
) -> Generator[NDArray[Any]]:
    """What `upscale_frames` does, for frames that were planned for and are all alike."""
    marked = plan.shots.mark(frames, lambda frame: frame)
    windows = split_shots(marked, plan.window, plan.overlap)
    clips = (Clip.from_array(np.stack(held), window.start) for window, held in windows)

    def run(clip: Clip) -> Upscaled:
        return upscaler.upscale(clip, plan.size, seed=plan.settings.seed)

    def pixels(joined: Joined) -> NDArray[Any]:
        return joined.clip.to_array(plan.source.bits)

    with arranged(upscaler, plan.memory):  # `map` holds no clip while the next one is made
        yield from map(_apart, chain.from_iterable(map(pixels, stream(clips, run))))


def _count(frames: Iterable[object]) -> int | None:
    """How many there are, where that is told beforehand."""
    return len(frames) if isinstance(frames, Sized) else None


def _apart(frame: NDArray[Any]) -> NDArray[Any]:
    """A copy, pixel by pixel: a view would lie plane by plane, and keep the whole window alive."""
    return frame.copy()


def _check_frame(frame: object, first: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(frame, np.ndarray):
        raise MediaError(
            f"a frame is a NumPy array h w 3 of uint8 or uint16, not of type {type(frame).__name__}"
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype.name not in ("uint8", "uint16"):
        raise MediaError(f"a frame is h w 3 of uint8 or uint16, not {frame.shape} of {frame.dtype}")
    if (frame.shape, frame.dtype) != (first.shape, first.dtype):
        raise MediaError(
            f"frames are all alike: one is {frame.shape} of {frame.dtype}, the first was "
            f"{first.shape} of {first.dtype}"
        )
    return frame


def stage_seconds(trace: Trace) -> dict[str, float]:
    """Seconds of the stages that a job had, in order, from "read" to "write", and in "total".

    The total is what the clock on the wall says. With a card frames are read and written beside the
    other stages, so that all together may come to more.
    """
    inner = {k: v for k, v in trace.seconds.items() if k not in ("read", "write")}
    read, write = (trace.seconds.get(stage, 0.0) for stage in ("read", "write"))
    return {"read": read, **inner, "write": write, "total": trace.total}


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value
