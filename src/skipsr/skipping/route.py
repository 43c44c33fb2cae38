"""Which cells of a grid are computed, and how they travel there and back."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from torch import Tensor

THRESHOLD = 0.5  # probability of needing it from which a cell is computed, by default


@dataclass(frozen=True)
class Route:
    """A mask over a grid of cells, and the route it gives.

    Kept cells travel packed, in raster order (t slowest, then h, then w). Keeping everything is the
    ordinary case of a dense network and costs no gather.

    Attributes:
        keep: `t h w`, bool; True = computed.

    Raises:
        ValueError: unless `keep` is a three-dimensional bool tensor.
    """

    keep: Tensor

    def __post_init__(self) -> None:
        if self.keep.dtype != torch.bool or self.keep.ndim != 3:
            raise ValueError(
                f"a mask is bool t h w, not {self.keep.dtype} {tuple(self.keep.shape)}"
            )

    @staticmethod
    def dense(grid: tuple[int, int, int], device: torch.device | str = "cpu") -> "Route":
        """Compute every cell of a `(t, h, w)` grid."""
        return Route(torch.ones(grid, dtype=torch.bool, device=device))

    @staticmethod
    def from_budget(scores: Tensor, budget: float) -> "Route":
        """Keep the `ceil(budget * n)` of n cells that score highest; ties go by raster order.

        Args:
            scores: `t h w`, high = needs computing.
            budget: share of the cells, above 0 and up to 1.
        """
        count = math.ceil(round(budget * scores.numel(), 6))  # 0.07 * 100 is a little above 7
        order = scores.flatten().argsort(descending=True, stable=True)
        keep = torch.zeros_like(order, dtype=torch.bool)
        keep[order[: max(1, count)]] = True
        return Route(keep.reshape(scores.shape))

    @property
    def grid(self) -> tuple[int, int, int]:
        t, h, w = self.keep.shape
        return t, h, w

    @cached_property
    def _index(self) -> Tensor:
        """`k`: the number of every kept cell, in raster order."""
        return self.keep.flatten().nonzero()[:, 0]

    @property
    def kept(self) -> int:
        """Number of computed cells."""
        return self._index.shape[0]

    @property
    def fraction(self) -> float:
        """Computed share of all cells, 0 to 1."""
        return self.kept / self.keep.numel()

    @property
    def is_dense(self) -> bool:
        return self.kept == self.keep.numel()

    @cached_property
    def positions(self) -> Tensor:
        """`k 3`: cell `(t, h, w)` of every kept cell, in packed order."""
        return self.keep.nonzero()

    def pack(self, grid: Tensor) -> Tensor:
        """Kept cells of `t h w ...` as `k ...`."""
        cells = grid.flatten(0, 2)
        return cells if self.is_dense else cells[self._index]

    def scatter(self, cells: Tensor, base: Tensor) -> Tensor:
        """`base` (`t h w ...`) with its kept cells replaced by `cells` (`k ...`)."""
        if self.is_dense:
            return cells.to(base.dtype).reshape(base.shape)
        flat = base.flatten(0, 2).index_copy(0, self._index, cells.to(base.dtype))
        return flat.reshape(base.shape)

    def compose(self, cells: Tensor, latent: Tensor) -> Tensor:
        """`latent` (`t 2h 2w c`) with its kept cells replaced by `cells` (`k 4 c`)."""
        return from_cells(self.scatter(cells, to_cells(latent)))


def over_pixels(cells: Tensor, side: int | tuple[int, int], size: tuple[int, ...]) -> Tensor:
    """Cells `... rows columns` of so many pixels, down and across, as pixels `... h w` of a picture
    of that size; the last ones may reach beyond it."""
    high, wide = (side, side) if isinstance(side, int) else side
    pixels = cells.repeat_interleave(high, -2).repeat_interleave(wide, -1)
    return pixels[..., : size[0], : size[1]]


def to_cells(latent: Tensor) -> Tensor:
    """Latent `t (h 2) (w 2) c` -> cells `t h w (2 2) c`: what one token holds, row by row."""
    return rearrange(latent, "t (h p) (w q) c -> t h w (p q) c", p=2, q=2)


def from_cells(cells: Tensor) -> Tensor:
    """Cells `t h w (2 2) c` -> latent `t (h 2) (w 2) c`."""
    return rearrange(cells, "t h w (p q) c -> t (h p) (w q) c", p=2, q=2)
