"""A frame's grid of routing tiles, and residual blocks run on some of them (spec/skipvsr B8).

What is refined is cut out with two pixels around it, one for each convolution, so that the result
equals the dense block's there.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.basicvsr.blocks import ResidualBlock

_HALO = 2  # pixels; one for each 3x3 convolution of a block


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle of a sample's frame, in pixels; `bottom` and `right` are the first outside."""

    sample: int
    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles of equal size over `height x width`; the last ones may reach beyond the frame."""

    height: int
    width: int
    tile: tuple[int, int]  # height and width of a tile
    thin: int = 1  # one pixel in so many, along each axis, stands for its neighbours in a mean

    @staticmethod
    def of(height: int, width: int, tile: int, thin: int = 1) -> "Grid":
        """The fewest tiles of at most `tile` pixels a side, all nearly full.

        Raises:
            ValueError: unless `thin` divides `tile`.
        """
        if tile < 1 or tile % thin:
            raise ValueError(f"tiles of {tile} pixels cannot be thinned by {thin}")

        def side(length: int) -> int:
            even = -(-length // -(-length // tile))
            return -(-even // thin) * thin

        return Grid(height, width, (side(height), side(width)), thin)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile[0])

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile[1])

    def means(self, x: Tensor) -> Tensor:
        """Mean over each tile's part of the frame: `n c h w -> n rows columns c`, float32.

        `x` is thinned already: `x[..., ::thin, ::thin]` of the features.
        """
        tall, wide = (side // self.thin for side in self.tile)
        below, beside = self.rows * tall - x.shape[2], self.columns * wide - x.shape[3]
        inside = _inside(x.shape[2], tall, self.rows)[:, None] * _inside(
            x.shape[3], wide, self.columns
        )
        if below or beside:
            x = F.pad(x, (0, beside, 0, below))
        cells = rearrange(x, "n c (r p) (s q) -> n r s c p q", r=self.rows, s=self.columns)
        return cells.sum((4, 5), dtype=torch.float32) / inside[..., None].to(x.device)

    def difference(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean absolute difference of features `n c h w` in each tile: `n rows columns c`."""
        few = (..., slice(None, None, self.thin), slice(None, None, self.thin))
        return self.means((a[few] - b[few]).abs_())

    def areas(self, mask: Tensor) -> list[Area]:
        """The selected tiles of a mask `n rows columns`, neighbours in a row as one."""
        tall, wide = self.tile
        found: list[Area] = []
        for sample, row, column in mask.nonzero().tolist():
            top, left = row * tall, column * wide
            right = min(left + wide, self.width)
            last = found[-1] if found else None
            if last is not None and (last.sample, last.top, last.right) == (sample, top, left):
                found[-1] = replace(last, right=right)
            else:
                found.append(Area(sample, top, min(top + tall, self.height), left, right))
        return found

    def pixels(self, mask: Tensor) -> Tensor:
        """A mask of tiles `n rows columns` as pixels `n 1 h w`."""
        tall, wide = self.tile
        grown = mask.repeat_interleave(tall, 1).repeat_interleave(wide, 2)
        return grown[:, None, : self.height, : self.width]


def _inside(length: int, tile: int, count: int) -> Tensor:
    """Pixels of each tile that lie in the frame, along one axis."""
    return (length - tile * torch.arange(count)).clamp(max=tile)


class Execution(Protocol):
    """Features of a frame on their way through the residual blocks."""

    @property
    def features(self) -> Tensor:
        """`n c h w` as they are now."""
        ...

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        """One block where `mask`, bool `n rows columns`, says so; elsewhere features stay."""
        ...


class Masked:
    """The reference: the block everywhere, then a choice per tile."""

    def __init__(self, entered: Tensor, grid: Grid) -> None:
        self.features, self._grid = entered, grid

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        self.features = torch.where(self._grid.pixels(mask), block(self.features), self.features)


class Rows:
    """Whole samples of a batch: patches that know nothing of each other, one tile each. Gradients
    flow through it."""

    def __init__(self, entered: Tensor, grid: Grid) -> None:
        """Raises:
        ValueError: for a grid of more than one tile.
        """
        if (grid.rows, grid.columns) != (1, 1):
            raise ValueError("samples are chosen whole: their grid is one tile")
        self.features = entered

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        chosen = mask.flatten().nonzero()[:, 0]
        if len(chosen) == len(mask):
            self.features = block(self.features)
        elif len(chosen):
            refined = block(self.features.index_select(0, chosen))
            self.features = self.features.index_copy(0, chosen, refined.to(self.features.dtype))


class Canvas:
    """Selected tiles cut out with their halo, refined, and added in place; for inference.

    Neighbours in a row are refined as one area. The features lie on a canvas with a border of
    zeros, which is the padding of the dense network.
    """

    def __init__(self, entered: Tensor, grid: Grid) -> None:
        n, c, h, w = entered.shape
        self._grid = grid
        self._canvas = entered.new_empty(n, h + 2 * _HALO, w + 2 * _HALO, c)  # channels last
        for border in (slice(None, _HALO), slice(-_HALO, None)):
            self._canvas[:, border] = 0
            self._canvas[:, :, border] = 0
        self._body = self._canvas[:, _HALO:-_HALO, _HALO:-_HALO]
        self._body.copy_(entered.permute(0, 2, 3, 1))

    @property
    def features(self) -> Tensor:
        return self._body.permute(0, 3, 1, 2)

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        areas = self._grid.areas(mask)
        windows = [self._window(area) for area in areas]  # all are read before any area is written
        for area, window in zip(areas, windows, strict=True):
            self._refine(block, area, window)

    def _window(self, area: Area) -> Tensor:
        """A copy of the area with its halo, `1 c h w`."""
        bottom, right = area.bottom + 2 * _HALO, area.right + 2 * _HALO
        window = self._canvas[area.sample, area.top : bottom, area.left : right]
        return window.clone(memory_format=torch.contiguous_format)[None].permute(0, 3, 1, 2)

    def _refine(self, block: ResidualBlock, area: Area, window: Tensor) -> None:
        inner = F.relu_(F.conv2d(window, block.conv1.weight, block.conv1.bias))
        # the dense network pads this with zeros at the frame's border; here it was computed
        if area.top == 0:
            inner[:, :, 0] = 0
        if area.bottom == self._grid.height:
            inner[:, :, -1] = 0
        if area.left == 0:
            inner[..., 0] = 0
        if area.right == self._grid.width:
            inner[..., -1] = 0
        step = F.conv2d(inner, block.conv2.weight, block.conv2.bias)
        body = self._body[area.sample, area.top : area.bottom, area.left : area.right]
        body += step[0].permute(1, 2, 0)
