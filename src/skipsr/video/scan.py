"""What the packets of a video file say of its frames, read without decoding."""

import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from skipsr.video.clock import Restart, find_restarts
from skipsr.video.container import demuxed
from skipsr.video.trim import Key

_PAIR = 0.75  # of a frame: a packet that soon after another is the frame's second field
_ROUND = 1001  # largest denominator of a rate that is found by counting
_OFF = 1.5  # times as fast as frames come, a stated rate is that of a clock


@dataclass(frozen=True, slots=True)
class Scan:
    """The video packets of a file that will be shown, and the end of all of it."""

    times: "array[int]"  # of those that carry one, in the order in which they are decoded
    packets: int
    end: float  # of the longest stream, seconds from the start
    duration: int  # of the frame that is shown last; 0 where that cannot be told
    restarts: tuple[Restart, ...]
    keys: tuple[Key, ...] = ()  # in the order in which they are decoded

    def without_second_fields(self, first: Sequence[VideoFrame]) -> "Scan":
        """As many packets as frames, where fields come as packets of their own (PAFF).

        Args:
            first: decoded frames, which tell how far apart frames are.
        """
        shown = [frame.pts for frame in first if frame.pts is not None]
        apart = min((b - a for a, b in itertools.pairwise(shown) if b > a), default=0)
        kept = array("q")
        for time in sorted(self.times):
            if not kept or time - kept[-1] >= _PAIR * apart:
                kept.append(time)
        untimed = self.packets - len(self.times)
        paired = len(self.times) - len(kept) + untimed
        if not apart or not paired or untimed > len(kept):
            return self
        first_fields = {*kept}
        keys = tuple(key for key in self.keys if key[0] in first_fields)
        return replace(self, times=kept, packets=len(kept), duration=0, keys=keys)

    def rate(self, time_base: Fraction, stated: Fraction | None) -> Fraction | None:
        """Frames per second on average, as stated if that may be; None if nothing tells."""
        times = np.sort(np.asarray(self.times))
        if len(times) < 2 or times[0] == times[-1]:
            return stated
        if stated and stated * time_base * Fraction(np.median(np.diff(times))) < _OFF:
            return stated
        found = (len(times) - 1) / (int(times[-1] - times[0]) * time_base)
        if found > 1:
            return found.limit_denominator(_ROUND)
        return 1 / (1 / found).limit_denominator(_ROUND)

    def is_constant(self, frames_per_tick: Fraction) -> bool:
        """Whether each frame is within half a frame of even spacing."""
        if len(self.times) < 2:
            return True
        places = np.sort(np.asarray(self.times, dtype=np.float64)) * float(frames_per_tick)
        drift = places - places[0] - np.arange(len(places))
        return bool(np.abs(drift).max() < 0.5)


def scan_packets(container: InputContainer, stream: VideoStream) -> Scan:
    """Read the file once."""
    times, decoded, places = array("q"), array("q"), array("q")
    keys: list[Key] = []
    packets = duration = 0
    end = 0.0
    start = (container.start_time or 0) / av.time_base
    for packet in demuxed(container, *container.streams):
        if packet.size == 0:
            continue
        if packet.pts is not None and packet.time_base:
            last = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            end = max(end, last - start)
        if packet.stream_index != stream.index or packet.is_discard:
            continue
        packets += 1
        time = packet.dts if container.format.name == "avi" else packet.pts
        if time is not None:
            times.append(time)
            decoded.append(time if packet.dts is None else packet.dts)
            places.append(-1 if packet.pos is None else packet.pos)
            duration = packet.duration or 0
            if packet.is_keyframe and packet.dts is not None:
                keys.append((time, packet.dts))
    restarts: list[Restart] = []
    if clock_may_restart(container) and stream.time_base:
        found = [one for one in find_restarts(decoded, stream.time_base) if places[one[0]] >= 0]
        restarts = [(places[first], shift * stream.time_base) for first, shift in found]
        ends = [*(first for first, _ in found), len(times)][1:]
        for (first, shift), after in zip(found, ends, strict=True):
            times[first:after] = array("q", (time + shift for time in times[first:after]))
    if times and times[-1] < max(times):
        duration = 0  # MP4 knows durations as frames are decoded, and the last shown came earlier
    return Scan(times, packets, end, duration, tuple(restarts), tuple(keys))


def clock_may_restart(container: InputContainer) -> bool:
    """Whether times of a file of this kind may begin anew: MPEG streams, and recorded FLV ones."""
    return bool(container.format.flags & Flags.ts_discont.value) or container.format.name == "flv"
