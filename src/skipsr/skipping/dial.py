"""How much to compute, as a run's settings say, and what a share of the cells costs."""

import math
from dataclasses import dataclass, replace

from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.need import LOST, head_of
from skipsr.skipping.oracle import TAU

DEFAULT_QUALITY = 0.5
_SMALL = 8000  # places of a frame; of smaller ones no time was measured
_RANGE = 10.0  # what may be lost at quality 0 is so many times the usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """The operating point of the mask: up to which error, or to which share, cells are skipped.

    Attributes:
        tau: error up to which the plain picture serves, mean squared, pixels in [0, 1].
        loss: of what a model changes, skipped cells may leave out as much as this share of the
            error that the result has in any case; 0.0116 is 0.05 dB. None: no such limit.
        threshold: a cell is needed where P(error > tau) reaches this.
        share: instead of all these, the share of all cells to compute, where the need is largest.
        speed: what that share was asked for by, if it was.
    """

    tau: float
    loss: float | None = None
    threshold: float = 0.5
    share: float | None = None
    speed: float | None = None

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
            return replace(usual, share=cost.cells_for_budget(skip.budget))
        if skip.speed is not None:
            return replace(usual, share=cost.cells_for_speed(skip.speed), speed=skip.speed)
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

    def among(self, distinct: int, frames: int, cost: "CostModel") -> "Dial":
        """The dial for the `distinct` ones of a clip's frames; those that repeat cost nothing.

        The distinct ones may then spend what the repeated ones save.

        Args:
            cost: of these frames, see `CostModel.of_frames`.
        """
        if self.share is None or self.share == 1:
            return self
        share = self.share if self.speed is None else cost.cells_in(1 / self.speed)
        spent = cost.spent(share) * frames / distinct
        return replace(self, share=min(1.0, cost.cells(spent)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """What computing a share of the cells costs, as shares of the dense model's.

    Attributes:
        always: multiply-adds that are spent whatever is skipped.
        fixed, slope: of the time, `fixed + slope * share`; together more than 1, since where
            everything runs no region is cut out.
        overhead: places of a frame whose computing takes as long as what comes with every frame,
            however small.
    """

    always: float
    fixed: float
    slope: float
    overhead: float = 0.0

    def of_frames(self, places: int) -> "CostModel":
        """The same of frames of so many places, for which alone it holds."""
        fixed = self.fixed + self.overhead / max(places, _SMALL)
        return replace(self, fixed=fixed, overhead=0.0)

    @property
    def crossover(self) -> float:
        """The share of a frame's cells from which running all of it takes no longer."""
        return self.cells_in(1.0)

    def cells_in(self, time: float) -> float:
        """The share of the cells that are computed in this share of the time; 0 for too little."""
        return max(0.0, (time - self.fixed) / self.slope)

    def spent(self, share: float) -> float:
        """The share of the dense multiply-adds, when this share of the cells is computed."""
        return self.always + (1 - self.always) * share

    def cells(self, spent: float) -> float:
        """The share of the cells that spends this share of the multiply-adds."""
        return (spent - self.always) / (1 - self.always)

    def cells_for_budget(self, budget: float) -> float:
        """The share of the cells to compute for the setting `budget`.

        Raises:
            SettingsError: naming the lowest that can be asked for.
        """
        if budget < self.always:
            least = math.ceil(1000 * self.always) / 1000
            raise SettingsError(
                f"`budget` {budget:g} is less than what this model always spends: give at least "
                f"{least:.3f}"
            )
        return self.cells(budget)

    def cells_for_speed(self, speed: float) -> float:
        """The share of the cells to compute for the setting `speed`.

        Raises:
            SettingsError: naming the highest that can be asked for.
        """
        time = 1 / speed
        if time < self.fixed:
            most = math.floor(10 / self.fixed) / 10
            raise SettingsError(f"`speed` {speed:g} is out of reach: give at most {most:.1f} here")
        return 1.0 if time == 1 else self.cells_in(time)


_OWN = {  # chosen on the validation clips
    "skipvsr:nano": Dial(tau=1.5e-4, loss=0.005),
    "seedvr2:nano": Dial(tau=1e-4, loss=0.006),
    # what a result lacks in any case is much less at 2x, and is judged by what it is at 4x
    "skipvsr:nano-x2": Dial(tau=2e-5, loss=4e-4),
}


def default_dial(model: str) -> Dial:
    """The operating point of a model at the default quality.

    If the model has a head of its own, its predicted change; otherwise the paper's tau on what
    plain upsampling loses.
    """
    return Dial(tau=TAU) if head_of(model) == LOST else _OWN[model]
