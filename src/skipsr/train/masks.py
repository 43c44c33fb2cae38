"""Masks to train with: the oracle's, the predictor's, random ones, dense."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.skipping.oracle import TAU

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskShares:
    """How often each kind of mask is drawn; the rest is dense."""

    oracle: float = 0.35  # from the HR clip: what plain upsampling loses
    predictor: float = 0.0  # of the model's own predictor; the oracle's where it has none
    blobs: float = 0.35  # smooth random regions that keep 0.2 to 1 of the cells

    def __post_init__(self) -> None:
        shares = (self.oracle, self.predictor, self.blobs)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"shares are at least 0 and add up to at most 1, not {shares}")

    def announce(self, predicts: bool) -> None:
        """Warn that oracle masks are drawn in place of those of a predictor that is missing."""
        if self.predictor and not predicts:
            log.warning("there is no mask predictor: oracle masks are drawn in place of its own")


def smooth_mask(grid: tuple[int, int, int], share: float, generator: torch.Generator) -> Tensor:
    """Random blobs that keep about `share` of the cells; bool `t h w`."""
    t, h, w = grid
    coarse = torch.rand((1, 1, -(-t // 2) + 1, -(-h // 4) + 1, -(-w // 4) + 1), generator=generator)
    field = F.interpolate(coarse, grid, mode="trilinear", align_corners=True)[0, 0]
    kept = max(1, round(share * field.numel()))
    return field >= field.flatten().topk(kept).values[-1]


def mixed_masks(
    errors: Tensor,
    predicted: Callable[[int], Tensor],
    shares: MaskShares,
    generators: Sequence[torch.Generator],
) -> list[Tensor]:
    """A mask for every clip of a batch.

    Args:
        errors: `b t h w`, what plain upsampling leaves of each token.
        predicted: the predictor's mask of clip i, bool `t h w`; asked for only when drawn.
        generators: randomness of each clip.

    Returns:
        bool `t h w` each; every one keeps at least one cell.
    """
    masks: list[Tensor] = []
    for i, (error, generator) in enumerate(zip(errors, generators, strict=True)):
        kind, share = torch.rand(2, generator=generator).tolist()
        t, h, w = error.shape
        if kind < shares.oracle:
            mask = error > TAU
        elif kind < shares.oracle + shares.predictor:
            mask = predicted(i)
        elif kind < shares.oracle + shares.predictor + shares.blobs:
            mask = smooth_mask((t, h, w), 0.2 + 0.8 * share, generator).to(error.device)
        else:
            mask = torch.ones_like(error, dtype=torch.bool)
        masks.append(mask if mask.any() else torch.ones_like(mask))
    return masks
