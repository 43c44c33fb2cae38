"""How well predicted masks match true ones.

The positive class is `keep`: tokens that need computing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens by what was predicted and what is true."""

    hits: int  # kept rightly
    extra: int  # kept, and could be skipped
    missed: int  # skipped, and needed computing
    spared: int  # skipped rightly

    @staticmethod
    def of(found: Tensor, keep: Tensor) -> "Counts":
        """Count two bool tensors of one shape: the predicted mask and the true one."""
        pairs = ((found & keep), (found & ~keep), (~found & keep), (~found & ~keep))
        return Counts(*(int(pair.sum()) for pair in pairs))

    @property
    def tokens(self) -> int:
        return self.hits + self.extra + self.missed + self.spared

    @property
    def skipped(self) -> float:
        """Share of tokens that the predicted mask skips."""
        return (self.missed + self.spared) / self.tokens

    @property
    def skippable(self) -> float:
        """Share of tokens that the true mask skips."""
        return (self.extra + self.spared) / self.tokens

    @property
    def precision(self) -> float | None:
        """Precision: the share of the kept tokens that needed it; None when none was kept."""
        return _share(self.hits, self.hits + self.extra)

    @property
    def recall(self) -> float | None:
        """Recall: the share kept of the tokens that need computing; None when none does."""
        return _share(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None when neither mask keeps a token."""
        return _share(2 * self.hits, 2 * self.hits + self.extra + self.missed)


def average_precision(scores: Tensor, keep: Tensor) -> float | None:
    """Area under precision over recall, as the sum of (R_n - R_(n-1)) P_n over falling thresholds.

    Equal scores are one threshold, and precision is not interpolated.

    Args:
        scores: any shape; higher = rather keep.
        keep: bool, the same shape.

    Returns:
        0 to 1; None when no token is to be kept.
    """
    ordered, places = scores.flatten().double().sort(descending=True)
    hits = keep.flatten()[places].long().cumsum(0)
    if not len(hits) or not hits[-1]:
        return None
    ends = torch.ones_like(ordered, dtype=torch.bool)
    ends[:-1] = ordered[1:] != ordered[:-1]
    found = torch.arange(1, len(hits) + 1, device=hits.device)[ends]
    gained = torch.diff(hits[ends], prepend=hits.new_zeros(1))
    return ((gained / hits[-1]).double() * (hits[ends] / found).double()).sum().item()


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
