"""What was computed for a clip, cell by cell and in all, whatever the model's units are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skipsr.skipping.route import Route
from skipsr.timeline import TOKEN_SIDE, token_layer

_MOST = 0.5  # of a cell, from which it counts as computed


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeMap:
    """How much of the dense model ran, and where.

    Raises:
        ValueError: for fractions of another shape, dtype or device, or counts that cannot be.
    """

    fractions: Tensor
    """What part of each cell was computed: `t h w`, float32 in [0, 1], on the CPU; a grid of cells
    per frame of the clip."""
    cell_size: tuple[int, int]
    """Height and width of a cell in pixels of the result; the last ones may reach beyond it."""
    units_run: int
    units_total: int
    """Units that the dense model runs: tokens, cells of frames, or residual blocks times tiles."""
    spent: float | None = None
    """The share of the dense model's compute, as a budget counts it; None: `fraction`."""
    always: float = 0.0
    """The part of it that is spent whatever is skipped."""
    stages: Mapping[str, float] = field(default_factory=dict[str, float])
    """Shares of the dense model that ran, 0 to 1, by the stages that a report times."""

    def __post_init__(self) -> None:
        x, run, total = self.fractions, self.units_run, self.units_total
        if x.ndim != 3 or x.dtype != torch.float32 or not x.is_cpu:
            raise ValueError(
                f"fractions are float32 t h w on the CPU, not {x.dtype} {tuple(x.shape)} on "
                f"{x.device}"
            )
        if min(self.cell_size) < 1 or not 0 <= run <= total or total == 0:
            raise ValueError(f"{run} units of {total} in cells of {self.cell_size} cannot be")

    @staticmethod
    def of_route(route: Route, frames: int) -> "ComputeMap":
        """The tokens of a route over a clip of `frames` frames."""
        layers = [token_layer(frame) for frame in range(frames)]
        fractions = route.keep.cpu()[layers].float()
        side = TOKEN_SIDE
        return ComputeMap(
            fractions=fractions,
            cell_size=(side, side),
            units_run=route.kept,
            units_total=route.keep.numel(),
        )

    @property
    def fraction(self) -> float:
        """The share of all units that was run, 0 to 1."""
        return self.units_run / self.units_total

    @property
    def keep(self) -> Tensor:
        """Cells that count as computed, bool `t h w`: those of which at least half was."""
        return self.fractions >= _MOST
