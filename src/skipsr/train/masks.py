"""Masks to train with: what the transformer will meet at run time, and more."""

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.skipping.oracle import oracle_keep


def smooth_mask(grid: tuple[int, int, int], share: float, generator: torch.Generator) -> Tensor:
    """Random blobs that keep about `share` of the cells; bool `t h w`."""
    t, h, w = grid
    coarse = torch.rand((1, 1, -(-t // 2) + 1, -(-h // 4) + 1, -(-w // 4) + 1), generator=generator)
    field = F.interpolate(coarse, grid, mode="trilinear", align_corners=True)[0, 0]
    kept = max(1, round(share * field.numel()))
    return field >= field.flatten().topk(kept).values[-1]


def mixed_masks(high: Tensor, generator: torch.Generator) -> Tensor:
    """A mask for every clip of `b 3 t h w` in [0, 1]: oracle, random blobs or dense in equal parts.

    Returns:
        bool `b t' h/16 w/16`; each keeps at least one cell.
    """
    masks = oracle_keep(high)
    for mask in masks:
        kind = torch.rand((), generator=generator).item()
        t, h, w = mask.shape
        if kind < 1 / 3 or not mask.any():
            mask.fill_(True)
        elif kind < 2 / 3:
            share = 0.2 + 0.8 * torch.rand((), generator=generator).item()
            mask.copy_(smooth_mask((t, h, w), share, generator))
    return masks
