"""Timestamp discontinuities: where the clock of a file starts again, as in recordings that were
put together, later times are shifted so that they go on rising."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np
from av.packet import Packet
from av.stream import Stream

AnyStream = TypeVar("AnyStream", bound=Stream)
Restart = tuple[int, Fraction]  # where in the file, in bytes; seconds to add from there on
_BACK = 1  # seconds: less is a frame out of order
_STEADY = 12  # packets that stay behind: fewer are stray times


def find_restarts(times: "array[int]", time_base: Fraction) -> list[tuple[int, int]]:
    """Packets at which a clock starts again, and the ticks to add from each on.

    Args:
        times: of the packets of a video, in the order in which they are decoded.
    """
    decoded = np.asarray(times, dtype=np.int64)
    found: list[tuple[int, int]] = []
    steps = np.diff(decoded)
    shift = 0
    for i in (np.flatnonzero(steps < -float(_BACK / time_base)) + 1).tolist():
        before = int(decoded[i - 1])
        is_stray = decoded[i : i + _STEADY].max() >= before or (
            i > 1 and decoded[i] > decoded[i - 2]
        )
        if not is_stray:
            shift += before + max(1, int(np.median(steps))) - int(decoded[i])
            found.append((i, shift))
    return found


def going_on(
    packets: "Iterable[Packet[AnyStream]]", restarts: Sequence[Restart]
) -> "Iterator[Packet[AnyStream]]":
    """Packets of a file, in its order, with times that go on where its clock starts again."""
    shifts: dict[int, Fraction] = {}  # by stream
    for packet in packets:
        if restarts and packet.pos is not None and packet.pos >= 0:  # else it is of the one before
            passed = [seconds for place, seconds in restarts if packet.pos >= place]
            shifts[packet.stream_index] = passed[-1] if passed else Fraction(0)
        shift = shifts.get(packet.stream_index)
        if shift:
            ticks = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        yield packet
