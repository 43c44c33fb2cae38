"""What need not be computed again: cells that stand still, and frames that repeat another."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.skipping.need import CELL

_AWAY = 3  # cells: closer to a change, what stands still is needed beside what is run
_LINES = 8  # one line of so many tells nearly all frames apart
_STILL = 0.6 / 255  # change of an LR pixel up to which a cell counts as unchanged: none in 8 bits


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


def without_still(masks: Iterable[Tensor], still: Sequence[Tensor | None]) -> list[Tensor]:
    """Masks of frames, bool `rows columns`, without the cells that stand still."""
    return [
        mask if unchanged is None else mask & ~unchanged
        for mask, unchanged in zip(masks, still, strict=True)
    ]


def refined_cells(run: Iterable[Tensor], still: Sequence[Tensor | None]) -> list[Tensor]:
    """For every frame the cells that show no plain picture, bool `rows columns`.

    They are run, or have stood still since they were.
    """
    found: list[Tensor] = []
    for mask, unchanged in zip(run, still, strict=True):
        carried = None if unchanged is None or not found else found[-1] & unchanged
        found.append(mask if carried is None else mask | carried)
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
    some = frames[:, :, ::_LINES]
    new = (some[1:] != some[:-1]).flatten(1).any(1).cpu()
    for i in (~new).nonzero()[:, 0].tolist():
        new[i] = not torch.equal(frames[i + 1], frames[i])
    return F.pad(new.long().cumsum(0), (1, 0))


def firsts(which: Tensor) -> Tensor:
    """The first frame of each number that `repeats` gave."""
    new = torch.ones_like(which, dtype=torch.bool)
    new[1:] = which[1:] != which[:-1]
    return new.nonzero()[:, 0]
