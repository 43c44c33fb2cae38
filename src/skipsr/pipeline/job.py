"""One file in, one file out: the page to read first."""

import json
from collections.abc import Callable, Iterable, Iterator
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

_STAGES = ("read", "encode", "predict", "denoise", "decode", "write")
_WINDOW_PIXELS = 32_000_000  # of the result, in one window by default: a few GB at most
_LONGEST_WINDOW = 25
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
    computed: float = 0.0  # share of tokens that went through the transformer
    seconds: dict[str, float] = field(default_factory=dict[str, float])  # per stage, and total
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
    window = settings.window or _default_window(size, limits)
    overlap = (
        settings.overlap
        if settings.overlap is not None
        else (5 if window >= 13 else int(window > 1))
    )
    check_windows(window, overlap)
    return Layout(size, window, overlap)


def _default_window(size: tuple[int, int], limits: Limits) -> int:
    frames = min(_LONGEST_WINDOW, max(1, _WINDOW_PIXELS // (size[0] * size[1])))
    return max(1, (frames - 1) // limits.step) * limits.step + 1


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
    report = Report(upscaler.name, device=upscaler.device, dtype=upscaler.dtype)
    with open_source(source) as reader:
        layout = lay_out(reader.info, target, upscaler.limits, settings)
        report.height, report.width = layout.size

        def tell(stage: str) -> None:
            if watch is not None:
                watch(Progress(stage, report.frames, max(report.frames, reader.info.frames)))

        with Trace(tell) as trace:
            results = (
                upscaler.upscale(clip, layout.size, seed=settings.seed)
                for clip in reader.clips(layout.window, layout.overlap)
            )
            with open_result(target, reader, layout, settings) as writer:
                for clip in crossfade(_tally(results, report)):
                    writer.write(clip)
                    report.frames = writer.written
    report.seconds = {stage: trace.seconds.get(stage, 0.0) for stage in _STAGES}
    report.seconds["total"] = trace.total
    report.peak_memory_gib = peak_memory_gib()
    return report


def _tally(results: Iterable[Upscaled], report: Report) -> Iterator[Clip]:
    """Note the computed share, weighted by tokens, and pass the clips on."""
    kept = cells = 0
    for result in results:
        kept += result.route.kept
        cells += result.route.keep.numel()
        report.computed = kept / cells
        yield result.clip


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value
