"""Shots found while frames are read, from small versions of a few frames around each."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BEHIND = 3  # frames before one that are looked at to decide whether a shot begins with it
AHEAD = 2  # and after it

ROWS, COLUMNS = 18, 32  # cells of a small version, whatever the frame's shape
BLOCK = 3, 4  # rows and columns of cells that are looked for together in another frame
REACH = 2, 4  # and how many cells away
LIMIT = 0.7  # of `difference`: on the validation clips up to 0.5 within shots, from 0.9 at cuts
_SAMPLES = 3  # a side, of which a cell is the mean
_DARK = 0.001  # spread of a frame that shows nothing
_NOISE = 0.02  # contrast that means nothing, full scale 1
T = TypeVar("T")
Small = NDArray[np.float32]  # 3 rows columns


@dataclass(frozen=True, slots=True)
class FoundShots:
    """Shots that are found.

    One begins with a frame where none of the three frames before resembles it or one of the two
    that follow. What is back within two frames, such as after a flash, is no cut so, and where
    reading began matters to no frame but the first three.
    """

    firsts: ClassVar[tuple[int, ...]] = ()
    """None are known before the source is read; see `ListedShots`."""

    def mark(
        self, frames: Iterable[T], pixels: Callable[[T], NDArray[Any]], start: int = 0
    ) -> Iterator[tuple[T, bool]]:
        """Every frame, and whether a shot begins with it, as the first does.

        A frame is held back only where a cut is likely, until the next two are seen.

        Args:
            pixels: of a frame, RGB `h w 3`, uint8 or uint16.
            start: which of all frames is the first of these, which here does not matter.
        """
        before: deque[Small] = deque(maxlen=BEHIND)
        held: deque[tuple[T, Small]] = deque()

        def give(begins: bool) -> tuple[T, bool]:
            frame, small = held.popleft()
            before.append(small)
            return frame, begins

        for frame in frames:
            held.append((frame, shrink(pixels(frame))))
            while held:
                begins = _begins(before, [small for _, small in held])
                if begins and len(before) > 0 and len(held) <= AHEAD:
                    break
                yield give(begins)
        while held:
            yield give(_begins(before, [small for _, small in held]))


def _begins(before: Sequence[Small], after: Sequence[Small]) -> bool:
    """Whether no frame before resembles one after, those next to each other first."""
    pairs = product(after, reversed(before))
    return all(difference(a, b) > LIMIT for b, a in pairs)


def shrink(pixels: NDArray[Any]) -> Small:
    """A frame's small version, full scale 1, from a few samples of it: any size costs the same."""
    rows, columns = (
        ((np.arange(_SAMPLES * count) + 0.5) * side / (_SAMPLES * count)).astype(int)
        for count, side in zip((ROWS, COLUMNS), pixels.shape, strict=False)
    )
    samples = pixels[rows].take(columns, 1)
    # in two steps along whole rows, which is faster than one mean over both
    sums = samples.reshape(ROWS, _SAMPLES, -1).sum(1, dtype=np.uint32)
    sums = sums.reshape(ROWS, COLUMNS, _SAMPLES, 3).sum(2)
    full = float(np.iinfo(pixels.dtype).max) * _SAMPLES**2
    return np.ascontiguousarray(sums.transpose(2, 0, 1).astype(np.float32) / full)


def difference(a: Small, b: Small) -> float:
    """How badly blocks of `b` are found in `a`, up to a few cells away.

    It is the mean distance of the best places, as a share of the contrast inside blocks: near 0 for
    the same picture in another light, 1 and more for another picture.
    """
    contrast, a = _contrast(b), _lit_as(a, b)
    if (still := float(np.abs(b - a).mean()) / contrast) <= LIMIT:
        return still  # and less if anything moved
    down, across = REACH
    around = np.pad(a, ((0, 0), (down, down), (across, across)), mode="edge")
    places = sliding_window_view(around, (ROWS, COLUMNS), (1, 2))  # 3 moves moves rows columns
    apart = np.abs(places - b[:, None, None]).mean(0)
    high, wide = BLOCK
    found = apart.reshape(-1, ROWS // high, high, COLUMNS // wide, wide).mean((2, 4)).min(0)
    return float(found.mean()) / contrast


def _lit_as(a: Small, b: Small) -> Small:
    """`a` with the mean of `b` and, within a factor of two, its spread: fades change no picture."""
    spread = min(2.0, max(0.5, float(b.std()) / max(_DARK, float(a.std()))))
    return (a - a.mean((1, 2), keepdims=True)) * spread + b.mean((1, 2), keepdims=True)


def _contrast(values: Small) -> float:
    high, wide = BLOCK
    blocks = values.reshape(3, ROWS // high, high, COLUMNS // wide, wide)
    return float(np.abs(blocks - blocks.mean((2, 4), keepdims=True)).mean()) + _NOISE
