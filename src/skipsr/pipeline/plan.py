"""What a job will do, in plain integers and fractions, decided before any model is loaded."""

import math
from dataclasses import dataclass
from pathlib import Path

from skipsr.errors import MediaError, SettingsError
from skipsr.memory import free_memory
from skipsr.pipeline.manifest import is_being_placed
from skipsr.settings import JobSettings
from skipsr.shots import ONE_SHOT, FoundShots, ListedShots, Shots, read_list
from skipsr.timeline import Limits, Window, check_windows, cut
from skipsr.video import SourceInfo, check_target, probe, target_size

_LARGEST_SIDE = 16384
_MEMORY = 8 * 2**30  # bytes that a window may take when nothing is said
_SHARE = 0.6  # and of what is free


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """A source, what is made of it, and in which steps."""

    source: SourceInfo
    target: Path
    size: tuple[int, int]
    """`(height, width)` of the result."""
    window: int
    """Frames that are run together."""
    overlap: int
    """Frames that neighbouring windows of a shot share."""
    shots: Shots
    """Where shots begin, or what finds that while the source is read."""
    settings: JobSettings
    """Codec, seed and whatever else was asked for."""

    @property
    def windows(self) -> tuple[Window, ...]:
        """How the source is cut, if it holds as many frames as it says.

        Shots that are listed are taken into account; those that are found while reading are not
        known here, and cut windows further: these are then the windows of one long shot.
        """
        firsts = self.shots.firsts if isinstance(self.shots, ListedShots) else ()
        return tuple(cut(self.source.frames, self.window, self.overlap, frozenset(firsts)))

    @property
    def segment(self) -> int:
        """Frames after which what is finished is kept."""
        return max(1, round(self.settings.segment * self.source.rate))

    @property
    def in_segments(self) -> bool:
        """Whether anything is kept before all is finished: not of what is one segment."""
        long = self.settings.segment > 0 and self.source.frames > self.segment
        return long and len(self.windows) > 1


def plan_job(
    source: Path | SourceInfo,
    target: Path,
    limits: Limits,
    settings: JobSettings | None = None,
) -> JobPlan:
    """Decide sizes and windows, and refuse what cannot work.

    Args:
        source: a video, an image or a folder of images, or what `probe` found there.
        limits: of the model, or of whatever else makes the result.

    Raises:
        MediaError: for a source that cannot be read, or is too small to enlarge.
        SettingsError: for settings that do not fit the source or each other.
    """
    settings = settings or JobSettings()
    info = probe(source, settings.deinterlace) if isinstance(source, Path) else source
    may_exist = settings.overwrite or (not settings.restart and is_being_placed(target))
    check_target(target, info, codec=settings.codec, crf=settings.crf, overwrite=may_exist)
    check_smallest(str(info.path), info.height, info.width, limits)
    size = target_size(
        target, result_size(info.height, info.width, limits, settings), settings.codec
    )
    window, overlap = choose_windows((info.height, info.width), size, limits, settings)
    return JobPlan(
        source=info,
        target=target,
        size=size,
        window=window,
        overlap=overlap,
        shots=choose_shots(settings, info),
        settings=settings,
    )


def check_smallest(name: str, height: int, width: int, limits: Limits) -> None:
    """Raises MediaError for a source below the limits' smallest side."""
    if min(height, width) < limits.smallest:
        raise MediaError(
            f"{name} is {width}x{height}; at least {limits.smallest} pixels a side are needed"
        )


def result_size(height: int, width: int, limits: Limits, settings: JobSettings) -> tuple[int, int]:
    """`(height, width)` of the result of a source of that size.

    Raises:
        SettingsError: for one that is too small or too large.
    """
    size = settings.size(height, width)
    if max(size) > _LARGEST_SIDE or min(size) < limits.smallest:
        raise SettingsError(
            f"the result would be {size[1]}x{size[0]}, outside {limits.smallest} to "
            f"{_LARGEST_SIDE} pixels a side; change `scale` or `height`"
        )
    return size


def choose_shots(settings: JobSettings, source: SourceInfo | None = None) -> Shots:
    """Where windows are cut, as `shots` says; `source` is None for frames from memory.

    Raises:
        SettingsError: for a file that lists no shots, or those of another source.
    """
    if settings.shots == "auto":
        return FoundShots()
    if settings.shots == "off":
        return ONE_SHOT
    path = Path(settings.shots).expanduser()
    if source is None:
        return read_list(path, None, None)
    return read_list(path, source.rate if source.constant_rate else None, source.frames)


def choose_windows(
    source: tuple[int, int], size: tuple[int, int], limits: Limits, settings: JobSettings
) -> tuple[int, int]:
    """Frames of a window, and those that neighbours share.

    They are for frames of `source` and a result of `size`, `(height, width)` each.

    Raises:
        SettingsError: for an overlap that does not fit, or less memory than is needed.
    """
    limits = limits.towards(source, size)
    window = settings.window or _window(source, size, limits, settings.memory)
    _check_memory(window, source, size, limits, settings)
    overlap = limits.overlap_of(window) if settings.overlap is None else settings.overlap
    check_windows(window, overlap)
    return window, overlap


def window_memory(sharers: int = 1) -> int:
    """Bytes that a window may take when nothing is said, where so many processes share what is
    free."""
    free = free_memory()
    return _MEMORY if free is None else min(_MEMORY, int(_SHARE * free / sharers))


def _window(
    source: tuple[int, int], size: tuple[int, int], limits: Limits, memory: int | None
) -> int:
    if limits.footprint is None:
        return limits.window(math.prod(size))
    memory = window_memory() if memory is None else memory
    return limits.fit(limits.footprint.frames(memory, math.prod(source), math.prod(size)))


def _check_memory(
    window: int,
    source: tuple[int, int],
    size: tuple[int, int],
    limits: Limits,
    settings: JobSettings,
) -> None:
    if settings.memory is None:
        return
    if limits.footprint is None:
        raise SettingsError(
            "`max_memory`: what this model takes is not known; give a short `window` instead"
        )
    shortest = limits.fit(1) if settings.window is None else window
    least = limits.footprint.of(shortest, math.prod(source), math.prod(size))
    if limits.footprint.of(window, math.prod(source), math.prod(size)) > settings.memory:
        raise SettingsError(
            f"`max_memory` {settings.max_memory} is too little for windows of {shortest} frames, "
            f"from {source[1]}x{source[0]} to {size[1]}x{size[0]}: give at least "
            f"{math.ceil(least / 2**20)}MiB, or a smaller `scale` or `height`"
        )
