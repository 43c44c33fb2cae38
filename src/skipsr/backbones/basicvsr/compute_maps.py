"""What was run of a clip, cell by cell."""

from collections.abc import Sequence

import torch
from torch import Tensor

from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.clip import Clip
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.need import CELL
from skipsr.skipping.reuse import firsts


def cell_map(
    model: BasicVSR, keeps: Sequence[Tensor], which: Tensor, clip: Clip, size: tuple[int, int]
) -> ComputeMap:
    """What was run of each frame; nothing of one that repeats another."""
    pixels = CELL * model.config.unshuffle  # of the clip, a side of a cell
    ran = torch.zeros(len(which), *keeps[0].shape, dtype=torch.float32)
    ran[firsts(which)] = torch.stack(list(keeps)).float()
    scale = [to / side for to, side in zip(size, clip.size, strict=True)]
    cell = max(1, round(pixels * scale[0])), max(1, round(pixels * scale[1]))
    # a place of the result, whose size is whole, shows the cell under its middle
    rows, columns = (
        ((_middles(-(-to // side)) * side / by).long() // pixels).clamp_max(count - 1)
        for to, side, by, count in zip(size, cell, scale, ran.shape[1:], strict=True)
    )
    share = ran[:, rows[:, None], columns]
    part = ran.mean().item()
    stages = {"backward": part, "forward": part, "reconstruct": part}
    return ComputeMap(
        fractions=share,
        cell_size=cell,
        units_run=int(ran.sum()),
        units_total=ran.numel(),
        stages=stages,
    )


def _middles(places: int) -> Tensor:
    return torch.arange(places, dtype=torch.float32) + 0.5


def dense_map(model: BasicVSR, clip: Clip, size: tuple[int, int]) -> ComputeMap:
    """Every cell of every frame."""
    rows, columns = (-(-side // (CELL * model.config.unshuffle)) for side in clip.size)
    keep = [torch.ones(rows, columns, dtype=torch.bool)] * len(clip)
    return cell_map(model, keep, torch.arange(len(clip)), clip, size)
