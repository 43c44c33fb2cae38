"""Named training runs: functions that return what to train and how. A variant is made from another
one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from skipsr.train.objective import Objective
from skipsr.train.objectives.autoencoder import AutoencoderObjective
from skipsr.train.objectives.finetune import OneStepObjective, VelocityObjective
from skipsr.train.objectives.predictor import PredictorObjective
from skipsr.train.settings import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A run: its objective and settings."""

    about: str
    objective: Objective
    settings: TrainSettings

    def tiny(self) -> "Recipe":
        """The same run in seconds: the smallest model, crops and batch."""
        settings = replace(
            self.settings, model="seedvr2:tiny", steps=2, batch=2, crop=64, frames=5, warmup=1,
            checkpoint_every=1, log_every=1, half=False,
        )  # fmt: skip
        return replace(self, settings=settings)


def nano_autoencoder() -> Recipe:
    return Recipe(
        about="the autoencoder of nano, from nothing",
        objective=AutoencoderObjective(),
        settings=TrainSettings(
            model="seedvr2:nano",
            steps=700,
            batch=2,
            crop=96,
            frames=5,
            learning_rate=1.5e-3,
            ema=0.995,
            half=True,
        ),
    )


def nano_finetune() -> Recipe:
    return Recipe(
        about="the transformer of nano: velocity on the kept tokens; start from nano-autoencoder",
        objective=VelocityObjective(),
        settings=replace(
            nano_autoencoder().settings, steps=200, batch=4, crop=128, learning_rate=1e-3
        ),
    )


def nano_onestep() -> Recipe:
    return Recipe(
        about="nano in one step, with its decoder; start from nano-finetune",
        objective=OneStepObjective(),
        settings=replace(nano_finetune().settings, steps=850, batch=2),
    )


def nano_predictor() -> Recipe:
    return Recipe(
        about="the mask predictor of nano; start from nano-onestep",
        objective=PredictorObjective(),
        settings=replace(nano_finetune().settings, steps=300, crop=192, half=False),
    )


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "nano-autoencoder": nano_autoencoder,
        "nano-finetune": nano_finetune,
        "nano-onestep": nano_onestep,
        "nano-predictor": nano_predictor,
    }
)
