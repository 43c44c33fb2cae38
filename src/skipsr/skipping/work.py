"""What was computed for a clip, place by place and in all, whatever the model's units are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skipsr.skipping.route import Route
from skipsr.timeline import TOKEN_SIDE, token_layer

_MOST = 0.5  # share of a place from which it counts as computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much of the dense model ran, and where.

    Raises:
        ValueError: for a share of another shape, dtype or device, or counts that cannot be.
    """

    share: Tensor
    """What part of each place was computed: `t h w`, float32 in [0, 1], on the CPU, with one row of
    places per frame of the clip."""
    cell: tuple[int, int]
    """Height and width of a place in pixels of the result; the last ones may reach beyond it."""
    computed: int
    """Units that were run."""
    total: int
    """Units that the dense model runs: tokens, cells of frames, or residual blocks times tiles."""
    spent: float | None = None
    """What that is of the dense model's compute, as a budget counts it; None: the same share."""
    stages: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of stages that a report times, the share of the dense model's that ran, 0 to 1."""

    def __post_init__(self) -> None:
        if self.share.ndim != 3 or self.share.dtype != torch.float32 or not self.share.is_cpu:
            raise ValueError(
                f"shares are float32 t h w on the CPU, not {self.share.dtype} "
                f"{tuple(self.share.shape)} on {self.share.device}"
            )
        if min(self.cell) < 1 or not 0 <= self.computed <= self.total or self.total == 0:
            raise ValueError(
                f"{self.computed} units of {self.total} in places of {self.cell} cannot be"
            )

    @staticmethod
    def of_route(route: Route, frames: int) -> "Work":
        """The tokens of a route over a clip of `frames` frames."""
        layers = [token_layer(frame) for frame in range(frames)]
        share = route.keep.cpu()[layers].float()
        side = TOKEN_SIDE
        return Work(share=share, cell=(side, side), computed=route.kept, total=route.keep.numel())

    @property
    def fraction(self) -> float:
        """Computed share of all units, 0 to 1."""
        return self.computed / self.total

    @property
    def keep(self) -> Tensor:
        """Places that count as computed, bool `t h w`: those of which at least half was."""
        return self.share >= _MOST
