"""Flicker where computed places meet skipped ones, in space and in time."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from skipsr.metrics.metric import MetricError, check_frames

BAND = 8  # pixels on each side of a border between kept and skipped places


@dataclass(frozen=True, slots=True, kw_only=True)
class Flicker:
    """Mean absolute change from frame to frame of `frames - reference`, in 8-bit levels."""

    border: float
    """At borders of the mask."""
    calm: float
    """Away from them, for the same mixture of kept and skipped."""
    share: float
    """Share of all pixels and steps that lie at borders, 0 to 1."""


def border_flicker(
    frames: Tensor, reference: Tensor, keep: Tensor, cell: tuple[int, int]
) -> Flicker:
    """What the borders of a mask add to the flicker of a result.

    Pixel and step (from frame i to i+1) lie at a border when, in the mask of either frame, the
    pixel is within 8 of an edge between a kept and a skipped place, or when its place is kept in
    one frame and skipped in the other. Elsewhere the change is averaged over kept and over skipped
    pixels apart, and `calm` mixes the two averages as the border does; a pixel that switches counts
    half to each. When one of the two states has no pixel away from borders, the other stands for
    both. Without borders `border` equals `calm`.

    Args:
        frames: the result, `t 3 h w` in [0, 1].
        reference: the truth, or the upsampled clip; of the same size.
        keep: places that were computed in each frame, bool `t r c`.
        cell: height and width of a place in pixels; the last ones may reach beyond the frame.

    Raises:
        MetricError: for clips of different sizes or one frame, for a mask that does not cover
            them, or when everything is border.
    """
    check_frames(frames, reference)
    _check_mask(frames, keep, cell)
    count, _, h, w = frames.shape
    total = torch.zeros(3, 2, dtype=torch.float64)  # border, kept, skipped: sum and number
    mixture = 0.0
    for i in range(count - 1):  # step by step, which bounds the memory
        drift = (frames[i + 1] - reference[i + 1]) - (frames[i] - reference[i])
        change = 255 * drift.float().abs().mean(0)
        before, after = (_pixels(keep[k], cell)[:h, :w] for k in (i, i + 1))
        at_border = _near_edge(before) | _near_edge(after) | (before != after)
        parts = (at_border, before & ~at_border, ~before & ~at_border)
        total += torch.stack([_sum(change, part) for part in parts])
        mixture += ((before.double() + after.double()) / 2)[at_border].sum().item()
    return _summarise(total, mixture)


def _summarise(total: Tensor, mixture: float) -> Flicker:
    """From sums and numbers of the three parts, and how many border pixels were kept."""
    (at_border, count), (kept, kept_count), (skipped, skipped_count) = total.tolist()
    away = kept_count + skipped_count
    if not away:
        raise MetricError("the mask has no place away from a border to compare with")
    mean = (kept + skipped) / away  # of the one state there is, when the other has no pixel
    if not count:
        return Flicker(border=mean, calm=mean, share=0.0)
    mean_kept = kept / kept_count if kept_count else mean
    mean_skipped = skipped / skipped_count if skipped_count else mean
    share_kept = mixture / count
    return Flicker(
        border=at_border / count,
        calm=share_kept * mean_kept + (1 - share_kept) * mean_skipped,
        share=count / (count + away),
    )


def _sum(change: Tensor, where: Tensor) -> Tensor:
    """Sum and number of the changes at those pixels, float64."""
    return torch.stack((change.double()[where].sum(), where.sum())).cpu()


def _pixels(places: Tensor, cell: tuple[int, int]) -> Tensor:
    """A mask of places `r c` as one of pixels."""
    return repeat(places, "r c -> (r p) (c q)", p=cell[0], q=cell[1])


def _near_edge(mask: Tensor) -> Tensor:
    """Pixels within `BAND` of one of the other state, bool `h w`.

    Distance counts along rows and columns, so that a band is as wide at corners as elsewhere.
    """
    state = mask.float()[None, None]
    side = 2 * BAND + 1
    near = [F.max_pool2d(s, side, 1, BAND)[0, 0] > 0 for s in (state, 1 - state)]
    return near[0] & near[1]


def _check_mask(frames: Tensor, keep: Tensor, cell: tuple[int, int]) -> None:
    count, _, h, w = frames.shape
    if count < 2:
        raise MetricError("flicker needs two frames at least")
    grid = (count, -(-h // cell[0]), -(-w // cell[1]))
    if keep.dtype != torch.bool or keep.shape != grid:
        raise MetricError(
            f"a mask of {count} frames of {w}x{h} is bool {' '.join(map(str, grid))}, "
            f"not {keep.dtype} {tuple(keep.shape)}"
        )
