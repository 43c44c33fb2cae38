"""A part of a source by its times: which frames lie in it, and where reading can begin for them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from skipsr.errors import SettingsError
from skipsr.times import Trim, told
from skipsr.video.container import demuxed, open_input, video_stream

Key = tuple[int, int]  # a key frame's packet: when it is shown, and when it is decoded
_MILLISECOND = Fraction(1, 1000)  # to which players and lists of shots tell times
_SEEKABLE = ("mov", "matroska", "mpegts")  # containers with an index
_BACK = 2  # key frames: pictures refreshed piece by piece are whole only from one to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What is taken of a source; by default all of it. Times are in units of its time base.

    Attributes:
        start: of the first frame that is taken; None where nothing before it is left out.
        end: where what is taken ends; None for the source's own end.
        before: frames that are left out before it, as far as the container says.
        entry: where decoding can begin, if that need not be the source's beginning.
    """

    start: int | None = None
    end: int | None = None
    before: int = 0
    entry: int | None = None


def frames_between(
    path: Path, times: NDArray[np.int64], time_base: Fraction, trim: Trim
) -> tuple[int, int]:
    """The first frame of a part of a source, and the one after its last.

    Args:
        times: of all frames, rising; the first of them counts as 0.

    Raises:
        SettingsError: if there is none.
    """
    start, end = trim
    if start is not None and (first := _place(times, start, time_base)) == len(times):
        last = float(int(times[-1] - times[0]) * time_base)
        raise SettingsError(
            f"`start` {told(start)} is beyond the last frame of {path}, which is shown at "
            f"{last:.3f} seconds: give an earlier time"
        )
    first = 0 if start is None else _place(times, start, time_base)
    after = len(times) if end is None else _place(times, end, time_base)
    if first >= after:
        raise SettingsError(
            f"{path} shows no new frame between {told(start or 0)} and {told(end or 0)} "
            "seconds: give a later `end`"
        )
    return first, after


def ticks(seconds: Fraction, time_base: Fraction) -> int:
    """The first that is shown as that time or later, to the millisecond."""
    return math.ceil((seconds - _MILLISECOND / 2) / time_base)


def _place(times: NDArray[np.int64], seconds: Fraction, time_base: Fraction) -> int:
    return int(np.searchsorted(times - times[0], ticks(seconds, time_base)))


def find_entry(path: Path, keys: Sequence[Key], start: int) -> int | None:
    """Where to seek so that all from the time `start` on is decoded as from the beginning; None if
    that is the beginning, or the container does not lead there."""
    early = [key for key in keys if key[0] <= start]
    if len(early) <= _BACK:
        return None
    shown, decoded = early[-_BACK]
    return decoded if _leads(path, decoded, {key[0] for key in early if key[0] <= shown}) else None


def _leads(path: Path, decoded: int, keys: Collection[int]) -> bool:
    """Whether the first key frame after seeking is one of those."""
    with open_input(path) as container:
        if not container.format.name.startswith(_SEEKABLE):
            return False
        stream = video_stream(container, path)
        try:
            container.seek(decoded, stream=stream)
        except FFmpegError:
            return False
        return next((p.pts for p in demuxed(container, stream) if p.is_keyframe), None) in keys
