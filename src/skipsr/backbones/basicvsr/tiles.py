"""A frame's grid of routing tiles, and residual blocks run on some of them (spec/skipvsr B8).

A tile is refined from a window that reaches two pixels beyond it, one for each convolution, so that
what is computed equals the dense block there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.basicvsr.blocks import ResidualBlock

_HALO = 2  # pixels; one for each 3x3 convolution of a block
_TOGETHER = 6  # tiles: few enough that what passes between two convolutions stays in the cache
Place = tuple[int, int, int]  # sample, row, column


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
    """Tiles gathered with their halo, refined a few at a time, and added in place; for inference.

    The features lie on a canvas with a border of zeros, which is the padding of the dense network.
    """

    def __init__(self, entered: Tensor, grid: Grid, windows: Tensor) -> None:
        """`windows` is room for all tiles with their halos, see `Canvases`."""
        n, c, h, w = entered.shape
        tall, wide = grid.tile
        size = (n, grid.rows * tall + 2 * _HALO, grid.columns * wide + 2 * _HALO, c)
        self._grid, self._canvas = grid, entered.new_empty(size)  # channels last
        self._windows = windows
        for beyond in (
            self._canvas[:, :_HALO],
            self._canvas[:, _HALO + h :],
            self._canvas[:, :, :_HALO],
            self._canvas[:, :, _HALO + w :],
        ):
            beyond.zero_()
        self._body = self._canvas[:, _HALO : _HALO + h, _HALO : _HALO + w]
        self._body.copy_(entered.permute(0, 2, 3, 1))

    @property
    def features(self) -> Tensor:
        return self._body.permute(0, 3, 1, 2)

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        places = mask.nonzero().tolist()
        windows = self._gather(places)
        for first in range(0, len(places), _TOGETHER):
            some = slice(first, first + _TOGETHER)
            self._refine(block, windows[some], places[some])

    def _gather(self, places: Sequence[Place]) -> Tensor:
        """Windows `k (p + 4) (q + 4) c`; all are read before any tile is written."""
        tall, wide = (side + 2 * _HALO for side in self._grid.tile)
        windows = self._windows[: len(places)]
        for window, (n, top, left) in zip(windows, self._corners(places), strict=True):
            window.copy_(self._canvas[n, top : top + tall, left : left + wide])
        return windows

    def _refine(self, block: ResidualBlock, windows: Tensor, places: Sequence[Place]) -> None:
        conv1, conv2 = block.conv1, block.conv2
        inner = F.relu_(F.conv2d(windows.permute(0, 3, 1, 2), conv1.weight, conv1.bias))
        self._clear_outside(inner.permute(0, 2, 3, 1), places)
        step = F.conv2d(inner, conv2.weight, conv2.bias)
        self._add(step.permute(0, 2, 3, 1), places)

    def _clear_outside(self, inner: Tensor, places: Sequence[Place]) -> None:
        """Zeros where the first convolution was evaluated outside the frame: the dense network pads
        what it gives with zeros."""
        h, w = self._grid.height, self._grid.width
        for window, (_, top, left) in zip(inner, self._corners(places), strict=True):
            # row i of `inner` is row top - 1 + i of the frame
            if top == 0:
                window[0] = 0
            if h - top + 1 < window.shape[0]:
                window[h - top + 1 :] = 0
            if left == 0:
                window[:, 0] = 0
            if w - left + 1 < window.shape[1]:
                window[:, w - left + 1 :] = 0

    def _add(self, step: Tensor, places: Sequence[Place]) -> None:
        tall, wide = self._grid.tile
        for added, (n, top, left) in zip(step, self._corners(places), strict=True):
            tile = self._body[n, top : top + tall, left : left + wide]
            tile += added[: tile.shape[0], : tile.shape[1]]

    def _corners(self, places: Sequence[Place]) -> list[Place]:
        tall, wide = self._grid.tile
        return [(n, i * tall, j * wide) for n, i, j in places]


class Canvases:
    """Makes the canvases of one clip's frames, which share the room for windows."""

    def __init__(self) -> None:
        self._windows: Tensor | None = None

    def __call__(self, entered: Tensor, grid: Grid) -> Canvas:
        if self._windows is None:
            n, c, _, _ = entered.shape
            tall, wide = (side + 2 * _HALO for side in grid.tile)
            self._windows = entered.new_empty(n * grid.rows * grid.columns, tall, wide, c)
        return Canvas(entered, grid, self._windows)
