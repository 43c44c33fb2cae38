"""What a job will do, in plain integers and fractions, decided before any model is loaded."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from skipsr.errors import MediaError, SettingsError
from skipsr.files import home_expanded
from skipsr.limits import Limits, MemoryLaw, MemoryPlan
from skipsr.memory import free_memory, is_roomy, pinned_memory
from skipsr.pipeline.manifest import (
    ALL,
    Stretch,
    job_folder,
    load_manifest,
    may_replace,
    named_target,
)
from skipsr.settings import JobSettings
from skipsr.shots import ONE_SHOT, FoundShots, Shots, read_list
from skipsr.timeline import Window, check_windows, cut
from skipsr.video import Cut, SourceInfo, check_target, probe, side_step, target_kind

_LARGEST_SIDE = 16384
_HOST_SHARE = 0.8  # of the host's free memory, beside a card's; the encoder needs some, too
_HOST_STEP = 2**26  # bytes, in which the least of it is found
_SEGMENT = 10  # seconds of video that are kept together
_PATIENCE = 300.0  # and at most the work of so many seconds where machines are slow


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
    memory: MemoryPlan | None = None
    """How a window is run in the memory there is; None where that is not known."""
    seconds: float = 0.0
    """Of a frame where machines are slow; 0 where that is not known."""
    stretch: Stretch = ALL
    """Frames to make: all, or a section of a job that several workers share."""

    @property
    def expected(self) -> int:
        """Frames to make, if the source holds as many as it says."""
        end = self.source.frames if self.stretch.end is None else self.stretch.end
        return end - self.stretch.start

    @property
    def windows(self) -> tuple[Window, ...]:
        """How the source is cut, if it holds as many frames as it says.

        Shots that are listed are taken into account; those that are found while reading are not
        known here, and cut windows further: these are then the windows of one long shot.
        """
        firsts = frozenset(self.shots.firsts)
        return tuple(cut(self.source.frames, self.window, self.overlap, firsts))

    @property
    def segment(self) -> int:
        """Frames after which what is finished is kept."""
        asked = self.settings.segment
        frames = float((_SEGMENT if asked is None else asked) * self.source.rate)
        if asked is None and self.seconds:
            frames = min(frames, _PATIENCE / self.seconds)
        return max(1, round(frames))

    @property
    def in_segments(self) -> bool:
        """Whether anything is kept before all is finished: not of what is one segment."""
        long = self.settings.segment != 0 and self.source.frames > self.segment
        joined = target_kind(self.target) != "animation"  # palettes of parts cannot be
        return joined and long and len(self.windows) > 1


def plan_job(
    source: Path | str | SourceInfo,
    target: Path | str,
    limits: Limits,
    settings: JobSettings | None = None,
    *,
    free: int | None = None,
) -> JobPlan:
    """Decide sizes and windows, and refuse what cannot work.

    A job that has begun goes on with the windows of then.

    Args:
        source: a video, an image or a folder of images, or what `probe` found there, told of
            `deinterlace`, `start`, `end` and `fps`.
        limits: of the model, or of whatever else makes the result.
        free: bytes of the host's memory to plan with, on a processor where `max_memory` is not
            given; by default all that is free.

    Raises:
        MediaError: for a source that cannot be read, or is too small to enlarge, or a job that has
            begun and cannot be read.
        SettingsError: for settings that do not fit the source or each other.
    """
    settings = settings or JobSettings()
    if isinstance(source, SourceInfo):
        info = source
    else:
        info = probe(Path(source), settings.deinterlace, settings.trim, settings.rate)
    target = checked_target(Path(target), info, settings)
    begun = None if settings.restart else load_manifest(job_folder(target))
    cut_as = replace(settings, window=begun.window, overlap=begun.overlap) if begun else settings
    step = side_step(target, settings.codec)
    plan = plan_frames(info, limits, cut_as, step, frames=info.frames, free=free)
    return replace(plan, target=target, settings=settings)


def checked_target(target: Path, info: SourceInfo, settings: JobSettings) -> Path:
    """A target by a name of its own, see `named_target`.

    Raises:
        SettingsError: for one that cannot be written, or not with what is in the source.
    """
    target = named_target(target)
    check_target(target, info, settings.encoding, overwrite=may_replace(target, settings))
    return target


def plan_frames(
    info: SourceInfo,
    limits: Limits,
    settings: JobSettings,
    step: int = 1,
    *,
    frames: int | None = None,
    free: int | None = None,
) -> JobPlan:
    """How frames will be processed, wherever they are put then.

    Args:
        step: of which the result's sides are multiples.
        frames: that are processed, if that is known.
        free: see `plan_job`.

    Raises:
        MediaError: for frames that are too small.
        SettingsError: for settings that do not fit.
    """
    low = info.height, info.width
    if min(low) < limits.smallest:
        name = "a frame" if info.kind == "frames" else info.path
        raise MediaError(
            f"{name} is {low[1]}x{low[0]}; at least {limits.smallest} pixels a side are needed"
        )
    size = settings.size(*low, step)
    if max(size) > _LARGEST_SIDE or min(size) < limits.smallest:
        raise SettingsError(
            f"the result would be {size[1]}x{size[0]}, outside {limits.smallest} to "
            f"{_LARGEST_SIDE} pixels a side; change `scale` or `height`"
        )
    window, overlap, memory = plan_windows(low, size, limits, settings, free, frames=frames)
    return JobPlan(
        source=info,
        target=info.path,
        size=size,
        window=window,
        overlap=overlap,
        shots=_choose_shots(settings, info),
        settings=settings,
        memory=memory,
        seconds=limits.towards(low, size).seconds * math.prod(size),
    )


def _choose_shots(settings: JobSettings, source: SourceInfo) -> Shots:
    """Where windows are cut, as `shots` says.

    Raises:
        SettingsError: for a file that lists no shots, or those of another source.
    """
    if settings.shots == "auto":
        return FoundShots()
    if settings.shots == "off":
        return ONE_SHOT
    path = home_expanded(settings.shots)
    if source.kind == "frames":
        return read_list(path, None, None)
    rate = source.rate if source.constant_rate else None
    frames = source.frames if source.cut == Cut() else None
    return read_list(path, rate, frames).since(source.cut.before)


class WindowPlan(NamedTuple):
    """How frames are cut into windows."""

    window: int
    """Frames of a window."""
    overlap: int
    """Frames that neighbours share."""
    memory: MemoryPlan | None
    """How a window is run in the memory there is; None where that is not known."""


def plan_windows(
    source: tuple[int, int],
    size: tuple[int, int],
    limits: Limits,
    settings: JobSettings,
    free: int | None = None,
    *,
    frames: int | None = None,
) -> WindowPlan:
    """The windows of frames of `source` for a result of `size`, `(height, width)` each.

    Args:
        free: see `plan_job`.
        frames: of which there are no more, if that is known.

    Raises:
        SettingsError: for an overlap that does not fit, or less memory than is needed.
    """
    limits = limits.towards(source, size)
    count = math.inf if frames is None else max(1, frames)
    memory = _plan_memory(source, size, limits, settings, free, count)
    if memory is None:  # with too little for any window the shortest is tried
        window = limits.fit(1) if limits.by_footprint else limits.window(math.prod(size))
        window = settings.window or window
    else:
        window = memory.window
    window = int(min(window, count))
    overlap = limits.overlap_of(window) if settings.overlap is None else settings.overlap
    if window == count:  # there is one, which shares nothing
        overlap = min(overlap, window // 2)
    check_windows(window, overlap)
    return WindowPlan(window, overlap, memory)


def _plan_memory(
    source: tuple[int, int],
    size: tuple[int, int],
    limits: Limits,
    settings: JobSettings,
    free: int | None,
    count: float,
) -> MemoryPlan | None:
    """None where nothing is known of the model's memory, or too little is free to obey a plan."""
    law, told = limits.footprint, settings.memory
    if law is None:
        if told is not None:
            raise SettingsError(
                "`max_memory`: what this model takes is not known; give a short `window` instead"
            )
        return None
    host = free
    if free is None and (free := free_memory()) is not None:
        host = free + pinned_memory()
    budget = law.budget(free)
    memory = budget if told is None else told
    if memory is None:
        return None
    # of a machine whose card is not here the host is not known either
    host = None if host is None or budget is None else int(_HOST_SHARE * host)
    longest = limits.longest_window if limits.by_footprint else limits.window(math.prod(size))
    window = settings.window and int(min(settings.window, count))
    longest = int(min(longest, count))
    found = law.fit(memory, source, size, window, longest, host)
    if found is not None:
        return replace(found, roomy=is_roomy(found.peak, told, free))
    shortest = window or int(min(limits.fit(1), count))
    frames = f"{shortest} frame{'s' * (shortest > 1)}"
    if host is not None and law.fit(memory, source, size, window, longest) is not None:
        least = _least_host(law, memory, source, size, shortest)
        raise SettingsError(
            f"windows of {frames} from {source[1]}x{source[0]} to {size[1]}x{size[0]} "
            f"need {least / 2**30:.1f} GiB of the host's memory beside the GPU's; most of what is "
            f"free, {host / 2**30:.1f} GiB, is planned with: end other programs, or give a smaller "
            f"`scale` or `height`{', or a larger `max_memory`' * (told is not None)}"
        )
    if told is None:
        return None
    least = law.least(source, size, shortest)
    raise SettingsError(
        f"`max_memory` {settings.max_memory} is too little for windows of {frames}, "
        f"from {source[1]}x{source[0]} to {size[1]}x{size[0]}: give at least "
        f"{math.ceil(least / 2**20)}MiB, or a smaller `scale` or `height`"
    )


def _least_host(
    law: MemoryLaw, memory: int, source: tuple[int, int], size: tuple[int, int], window: int
) -> int:
    """The fewest bytes of the host's memory, about, with which so much of a card's is enough."""
    found = law.fit(memory, source, size, window, window)
    low, high = 0, 0 if found is None else found.host
    while high - low > _HOST_STEP:
        middle = (low + high) // 2
        found = law.fit(memory, source, size, window, window, middle)
        low, high = (middle, high) if found is None else (low, found.host)
    return high
