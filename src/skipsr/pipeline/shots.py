"""Where the shots of a source begin, without enlarging anything."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from skipsr.pipeline.job import Progress
from skipsr.shots import FoundShots
from skipsr.video import open_source


def find_shots(
    source: Path, watch: Callable[[Progress], None] = lambda _: None
) -> list[tuple[int, Fraction]]:
    """The first frame of every shot, and its time in seconds since the first of all.

    They are those at which `upscale_video` cuts.

    Raises:
        MediaError: when the source cannot be read.
    """
    found: list[tuple[int, Fraction]] = []
    with open_source(source) as reader:
        start: int | None = None
        for place, (frame, begins) in enumerate(reader.frames(FoundShots())):
            start = frame.time if start is None else start
            if begins:
                found.append((place, (frame.time - start) * reader.info.time_base))
            watch(Progress("read", place + 1, max(place + 1, reader.info.frames)))
    return found
