"""The masks of every frame of a clip, from the need of its cells, before the network runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.basicvsr.network import Direction
from skipsr.skipping.decide import STRIP, needed
from skipsr.skipping.dial import Dial
from skipsr.skipping.need import CELL, Decider, Need, NeedPredictor, ask
from skipsr.skipping.regions import Regions, to_run
from skipsr.skipping.reuse import refined_cells, still_cells, without_still
from skipsr.skipping.route import over_pixels

_GAP = 1  # a skipped cell between two runs costs hardly more than their gutters
_PROBED = 8  # of so many frames one tells whether it is worth asking the others


@dataclass(frozen=True)
class FrameMasks:
    """The masks of a frame: which cells are run, and which are shown as the frame before.

    Attributes:
        regions: the cells that are run forward and refined.
        backward: the cells that are run backward in time; None: the same. The first frame of a
            still run is refined, but information from later frames enters through its last one.
        still: bool `rows columns`, cells that show what they showed one frame before unless they
            are run; None where there are none.
        refined: bool `rows columns`, cells that show no plain picture; towards the others what is
            run fades out. None: nothing fades.
    """

    regions: Regions
    still: Tensor | None = None
    refined: Tensor | None = None
    backward: Regions | None = None

    @cached_property
    def asked(self) -> Tensor:
        """Bool `rows columns`, cells whose base is asked for: those that show it and may not be
        shown as before, and those beside plain ones, towards which what is run fades out."""
        run = self.regions.keep
        anew = ~run if self.still is None else ~(run | self.still)
        plain = ~run if self.refined is None else ~self.refined
        return anew | (run & _with_neighbours(plain))

    def asked_places(self, size: tuple[int, int]) -> Tensor:
        """The places of those cells, `k` on the CPU, in a frame of `(height, width)` places."""
        return over_pixels(self.asked, CELL, size).flatten().nonzero()[:, 0]

    def band(self, height: int, *, beyond: bool = False) -> slice:
        """Rows of places, of so many, in which the base is asked for, or what lies `beyond` what is
        run; where all may change, all of them."""
        if self.still is None:
            return slice(0, height)
        wanted = self.asked
        if beyond:
            run = self.regions.keep | self.regions_in("backward").keep
            wanted = wanted | _with_neighbours(run)
        rows = wanted.any(1).nonzero()[:, 0]
        if not len(rows):
            return slice(0, 0)
        return slice(CELL * int(rows[0]), min(CELL * (int(rows[-1]) + 1), height))

    def regions_in(self, direction: Direction) -> Regions:
        """The cells that are run in a direction."""
        return self.regions if self.backward is None or direction == "forward" else self.backward


def _with_neighbours(mask: Tensor) -> Tensor:
    """A mask `rows columns` and the cells around its own."""
    return F.max_pool2d(mask.float()[None], 3, 1, 1)[0] > 0


def choose_masks(
    predictor: Decider,
    head: int,
    frames: Tensor,
    dial: Dial,
    crossover: float,
    *,
    reuse: bool,
    fold: int = 1,
) -> list[FrameMasks]:
    """The masks of each of the frames `t 3 h w` of a clip; those that repeat were left out.

    Cells have `CELL` folded pixels a side, 16 of the result; their need is that of the frames at
    the size from which a picture is enlarged by four.

    Args:
        crossover: kept share from which the whole frame is run.
    """
    cell = CELL * fold
    rows, columns = (-(-side // cell) for side in frames.shape[2:])
    still = still_cells(frames, (cell, cell)) if reuse else [None] * len(frames)
    if dial.everything:
        keep = torch.ones(len(frames), rows, columns, dtype=torch.bool)
    else:
        low = frames if fold == 1 else F.avg_pool2d(frames, fold)
        keep = _needed(predictor, head, low, dial, still, crossover)
    shown = _shown(keep, still)
    forward = _regions(shown, still, crossover)
    moving = all(unchanged is None for unchanged in still)
    backward = forward if moving else _regions(shown, [*still[1:], None], crossover)
    refined = refined_cells((regions.keep for regions in forward), still)
    masks: list[FrameMasks] = []
    for regions, behind, unchanged, cells in zip(forward, backward, still, refined, strict=True):
        same = torch.equal(regions.keep, behind.keep)
        masks.append(FrameMasks(regions, unchanged, cells, None if same else behind))
    return masks


def _needed(
    predictor: Decider,
    head: int,
    frames: Tensor,
    dial: Dial,
    still: Sequence[Tensor | None],
    crossover: float,
) -> Tensor:
    """Cells that need the network; all of them where some frames say that nearly all do.

    So deciding costs next to nothing where nothing can be skipped.
    """
    own = not isinstance(predictor, NeedPredictor)  # which may look at more than a frame
    if own or dial.share is not None or len(frames) <= _PROBED:
        return needed(ask(predictor, frames), head, dial, spent=_spent(still, crossover))
    some = predictor(frames[::_PROBED])
    if bool(to_run(needed(some, head, dial), STRIP, _GAP, crossover).all()):
        return torch.ones(len(frames), *some.mean.shape[2:], dtype=torch.bool)
    probed = torch.arange(len(frames)) % _PROBED == 0
    return needed(_merged(some, predictor(frames[~probed]), probed), head, dial)


def _spent(still: Sequence[Tensor | None], crossover: float) -> Callable[[Tensor], float]:
    """Of a mask `t rows columns` the share of all cells that is run."""

    def spent(keep: Tensor) -> float:
        run = to_run(torch.stack(without_still(keep, still)), STRIP, _GAP, crossover)
        return run.float().mean((1, 2)).mean().item()

    return spent


def _merged(some: Need, others: Need, where: Tensor) -> Need:
    """One need of the frames of two; `where`, bool `b`, is True for those of the first."""

    def merge(a: Tensor, b: Tensor) -> Tensor:
        both = a.new_empty(len(where), *a.shape[1:])
        both[where], both[~where] = a, b
        return both

    return Need(merge(some.mean, others.mean), merge(some.spread, others.spread))


def _shown(keep: Tensor, still: Sequence[Tensor | None]) -> list[Tensor]:
    """Cells that show what was needed in the first frame since which they stand still."""
    shown: list[Tensor] = []
    for mask, unchanged in zip(keep, still, strict=True):
        shown.append(mask if unchanged is None else torch.where(unchanged, shown[-1], mask))
    return shown


def _regions(
    shown: Sequence[Tensor], still: Sequence[Tensor | None], crossover: float
) -> list[Regions]:
    """The cells of every frame that are run: refined ones, but those still since a neighbour.

    Args:
        shown: of every frame, see `_shown`.
        still: of every frame what stands still since the one that is run before it.
    """
    found: list[Regions] = []
    for wanted in without_still(shown, still):
        regions = Regions.of(wanted, STRIP, _GAP, crossover)
        if found and torch.equal(found[-1].keep, regions.keep):
            regions = found[-1]  # its plans are made already
        found.append(regions)
    return found
