"""Middle frames for the page: cropped and compressed so that all of them fit into one file."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from torch import Tensor

from skipsr.clip import Clip
from skipsr.evaluation.methods import Masked
from skipsr.skipping.oracle import SIDE
from skipsr.video.images import write_image

_LIMIT = 15_000_000  # bytes of all pictures; a third more in the page, as base64
_DENSITY = 0.45  # bytes a pixel takes at most, about
_LARGEST, _SMALLEST = 1280 * 720, 160 * 160


@dataclass(frozen=True, slots=True)
class Picture:
    """What one method made of the frame."""

    method: str
    webp: bytes
    skipped: str = ""  # outline of the skipped places: an SVG path in places, empty for none
    box: str = ""  # the picture in the coordinates of that path, an SVG viewBox


@dataclass(slots=True, kw_only=True)
class Plate:
    """The middle frame of a clip by every method: the part `[top, top+height)` x `[left,
    left+width)`."""

    clip: str
    frame: int
    top: int
    left: int
    height: int
    width: int
    pictures: list[Picture] = field(default_factory=list[Picture])

    @property
    def bytes(self) -> int:
        return sum(len(picture.webp) for picture in self.pictures)

    def add(self, method: str, frames: Tensor, masks: Sequence[Masked] = ()) -> None:
        """Keep this clip's frame out of `t 3 h w` in [0, 1]."""
        rows = slice(self.top, self.top + self.height)
        columns = slice(self.left, self.left + self.width)
        image = Clip(frames[self.frame : self.frame + 1, :, rows, columns]).to_array()[0]
        covering = [mask for mask in masks if mask.start <= self.frame < mask.end]
        path, box = self._outline(covering[0]) if covering else ("", "")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "frame.webp"
            write_image(file, image, None)
            self.pictures.append(Picture(method, file.read_bytes(), path, box))

    def _outline(self, mask: Masked) -> tuple[str, str]:
        """Path and box of a mask whose places need not begin where the plate does."""
        high, wide = mask.work.cell
        top, left = self.top // high, self.left // wide
        bottom, right = -(-(self.top + self.height) // high), -(-(self.left + self.width) // wide)
        x, y = self.left / wide - left, self.top / high - top
        box = f"{x:g} {y:g} {self.width / wide:g} {self.height / high:g}"
        return outline(~mask.places(self.frame)[top:bottom, left:right]), box


class Album:
    """The plates of a run, each as large as the number of pictures allows."""

    def __init__(self, pictures: int) -> None:
        """`pictures`: how many will come at most."""
        share = _LIMIT / max(1, pictures) / _DENSITY
        self._area = min(_LARGEST, max(_SMALLEST, share))
        self._plates: list[Plate] = []

    def open(self, clip: str, frames: int, size: tuple[int, int]) -> Plate:
        """The plate of a clip of `frames` frames of `(height, width)`: its centre, on the grid of
        tokens."""
        height, width = size
        shrink = min(1.0, math.sqrt(self._area / (height * width)))
        rows, columns = (_whole(side, shrink) for side in size)
        top, left = ((a - b) // 2 // SIDE * SIDE for a, b in ((height, rows), (width, columns)))
        plate = Plate(clip=clip, frame=frames // 2, top=top, left=left, height=rows, width=columns)
        self._plates.append(plate)
        return plate

    @property
    def plates(self) -> list[Plate]:
        """Those that fit into a page, from the first."""
        shown: list[Plate] = []
        total = 0
        for plate in self._plates:
            total += plate.bytes
            if total > _LIMIT:
                break
            shown.append(plate)
        return shown

    @property
    def left_out(self) -> int:
        return len(self._plates) - len(self.plates)


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
