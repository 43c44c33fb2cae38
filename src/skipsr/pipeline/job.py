"""One file in, one file out: the page to read first."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from skipsr.backbones.contract import Upscaled, Upscaler
from skipsr.clip import Clip
from skipsr.errors import MediaError, SettingsError
from skipsr.pipeline.seams import crossfade
from skipsr.settings import JobSettings
from skipsr.timeline import Limits, check_windows
from skipsr.tracing import Trace, peak_memory_gib
from skipsr.video import (
    Source,
    SourceInfo,
    Target,
    check_target,
    open_source,
    open_target,
    target_size,
)

_LARGEST_SIDE = 16384


@dataclass(frozen=True, slots=True)
class Layout:
    """What a job will make of a source, in plain integers."""

    size: tuple[int, int]  # (height, width) of the result
    window: int  # frames
    overlap: int


@dataclass(slots=True)
class Report:
    """What happened."""

    model: str
    frames: int = 0
    width: int = 0
    height: int = 0
    asked: Mapping[str, float] = field(default_factory=dict[str, float])  # the dial and its value
    computed: float = 0.0  # share of the model's units that ran: cells, tokens, or blocks of tiles
    stages: dict[str, float] = field(default_factory=dict[str, float])  # the same of each stage
    seconds: dict[str, float] = field(default_factory=dict[str, float])  # see `stage_seconds`
    peak_memory_gib: float = 0.0
    device: str = ""
    dtype: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(_rounded(asdict(self)))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    stage: str
    frames: int  # written
    of: int  # expected


def lay_out(info: SourceInfo, target: Path, limits: Limits, settings: JobSettings) -> Layout:
    """Decide sizes and windows, and refuse what cannot work, before any model is loaded.

    Raises:
        MediaError: for a source too small to enlarge.
        SettingsError: for settings that do not fit the source or each other.
    """
    check_target(target, info, codec=settings.codec, crf=settings.crf, overwrite=settings.overwrite)
    if min(info.height, info.width) < limits.smallest:
        raise MediaError(
            f"{info.path} is {info.width}x{info.height}; "
            f"at least {limits.smallest} pixels a side are needed"
        )
    size = target_size(target, settings.size(info.height, info.width), settings.codec)
    if max(size) > _LARGEST_SIDE or min(size) < limits.smallest:
        raise SettingsError(
            f"the result would be {size[1]}x{size[0]}, outside {limits.smallest} to "
            f"{_LARGEST_SIDE} pixels a side; change --scale or --height"
        )
    window = settings.window or limits.window(size[0] * size[1])
    overlap = limits.overlap_of(window) if settings.overlap is None else settings.overlap
    check_windows(window, overlap)
    return Layout(size, window, overlap)


def check_job(source: Path, target: Path, limits: Limits, settings: JobSettings) -> None:
    """Refuse what can be refused before a model is loaded, so that a bad job fails at once.

    Raises:
        MediaError, SettingsError: as `upscale_video`.
    """
    with open_source(source) as reader:
        lay_out(reader.info, target, limits, settings)


def open_result(target: Path, source: Source, layout: Layout, settings: JobSettings) -> Target:
    """The target of a job, to be filled and left as a context."""
    return open_target(
        target,
        source,
        layout.size,
        codec=settings.codec,
        crf=settings.crf,
        overwrite=settings.overwrite,
    )


def upscale_video(
    source: Path | str,
    target: Path | str,
    upscaler: Upscaler,
    settings: JobSettings | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Report:
    """Enlarge a video, an image or a folder of images.

    Nothing appears under the name `target` unless the whole of it was written and checked.

    Args:
        watch: told as each stage begins and whenever frames are written.

    Raises:
        MediaError: when the source cannot be read or the target not written.
        SettingsError: for settings that do not fit.
    """
    source, target, settings = Path(source), Path(target), settings or JobSettings()
    report = Report(
        upscaler.name, asked=upscaler.asked, device=upscaler.device, dtype=upscaler.dtype
    )
    with open_source(source) as reader:
        layout = lay_out(reader.info, target, upscaler.limits, settings)
        report.height, report.width = layout.size

        def tell(stage: str) -> None:
            if watch is not None:
                watch(Progress(stage, report.frames, max(report.frames, reader.info.frames)))

        with Trace(tell, upscaler.device) as trace:
            results = (
                upscaler.upscale(clip, layout.size, seed=settings.seed)
                for clip in reader.clips(layout.window, layout.overlap)
            )
            with open_result(target, reader, layout, settings) as writer:
                for clip in crossfade(_tally(results, report)):
                    writer.write(clip)
                    report.frames = writer.written
    report.seconds = stage_seconds(trace)
    report.peak_memory_gib = peak_memory_gib(upscaler.device)
    return report


def stage_seconds(trace: Trace) -> dict[str, float]:
    """Seconds of the stages that a job had, in order, from "read" to "write", and in "total"."""
    inner = {k: v for k, v in trace.seconds.items() if k not in ("read", "write")}
    read, write = (trace.seconds.get(stage, 0.0) for stage in ("read", "write"))
    return {"read": read, **inner, "write": write, "total": trace.total}


def _tally(results: Iterable[Upscaled], report: Report) -> Iterator[Clip]:
    """Note the computed share, weighted by units, and pass the clips on."""
    computed = total = 0
    for result in results:
        work = result.work
        for stage, share in work.stages.items():
            before = report.stages.get(stage, 0.0) * total
            report.stages[stage] = (before + share * work.total) / (total + work.total)
        computed += work.computed
        total += work.total
        report.computed = computed / total
        yield result.clip


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value
