"""Parts of a video, each from an encoder of its own, joined by copying their packets."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from av.packet import Packet
from av.video.stream import VideoStream

from skipsr.errors import MediaError
from skipsr.tracing import span
from skipsr.video.container import media_errors, open_input, video_stream
from skipsr.video.formats import VideoSpec
from skipsr.video.probe import SourceInfo
from skipsr.video.write import VideoTarget


@dataclass(frozen=True, slots=True)
class Part:
    """A file that `VideoPart` wrote, and what is in it.

    Attributes:
        first, last: times of the first and the last frame, in units of the source's time base.
    """

    path: Path
    frames: int
    first: int
    last: int


class VideoPart(VideoTarget):
    """A part, or the whole joined from them: takes packets too, and is complete or removed."""

    def copy(self, packet: "Packet[VideoStream]", time: int, decoded: int) -> None:
        """See `VideoEncoder.copy`."""
        self._encoder.copy(packet, time, decoded)
        self.written += 1

    def _complete(self) -> bool:
        return False


def join(parts: Sequence[Part], target: Path, spec: VideoSpec) -> None:
    """Write one video of parts that follow each other, with all else that is in the source.

    It is what one encoder writes that begins anew at every part: headers are those of such an
    encoder, and decoding times are counted through.

    Args:
        parts: in order, made with the same arguments.

    Raises:
        MediaError: when a part is not what it is said to be, or the file cannot be written.
    """
    for before, after in pairwise(parts):
        if before.last >= after.first:
            raise MediaError(f"{after.path} does not begin after {before.path} ends")
    with span("write"):
        order = _Order([time for part in parts for time in _times(part, spec.info)])
    with VideoPart(target, spec) as whole:
        packets = (packet for part in parts for packet in _packets(part))
        with span("write"), media_errors(target, "write"):
            for place, packet in enumerate(packets):
                whole.copy(packet, order.shown[place], order.decoded(place))


class _Order:
    """When packets, in the order in which they are decoded, are shown and decoded."""

    def __init__(self, shown: Sequence[int]) -> None:
        self.shown = array("q", shown)
        self._sorted = array("q", sorted(shown))
        ranks = {time: rank for rank, time in enumerate(self._sorted)}
        self._delay = max((i - ranks[time] for i, time in enumerate(shown)), default=0)

    def decoded(self, place: int) -> int:
        """Rising, and never later than the frame is shown."""
        if place >= self._delay:
            return self._sorted[place - self._delay]
        return self._sorted[place] - (self._sorted[self._delay] - self._sorted[0])


def _times(part: Part, info: SourceInfo) -> list[int]:
    """Times of a part's packets, in the source's units.

    Raises:
        MediaError: when they are not those of as many frames, from the first to the last.
    """
    found: list[Fraction] = []
    begins_whole = False
    for packet in _packets(part):
        assert packet.pts is not None
        begins_whole |= not found and packet.is_keyframe
        found.append(packet.pts * packet.time_base / info.time_base)
    # the container begins at a time of its own
    shift = part.first - min(found, default=Fraction(0))
    times = [time + shift for time in found]
    whole = all(time.denominator == 1 for time in times) and len(set(times)) == part.frames
    if not (whole and begins_whole and max(times) == part.last):
        raise MediaError(
            f"{part.path} holds other frames than it should: remove it and start the job again"
        )
    return list(map(int, times))


def _packets(part: Part) -> "Iterator[Packet[VideoStream]]":
    with open_input(part.path) as container:
        for packet in container.demux(video_stream(container, part.path)):
            if packet.size and packet.pts is not None:
                yield packet
