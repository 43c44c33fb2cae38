"""Means and variances for the norms of an autoencoder of which only a part is run.

A frame norm looks at the whole frame, and what is kept is not like what is skipped. The default,
`Carried`, remembers of every cell what it was like when it was last run.
"""

from typing import Protocol

from torch import Tensor, nn

from skipsr.nn.fused import moments_of, sums
from skipsr.skipping.canvas import CanvasPlan


class Statistics(Protocol):
    """Gives the group norms of one clip their means and variances."""

    def of(
        self, norm: nn.GroupNorm, x: Tensor, plan: CanvasPlan, leaving: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of each frame and group, `t groups`, float32.

        Args:
            x: what the layer reads, `t height width c`, zero outside the kept part.
            plan: its canvas.
            leaving: slots of the canvas that are run for the last time.
        """
        ...


class Carried:
    """Statistics of the whole frame: of the kept part, and of the rest as it last was."""

    def __init__(self) -> None:
        self._left: dict[nn.GroupNorm, Tensor] = {}

    def of(
        self, norm: nn.GroupNorm, x: Tensor, plan: CanvasPlan, leaving: Tensor
    ) -> tuple[Tensor, Tensor]:
        left = self._left.get(norm)
        seen = sums(x) if left is None else sums(x) + left
        found = moments_of(seen, norm.num_groups, len(plan.slot_of_pixel))
        if len(leaving):
            gone = sums(x[-1:].flatten(1, 2).index_select(1, leaving)[:, None])
            self._left[norm] = gone if left is None else left + gone
        return found
