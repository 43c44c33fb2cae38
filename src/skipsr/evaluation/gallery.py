"""Middle frames for the page, cropped and compressed so that all of them fit into one file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from torch import Tensor

from skipsr.clip import Clip
from skipsr.evaluation.methods import WindowMask
from skipsr.timeline import TOKEN_SIDE as SIDE
from skipsr.video.images import webp

_LIMIT = 15_000_000  # bytes of all crops; a third more in the page, as base64
_DENSITY = 0.45  # bytes a pixel takes at most, about
_LARGEST, _SMALLEST = 1280 * 720, 160 * 160


@dataclass(frozen=True, slots=True)
class Crop:
    """What one method made of the frame, cropped."""

    method: str
    webp: bytes
    skipped: str = ""  # outline of the skipped places: an SVG path in places, empty for none
    box: str = ""  # the crop in the coordinates of that path, an SVG viewBox


@dataclass(slots=True, kw_only=True)
class FrameComparison:
    """The middle frame of a clip by every method, cropped to one rectangle."""

    clip: str
    frame: int
    top: int
    left: int
    height: int
    width: int
    crops: list[Crop] = field(default_factory=list[Crop])

    @property
    def bytes(self) -> int:
        return sum(len(crop.webp) for crop in self.crops)

    def add(self, method: str, frames: Tensor, masks: Sequence[WindowMask] = ()) -> None:
        """Keep this clip's frame out of `t 3 h w` in [0, 1]."""
        rows = slice(self.top, self.top + self.height)
        columns = slice(self.left, self.left + self.width)
        image = Clip(frames[self.frame : self.frame + 1, :, rows, columns]).to_array()[0]
        covering = [mask for mask in masks if mask.start <= self.frame < mask.end]
        path, box = self._outline(covering[0]) if covering else ("", "")
        self.crops.append(Crop(method, webp(image), path, box))

    def _outline(self, mask: WindowMask) -> tuple[str, str]:
        """Path and box of a mask whose cells need not begin where the crop does."""
        high, wide = mask.compute_map.cell_size
        top, left = self.top // high, self.left // wide
        bottom, right = -(-(self.top + self.height) // high), -(-(self.left + self.width) // wide)
        x, y = self.left / wide - left, self.top / high - top
        box = f"{x:g} {y:g} {self.width / wide:g} {self.height / high:g}"
        return outline(~mask.cells(self.frame)[top:bottom, left:right]), box


class Gallery:
    """The comparisons of a run, each as large as the number of crops allows."""

    def __init__(self, crops: int) -> None:
        """`crops`: how many will come at most."""
        share = _LIMIT / max(1, crops) / _DENSITY
        self._area = min(_LARGEST, max(_SMALLEST, share))
        self._comparisons: list[FrameComparison] = []

    def open(self, clip: str, frames: int, size: tuple[int, int]) -> FrameComparison:
        """The comparison for a clip of `frames` frames of `(height, width)`: its centre.

        It begins on the grid of tokens.
        """
        height, width = size
        shrink = min(1.0, math.sqrt(self._area / (height * width)))
        rows, columns = (_whole(side, shrink) for side in size)
        top, left = ((a - b) // 2 // SIDE * SIDE for a, b in ((height, rows), (width, columns)))
        return FrameComparison(
            clip=clip, frame=frames // 2, top=top, left=left, height=rows, width=columns
        )

    def keep(self, comparison: FrameComparison) -> None:
        """Show a comparison that is complete."""
        self._comparisons.append(comparison)

    @property
    def comparisons(self) -> list[FrameComparison]:
        """Those that fit into a page, from the first."""
        shown: list[FrameComparison] = []
        total = 0
        for comparison in self._comparisons:
            total += comparison.bytes
            if total > _LIMIT:
                break
            shown.append(comparison)
        return shown

    @property
    def left_out(self) -> int:
        return len(self._comparisons) - len(self.comparisons)


def outline(cells: Tensor) -> str:
    """SVG path that fills the true cells of a bool `h w`, one unit a cell, run by run.

    >>> import torch
    >>> outline(torch.tensor([[True, True, False]]))
    'M0 0h2v1h-2z'
    """
    runs: list[str] = []
    for y, row in enumerate(cells.tolist()):
        x = 0
        for filled, group in groupby(row):
            length = len(list(group))
            if filled:
                runs.append(f"M{x} {y}h{length}v1h-{length}z")
            x += length
    return "".join(runs)


def _whole(side: int, shrink: float) -> int:
    """The side, or a shorter one in whole tokens."""
    return side if shrink == 1 else min(side, max(SIDE, int(side * shrink) // SIDE * SIDE))
