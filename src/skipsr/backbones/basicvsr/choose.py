"""What becomes of every frame of a clip before the network runs: from the need of its cells."""

import torch
from torch import Tensor

from skipsr.backbones.basicvsr.regional import Choice
from skipsr.skipping.decide import STRIP, Dial, needed, still_cells
from skipsr.skipping.need import CELL, NeedPredictor
from skipsr.skipping.regions import Regions

_CROSSOVER = 0.85  # kept share from which the whole frame is cheaper, or nearly so


def choose(
    predictor: NeedPredictor, head: int, frames: Tensor, dial: Dial, *, reuse: bool
) -> list[Choice]:
    """One choice for each of the frames `t 3 h w` of a clip; those that repeat were left out."""
    rows, columns = (-(-side // CELL) for side in frames.shape[2:])
    if dial.everything:
        keep = torch.ones(len(frames), rows, columns, dtype=torch.bool)
    else:
        keep = needed(predictor(frames), head, dial)
    still = still_cells(frames) if reuse else [None] * len(frames)
    choices: list[Choice] = []
    refined = torch.zeros(rows, columns, dtype=torch.bool)  # cells that show no plain picture
    before: Regions | None = None
    for mask, unchanged in zip(keep, still, strict=True):
        wanted = mask if unchanged is None else mask & ~unchanged
        regions = Regions.of(wanted, STRIP, crossover=_CROSSOVER)
        if before is not None and torch.equal(before.keep, regions.keep):
            regions = before  # its plans are made already
        if unchanged is None or regions.whole:
            refined = regions.keep
        else:
            refined = regions.keep | (refined & unchanged)
        choices.append(Choice(regions, None if regions.whole else unchanged, refined))
        before = regions
    return choices
