"""The mask: which cells of a clip are computed, from the need predicted from LR frames."""

import math
from bisect import bisect_left
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.skipping.dial import Dial
from skipsr.skipping.need import LOST, Need

STRIP = 2  # rows of cells that are decided together: what is run stands in strips, see `regions`
_LEFT = 0.25  # of what plain upsampling loses: no model restores more than the rest
_ROUNDING = 2 / 12 / 255**2  # a cell that loses less than 8-bit rounding gains nothing


def needed(
    need: Need | Tensor,
    head: int,
    dial: Dial,
    strip: int = STRIP,
    spent: Callable[[Tensor], float] | None = None,
) -> Tensor:
    """Cells that need the model, bool `t rows columns`, on the CPU; equal within a strip's column.

    The need is averaged over three frames, so that masks are steady, and over a strip's cells.
    A cell next to needier cells counts as needier. This shortens mask borders, where quality is
    lost because the network cannot see past them.

    Args:
        need: of a clip's frames, `t k rows columns`; or the mask itself, `t rows columns`, which is
            taken as it is.
        head: which of its heads to go by.
        spent: of a mask, the share of all cells that it has run; by default those that it keeps.
    """
    if isinstance(need, Tensor):
        return need.cpu()
    means, spread = need.mean.cpu(), need.spread[:, head].cpu()
    change = _smoothed(means[:, head], strip)
    mean = change.log()
    if dial.share is not None:
        return _largest(mean, dial.share, spent or _kept)
    spread = _cells(_strips(spread, strip), strip, means.shape[2])
    keep = Need(mean, spread).probability(dial.tau) >= dial.threshold
    if dial.loss is None:
        return keep
    lost = means[:, LOST].exp()
    left = (lost - change).clamp_min(_LEFT * lost).mean()  # what the result is off in any case
    keep |= change >= _limit(change, dial.loss * left.item())
    return keep & (_smoothed(means[:, LOST], strip) > _ROUNDING)


def _limit(change: Tensor, allowed: float) -> Tensor:
    """The change below which all cells can be skipped.

    They then leave out `allowed` of the mean over all cells, at most.
    """
    found = change.flatten().sort().values
    spent = found.cumsum(0) / len(found)
    count = int((spent <= allowed).sum())
    return found[count] if count < len(found) else found.new_tensor(math.inf)


def _smoothed(mean: Tensor, strip: int) -> Tensor:
    """Errors of ln errors `t rows columns`: steady, of whole strips, raised by neighbours."""
    means = _raised(_strips(_steady(mean).exp(), strip))
    return _cells(means, strip, mean.shape[1])


def _steady(mean: Tensor) -> Tensor:
    """The mean of three frames, `t rows columns`."""
    padded = torch.cat((mean[:1], mean, mean[-1:]))
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _strips(values: Tensor, strip: int) -> Tensor:
    """The mean over each strip's column of cells: `t rows columns` -> `t strips columns`."""
    short = -values.shape[1] % strip
    padded, counted = (F.pad(x, (0, 0, 0, short)) for x in (values, torch.ones_like(values)))
    sums, counts = (x.unflatten(1, (-1, strip)).sum(2) for x in (padded, counted))
    return sums / counts


def _raised(means: Tensor) -> Tensor:
    """At least the geometric mean of each value and of the mean of the nine around it."""
    around = F.avg_pool2d(means, 3, 1, 1, count_include_pad=False)
    return torch.maximum(means, (means * around).sqrt())


def _cells(means: Tensor, strip: int, rows: int) -> Tensor:
    """Values of strips at each of their cells: `t strips columns` -> `t rows columns`."""
    return means.repeat_interleave(strip, 1)[:, :rows]


def _largest(mean: Tensor, share: float, spent: Callable[[Tensor], float]) -> Tensor:
    """As many cells with the largest values as spend the share; of equal ones all or none."""
    levels = mean.unique()

    def saved(level: int) -> float:
        return -spent(mean >= levels[level])

    most = share + 0.5 / mean.numel()  # to the nearest cell
    least = bisect_left(range(len(levels)), -most, key=saved)
    return mean >= levels[least] if least < len(levels) else torch.zeros_like(mean).bool()


def _kept(keep: Tensor) -> float:
    return keep.float().mean().item()
