"""Index maps from a canvas to another one: to the next finer level, or to the next slice's canvas.

Each has an entry for every slot of the target, gutters included, which says what to copy there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.skipping.canvas import CanvasPlan


def doubled(coarser: CanvasPlan, finer: CanvasPlan, width: int) -> Tensor:
    """The map for a layer that upsamples by pixel shuffle, from a middle to the finer canvas.

    An entry is an index into the shuffled middle, which has twice the rows and columns of the
    coarser canvas's; -1 where that pixel is skipped.

    Args:
        finer: the plan of the same regions at twice the pixels.
        width: of the picture at that level.
    """
    pixel, down, across = _parents(finer, width)
    index, length = coarser.middle_of_pixel[pixel], coarser.middle_shape[1]
    quarter = (2 * (index // length) + down) * 2 * length + 2 * (index % length) + across
    skipped = coarser.slot_of_pixel[pixel] == coarser.zero
    return torch.where((finer.pixel_of_slot >= 0) & ~skipped, quarter, -1)


def split(coarser: CanvasPlan, finer: CanvasPlan, width: int) -> Tensor:
    """The map for a layer that gives four values a slot, one for each quarter of its pixel.

    An entry is `4 * slot + quarter`, with a slot of the coarser canvas and its quarters 0 to 3 row
    by row. Where that pixel is skipped, the slot is `zero`.

    Args:
        finer: a plan at twice the pixels.
        width: of the picture at that level.
    """
    pixel, down, across = _parents(finer, width)
    quarter = 4 * coarser.slot_of_pixel[pixel] + 2 * down + across
    return torch.where(finer.pixel_of_slot >= 0, quarter, 4 * coarser.zero)


def halved(finer: CanvasPlan, coarser: CanvasPlan, width: int) -> Tensor:
    """For every slot of the coarser canvas the slot in what a convolution with stride 2 and
    padding 1 gives of the finer one, which then looks from a pixel's first quarter right and down;
    0, which belongs to no pixel, where that pixel is skipped.

    Args:
        coarser: a plan at half the pixels.
        width: of the picture at the finer level.
    """
    half = -(-width // 2)
    y, x = coarser.pixel_of_slot // half, coarser.pixel_of_slot % half
    first = finer.slot_of_pixel[(2 * y * width + 2 * x).clamp_min(0)]
    row, column = (first // finer.shape[1] + 1) // 2, (first % finer.shape[1] + 1) // 2
    there = (coarser.pixel_of_slot >= 0) & (first != finer.zero)
    return torch.where(there, row * -(-finer.shape[1] // 2) + column, 0)


def copied(source: CanvasPlan, target: CanvasPlan) -> Tensor:
    """The map between canvases of one level: slots of `source` that show the target's pixels.

    A gutter of `source` serves where the pixel is skipped there; `zero` where none shows it.
    """
    here = torch.arange(len(source.pixel_of_slot), device=source.pixel_of_slot.device)
    shown = F.pad(source.slot_of_pixel, (0, 1))  # the last takes what stands for no pixel
    skipped = (source.pixel_of_slot >= 0) & (source.source_of_slot == source.zero)
    pixel = torch.where(skipped, source.pixel_of_slot, len(source.slot_of_pixel))
    shown.scatter_reduce_(0, pixel, here, "amax", include_self=False)
    return torch.where(
        target.pixel_of_slot >= 0, shown[target.pixel_of_slot.clamp_min(0)], source.zero
    )


def _parents(finer: CanvasPlan, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """For every slot of a canvas the pixel of the coarser picture that it is part of, and which
    half of it, down and across; of slots outside the picture they mean nothing."""
    y, x = finer.pixel_of_slot // width, finer.pixel_of_slot % width
    return (y // 2 * -(-width // 2) + x // 2).clamp_min(0), y % 2, x % 2
