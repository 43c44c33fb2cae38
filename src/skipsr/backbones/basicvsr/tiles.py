"""A frame's grid of routing tiles, and executors that run residual blocks on some of them.

What is refined is cut out with two pixels around it, one for each convolution, so that the result
equals the dense block's there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.basicvsr.blocks import ResidualBlock
from skipsr.nn.convolution import convolve_relu
from skipsr.skipping.route import over_pixels

_HALO = 2  # pixels; one for each 3x3 convolution of a block


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle of whole tiles in a sample, in pixels; it may reach beyond the frame."""

    sample: int
    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Tiles of equal size over `height x width`; the last ones may reach beyond the frame."""

    height: int
    width: int
    tile: tuple[int, int]  # height and width of a tile
    stride: int = 1  # one pixel in so many, along each axis, stands for its neighbours in a mean

    @staticmethod
    def of(height: int, width: int, tile: int, stride: int = 1) -> "TileGrid":
        """The fewest tiles of at most `tile` pixels a side, all nearly full.

        Raises:
            ValueError: unless `stride` divides `tile`.
        """
        if tile < 1 or tile % stride:
            raise ValueError(f"tiles of {tile} pixels cannot have a stride of {stride}")

        def side(length: int) -> int:
            even = -(-length // -(-length // tile))
            return -(-even // stride) * stride

        return TileGrid(height, width, (side(height), side(width)), stride)

    @property
    def pitch(self) -> tuple[int, int]:
        """From one tile to the next, down and across."""
        return self.tile

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile[0])

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile[1])

    def means(self, x: Tensor) -> Tensor:
        """Mean over each tile's part of the frame: `n c h w -> n rows columns c`, float32.

        `x` has the stride already: `x[..., ::stride, ::stride]` of the features.
        """
        tall, wide = (side // self.stride for side in self.tile)
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
        few = (..., slice(None, None, self.stride), slice(None, None, self.stride))
        return self.means((a[few] - b[few]).abs_())

    def areas(self, mask: Tensor) -> list[list[Area]]:
        """The selected tiles of a mask `n rows columns`, merged into few rectangles.

        Neighbours in a row become one, and so do equal ones below each other. Those of one size are
        in one list.
        """
        tall, wide = self.tile
        runs: list[Area] = []
        for sample, row, column in mask.nonzero().tolist():
            top, left = row * tall, column * wide
            last = runs[-1] if runs else None
            if last is not None and (last.sample, last.top, last.right) == (sample, top, left):
                runs[-1] = replace(last, width=last.width + wide)
            else:
                runs.append(Area(sample, top, left, tall, wide))
        found: dict[tuple[int, int, int, int], Area] = {}  # by what would continue them
        for run in runs:
            above = found.pop((run.sample, run.top, run.left, run.width), None)
            area = run if above is None else replace(above, height=above.height + tall)
            found[run.sample, area.bottom, run.left, run.width] = area
        batches: dict[tuple[int, int], list[Area]] = {}
        for area in found.values():
            batches.setdefault((area.height, area.width), []).append(area)
        return list(batches.values())

    def pixels(self, mask: Tensor) -> Tensor:
        """A mask of tiles `n rows columns` as pixels `n 1 h w`."""
        return over_pixels(mask[:, None], self.tile, (self.height, self.width))


def _inside(length: int, tile: int, count: int) -> Tensor:
    """Pixels of each tile that lie in the frame, along one axis."""
    return (length - tile * torch.arange(count)).clamp(max=tile)


class BlockExecutor(Protocol):
    """Runs residual blocks on the selected tiles of a frame's features."""

    @property
    def features(self) -> Tensor:
        """`n c h w` as they are now."""
        ...

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        """One block where `mask`, bool `n rows columns`, says so; elsewhere features stay."""
        ...


class MaskedExecutor:
    """The reference: the block everywhere, then a choice per tile. Gradients flow through it."""

    def __init__(self, entered: Tensor, grid: TileGrid) -> None:
        self.features, self._grid = entered, grid

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        self.features = torch.where(self._grid.pixels(mask), block(self.features), self.features)


class BatchExecutor:
    """Selected samples of a batch, gathered: independent patches of one tile each.

    Gradients flow through it.
    """

    def __init__(self, entered: Tensor, grid: TileGrid) -> None:
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


class RegionExecutor:
    """Selected tiles cut out with their halo, refined together, and added in place; for inference.

    Neighbours are one area, and areas of one size are one batch. The features lie on a canvas of
    whole tiles with a border of zeros, which is the padding of the dense network.
    """

    def __init__(self, entered: Tensor, grid: TileGrid) -> None:
        n, c, h, w = entered.shape
        tall, wide = grid.rows * grid.tile[0], grid.columns * grid.tile[1]
        self._grid = grid
        self._canvas = entered.new_empty(n, tall + 2 * _HALO, wide + 2 * _HALO, c)  # channels last
        for rows in (slice(None, _HALO), slice(_HALO + h, None)):
            self._canvas[:, rows] = 0
        for columns in (slice(None, _HALO), slice(_HALO + w, None)):
            self._canvas[:, :, columns] = 0
        self._body = self._canvas[:, _HALO : _HALO + h, _HALO : _HALO + w]
        self._body.copy_(entered.permute(0, 2, 3, 1))

    @property
    def features(self) -> Tensor:
        return self._body.permute(0, 3, 1, 2)

    def run(self, block: ResidualBlock, mask: Tensor) -> None:
        batches = self._grid.areas(mask)
        cut = [self._cut(areas) for areas in batches]  # all is read before anything is written
        for areas, windows in zip(batches, cut, strict=True):
            self._refine(block, areas, windows)

    def _cut(self, areas: Sequence[Area]) -> Tensor:
        """Copies of areas of one size with their halos, `k c h w`."""
        tall, wide = areas[0].height + 2 * _HALO, areas[0].width + 2 * _HALO
        windows = self._canvas.new_empty(len(areas), tall, wide, self._canvas.shape[3])
        for window, area in zip(windows, areas, strict=True):
            rows, columns = slice(area.top, area.top + tall), slice(area.left, area.left + wide)
            window.copy_(self._canvas[area.sample, rows, columns])
        return windows.permute(0, 3, 1, 2)

    def _refine(self, block: ResidualBlock, areas: Sequence[Area], windows: Tensor) -> None:
        inner = convolve_relu(windows, block.conv1, (0, 0))
        for part, area in zip(inner, areas, strict=True):
            self._clear_outside(part, area)
        step = F.conv2d(inner, block.conv2.weight, block.conv2.bias).permute(0, 2, 3, 1)
        for added, area in zip(step, areas, strict=True):
            body = self._body[area.sample, area.top : area.bottom, area.left : area.right]
            body += added[: body.shape[0], : body.shape[1]]

    def _clear_outside(self, inner: Tensor, area: Area) -> None:
        """Zero the first convolution, `c h w` with one pixel around the area, outside the frame.

        The dense network pads it so.
        """
        below = self._grid.height - area.top + 1
        beside = self._grid.width - area.left + 1
        if area.top == 0:
            inner[:, 0] = 0
        if below < inner.shape[1]:
            inner[:, below:] = 0
        if area.left == 0:
            inner[..., 0] = 0
        if beside < inner.shape[2]:
            inner[..., beside:] = 0
