"""The mask: which cells of a clip are computed.

It follows from the need predicted from LR frames, and from what has not changed since the last one.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.need import CELL, LOST, Need, head_of
from skipsr.skipping.oracle import TAU

DEFAULT_QUALITY = 0.5
STRIP = 2  # rows of cells that are decided together: what is run stands in strips, see `regions`
_RANGE = 10.0  # what may be lost at quality 0 is so many times the usual
RAMP = (1 / 3, 2 / 3)  # of the refined picture on the last pixels beside the plain one
_LEFT = 0.25  # of what plain upsampling loses: no model restores more than the rest
_ROUNDING = 2 / 12 / 255**2  # a cell that loses less than 8-bit rounding gains nothing
_AWAY = 3  # cells: closer to a change, what stands still is needed beside what is run
_STILL = 0.6 / 255  # change of an LR pixel up to which a cell counts as unchanged: none in 8 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """The operating point of the mask: up to which error, or to which share, cells are skipped.

    Attributes:
        tau: error up to which the plain picture serves, mean squared, pixels in [0, 1].
        loss: of what a model changes, skipped cells may leave out as much as this share of the
            error that the result has in any case; 0.0116 is 0.05 dB. None: no such limit.
        threshold: a cell is needed where P(error > tau) reaches this.
        share: instead of all these, the share of all cells to compute, where the need is largest.
    """

    tau: float
    loss: float | None = None
    threshold: float = 0.5
    share: float | None = None

    @staticmethod
    def of(skip: SkipSettings, usual: "Dial", cost: "CostModel") -> "Dial":
        """The operating point for a run's settings.

        Args:
            usual: at the default quality.
            cost: what a share of the cells costs.

        Raises:
            SettingsError: for a budget or a speed that is out of reach.
        """
        if skip.budget is not None:
            return replace(usual, share=cost.cells_for(skip.budget, f"`budget` {skip.budget:g}"))
        if skip.speed is not None:
            name = f"`speed` {skip.speed:g}"
            return replace(usual, share=cost.cells_in(1 / skip.speed, name))
        threshold = usual.threshold if skip.threshold is None else skip.threshold
        if skip.tau is not None:
            return Dial(tau=skip.tau, threshold=threshold)
        quality = DEFAULT_QUALITY if skip.quality is None else skip.quality
        factor = 0.0 if quality == 1 else _RANGE ** (2 * (DEFAULT_QUALITY - quality))
        loss = None if usual.loss is None else usual.loss * factor
        return Dial(tau=usual.tau * factor, loss=loss, threshold=threshold)

    @property
    def everything(self) -> bool:
        """Whether no cell may be skipped."""
        return self.tau == 0 or self.threshold == 0 or self.share == 1

    def among(self, distinct: int, frames: int, always: float) -> "Dial":
        """The same where only so many of a clip's frames differ, and the others cost nothing.

        Args:
            always: see `CostModel`.
        """
        if self.share is None:
            return self
        spent = (always + (1 - always) * self.share) * frames / distinct
        return replace(self, share=min(1.0, (spent - always) / (1 - always)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """What computing a share of the cells costs, as shares of the dense model's.

    Attributes:
        always: multiply-adds that are spent whatever is skipped.
        fixed, slope: of the time, `fixed + slope * share`; together more than 1, since where
            everything runs no region is cut out.
    """

    always: float
    fixed: float
    slope: float

    @property
    def crossover(self) -> float:
        """The share of a frame's cells from which running all of it takes no longer."""
        return (1 - self.fixed) / self.slope

    def cells_for(self, budget: float, name: str) -> float:
        """The share of the cells whose multiply-adds come to `budget`.

        Raises:
            SettingsError: naming the lowest that can be asked for.
        """
        if budget < self.always:
            least = math.ceil(1000 * self.always) / 1000
            raise SettingsError(
                f"{name} is less than what this model always spends: give at least {least:.3f}"
            )
        return (budget - self.always) / (1 - self.always)

    def spent(self, share: float) -> float:
        """The share of the dense multiply-adds, when this share of the cells is computed."""
        return self.always + (1 - self.always) * share

    def cells_in(self, time: float, name: str) -> float:
        """The share of the cells that can be computed in this share of the dense time.

        Raises:
            SettingsError: naming the highest speed that can be asked for.
        """
        if time < self.fixed:
            most = math.floor(10 / self.fixed) / 10
            raise SettingsError(f"{name} is out of reach: give at most {most:.1f} here")
        return 1.0 if time == 1 else (time - self.fixed) / self.slope


_CHANGES = Dial(tau=1e-4, loss=0.003)  # chosen on the validation clips, as those below
_OWN = {
    "skipvsr:nano": Dial(tau=1.5e-4, loss=0.01),
    # what a result lacks in any case is much less at 2x, and is judged by what it is at 4x
    "skipvsr:nano-x2": Dial(tau=1e-5, loss=0.0001),
}


def default_dial(model: str) -> Dial:
    """The operating point of a model at the default quality.

    If the model has a head of its own, its predicted change; otherwise the paper's tau on what
    plain upsampling loses.
    """
    return Dial(tau=TAU) if head_of(model) == LOST else _OWN.get(model, _CHANGES)


def needed(
    need: Need,
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
        need: of a clip's frames, `t k rows columns`.
        head: which of its heads to go by.
        spent: of a mask, the share of all cells that it has run; by default those that it keeps.
    """
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


def still_cells(
    frames: Iterable[Tensor], sides: tuple[Fraction | int, Fraction | int] = (CELL, CELL)
) -> list[Tensor | None]:
    """For every frame the still cells, bool `rows columns`; None for none.

    A cell is compared with what it was when it last changed, so that slow changes add up; so are
    its neighbours up to three cells away, since the network sees beyond a cell.

    Args:
        frames: `3 h w` each, LR.
        sides: of a cell, down and across, LR pixels.
    """
    others = iter(frames)
    before = next(others)
    found: list[Tensor | None] = [None]
    axes = list(zip(before.shape[1:], sides, strict=True))
    down, across = (_pixels_of_cells(*axis, before.device) for axis in axes)
    rows, columns = (_cells_of_pixels(*axis, before.device) for axis in axes)
    for frame in others:
        apart = _picked((frame - before).abs().amax(0), down, across)[None]
        changed = F.max_pool2d(apart, (math.ceil(sides[0]), math.ceil(sides[1])))[0] > _STILL
        still = F.max_pool2d(changed.float()[None], 2 * _AWAY + 1, 1, _AWAY)[0] == 0
        found.append(still.cpu() if bool(still.any()) else None)
        before = torch.where(_picked(changed, rows, columns), frame, before)
    return found


def _picked(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return values.index_select(0, rows).index_select(1, columns)


def _pixels_of_cells(length: int, side: Fraction | int, device: torch.device) -> Tensor:
    """Numbers of an axis' pixels, cell after cell, `side` rounded up for each: none is left out."""
    each, cells = math.ceil(side), math.ceil(length / side)
    places = (torch.arange(cells * each, device=device) + 0.5) * float(side / each)
    return places.long().clamp_max(length - 1)


def _cells_of_pixels(length: int, side: Fraction | int, device: torch.device) -> Tensor:
    """Numbers of the cells in which an axis' pixels have their middle."""
    return ((torch.arange(length, device=device) + 0.5) / float(side)).long()


def repeats(frames: Tensor) -> Tensor:
    """For every frame the number, among the distinct ones, of the frame it repeats bit for bit.

    A frame that repeats none has a number of its own; `t` long.
    """
    if len(frames) == 1:
        return torch.zeros(1, dtype=torch.long)
    new = (frames[1:] != frames[:-1]).flatten(1).any(1)
    return F.pad(new.long().cumsum(0), (1, 0)).cpu()


def firsts(which: Tensor) -> Tensor:
    """The first frame of each number that `repeats` gave."""
    new = torch.ones_like(which, dtype=torch.bool)
    new[1:] = which[1:] != which[:-1]
    return new.nonzero()[:, 0]


def feather(
    refined: Tensor, size: tuple[int, int], side: int, ramp: Sequence[float] = RAMP
) -> Tensor:
    """Weights of the refined picture in a blend with the base, `h w` in [0, 1].

    They fall over the last pixels before a cell that shows the base, and are zero in there.

    Args:
        refined: bool `rows columns`, cells of `side` pixels.
        size: `(h, w)`; the last cells may reach beyond.
        ramp: the weights of those last pixels, from the border on.
    """
    rows, columns = feather_axes(refined, side, ramp)
    weight = torch.einsum("rcy,rcx->rycx", rows * refined[..., None], columns)
    return weight.flatten(2).flatten(0, 1)[: size[0], : size[1]]


def feather_axes(refined: Tensor, side: int, ramp: Sequence[float] = RAMP) -> tuple[Tensor, Tensor]:
    """The two factors of `feather` in refined cells, `rows columns side` each: down, across."""
    around = F.pad(refined.float()[None, None], (1, 1, 1, 1), mode="replicate")[0, 0] > 0
    rise = torch.tensor([*ramp, *[1.0] * (side - len(ramp))], dtype=torch.float32)
    rise = rise.to(refined.device, non_blocking=True)
    whole = torch.ones_like(rise)

    def axis(before: Tensor, after: Tensor) -> Tensor:
        return torch.where(before[..., None], whole, rise) * torch.where(
            after[..., None], whole, rise.flip(0)
        )

    return (
        axis(around[:-2, 1:-1], around[2:, 1:-1]),
        axis(around[1:-1, :-2], around[1:-1, 2:]),
    )


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
