"""Named training runs: functions that return what to train and how. A variant is made from another
one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from skipsr.backbones.trainable import PartName
from skipsr.data.degrade import Degradation, Shrinking
from skipsr.train.masks import MaskShares
from skipsr.train.objective import Objective
from skipsr.train.objectives.adversarial import AdversarialObjective
from skipsr.train.objectives.autoencoder import AutoencoderObjective
from skipsr.train.objectives.blockskip import BlockSkipObjective
from skipsr.train.objectives.distill import DistillObjective
from skipsr.train.objectives.finetune import OneStepObjective, VelocityObjective
from skipsr.train.objectives.flow import FlowObjective
from skipsr.train.objectives.predictor import PredictorObjective
from skipsr.train.objectives.reconstruct import ReconstructObjective
from skipsr.train.objectives.regions import RegionObjective
from skipsr.train.settings import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """An objective, trained for a while."""

    name: str  # of its folder
    objective: Objective[Any]
    settings: TrainSettings
    exports: PartName | None = None
    """The part that is written alone, to be put beside the files it was trained with; None: the
    whole model."""

    def tiny(self) -> "Stage":
        """The same in seconds: the family's smallest model, crops and batch."""
        family = self.settings.model.partition(":")[0]
        settings = replace(
            self.settings, model=f"{family}:tiny", steps=2, batch=2, crop=64, warmup=1,
            frames=min(5, self.settings.frames), latents=4, sequence=1, checkpoint_every=1,
            log_every=1, half=False,
        )  # fmt: skip
        return replace(self, settings=settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A run: its stages, each of which goes on from the one before."""

    about: str
    stages: tuple[Stage, ...]

    def tiny(self) -> "Recipe":
        return replace(self, stages=tuple(stage.tiny() for stage in self.stages))


_NANO = TrainSettings(
    model="seedvr2:nano",
    steps=3800,
    batch=2,
    crop=96,
    frames=5,
    degradation=Degradation(clean=0.6, strength=0.5),
    learning_rate=8e-4,
    clip_norm=0.2,  # without norms, now and then a batch would throw the autoencoder far off
    ema=0.998,
    half=True,
)
_ALL_MASKS = MaskShares(oracle=0.25, predictor=0.25, blobs=0.25)


def nano_autoencoder() -> Recipe:
    stage = Stage(name="autoencoder", objective=AutoencoderObjective(), settings=_NANO)
    return Recipe(about="the autoencoder of nano, from nothing", stages=(stage,))


def nano_teacher() -> Recipe:
    settings = replace(
        _NANO, steps=1500, batch=4, crop=128, learning_rate=1e-3, clip_norm=1.0, latents=1024
    )
    stage = Stage(name="teacher", objective=VelocityObjective(), settings=settings)
    return Recipe(about="nano in many steps; start from nano-autoencoder", stages=(stage,))


def nano_distill() -> Recipe:
    """From eight steps to one. Fewer than the published 64: a small model is sampled in eight."""
    settings = replace(nano_teacher().stages[0].settings, steps=250, learning_rate=4e-4)
    return Recipe(
        about="nano from eight steps to one; start from nano-teacher",
        stages=tuple(_halving(DistillObjective(steps=steps), settings) for steps in (8, 4, 2)),
    )


def nano_onestep() -> Recipe:
    settings = replace(_NANO, steps=2500, crop=128, learning_rate=6e-4, clip_norm=0.3, ema=0.997)
    stage = Stage(name="onestep", objective=OneStepObjective(), settings=settings)
    return Recipe(
        about="nano in one step, with its decoder; start from nano-distill", stages=(stage,)
    )


def nano_adversarial() -> Recipe:
    settings = replace(
        nano_onestep().stages[0].settings, steps=200, learning_rate=1e-4, warmup=20, ema=0.99
    )
    objective = AdversarialObjective(
        depths=(0.5, 1.0), latent=0.03, matching=0.1, pairing=0.02, pixels=1.0
    )
    return Recipe(
        about="nano in one step against a discriminator; start from nano-onestep",
        stages=(Stage(name="adversarial", objective=objective, settings=settings),),
    )


def nano_predictor() -> Recipe:
    settings = replace(
        nano_teacher().stages[0].settings,
        steps=1600,
        crop=192,
        half=False,  # bfloat16 gave NaN on processors: a convolution with one output channel
        latents=768,
    )
    stage = Stage(name="predictor", objective=PredictorObjective(usual=0.3), settings=settings)
    return Recipe(about="the mask predictor of nano, for any tau", stages=(stage,))


# The published models, as SkipSR trained them (section 5 of its paper): about 100 frames of 720p
# for each group of devices. SeedVR's own configuration has times shifted, a noise of 0.25 on the
# condition and 0.9998 as the decay of the average.
_LARGE = TrainSettings(
    model="seedvr2:3b",
    steps=10_000,
    batch=10,
    crop=720,
    frames=97,
    degradation=Degradation(clean=0.0),
    learning_rate=1e-5,
    warmup=500,
    ema=0.9998,
    half=True,
    sequence=4,
    recompute=True,
    checkpoint_every=500,
)
_CONDITION_NOISE = 0.25  # the most of it: models are run with 0 (SeedVR2) and 0.1 (SeedVR)


def large_finetune() -> Recipe:
    """A tenth of the clips has the negative text: Stable Diffusion 3's share of dropped texts."""
    objective = VelocityObjective(
        masks=_ALL_MASKS, shifted=True, condition_noise=_CONDITION_NOISE, dropped=0.1
    )
    stage = Stage(name="finetune", objective=objective, settings=_LARGE)
    return Recipe(
        about="3B with skipping, many steps; start from SeedVR-3B and its predictor",
        stages=(stage,),
    )


def large_distill() -> Recipe:
    settings = replace(_LARGE, learning_rate=1e-6)
    first = DistillObjective(
        steps=64, guidance=7.5, masks=_ALL_MASKS, condition_noise=_CONDITION_NOISE
    )
    later = (replace(first, steps=steps, guidance=1.0) for steps in (32, 16, 8, 4, 2))
    return Recipe(
        about="3B with skipping from 64 steps to one; start from 3b-finetune",
        stages=tuple(_halving(objective, settings) for objective in (first, *later)),
    )


def large_adversarial() -> Recipe:
    stage = Stage(
        name="adversarial",
        objective=AdversarialObjective(masks=_ALL_MASKS, condition_noise=_CONDITION_NOISE),
        settings=replace(_LARGE, learning_rate=1e-6),
    )
    return Recipe(
        about="3B with skipping in one step against a discriminator; start from 3b-distill",
        stages=(stage,),
    )


def large_predictor() -> Recipe:
    settings = replace(
        _LARGE, batch=8, frames=17, learning_rate=1e-4, ema=0.999, half=False, sequence=1
    )
    stage = Stage(
        name="predictor", objective=PredictorObjective(), settings=settings, exports="predictor"
    )
    return Recipe(
        about="the paper's mask predictor for 3B and 7B, a file to be put beside theirs",
        stages=(stage,),
    )


# SkipVSR's bundled model: flow from nothing, then the network around it, then its routers.
_RECURRENT_NANO = TrainSettings(
    model="skipvsr:nano",
    steps=1400,
    batch=8,
    crop=256,
    frames=2,
    degradation=Degradation(clean=0.8, strength=0.4),
    learning_rate=2e-3,
    weight_decay=0.0,
    ema=0.99,
    half=True,
)


def recurrent_nano_flow() -> Recipe:
    stage = Stage(name="flow", objective=FlowObjective(), settings=_RECURRENT_NANO)
    return Recipe(about="the flow network of skipvsr:nano, from nothing", stages=(stage,))


def recurrent_nano_backbone() -> Recipe:
    settings = replace(
        _RECURRENT_NANO, steps=4600, batch=3, frames=6, learning_rate=8e-4, warmup=100,
        clip_norm=0.1, ema=0.999,
    )  # fmt: skip
    stage = Stage(name="backbone", objective=ReconstructObjective(), settings=settings)
    return Recipe(
        about="skipvsr:nano with every block run; start from skipvsr-nano-flow", stages=(stage,)
    )


def recurrent_nano_routing() -> Recipe:
    settings = replace(
        recurrent_nano_backbone().stages[0].settings, steps=1000, learning_rate=2e-4, warmup=30,
        ema=0.998,
    )  # fmt: skip
    # features differ by hundredths; the gain spreads the targets, the rate lets routers follow
    objective = BlockSkipObjective(gain=40.0, error=300.0, tile=32, router_rate=100.0)
    stage = Stage(name="routing", objective=objective, settings=settings)
    return Recipe(
        about="skipvsr:nano with skipping; start from skipvsr-nano-backbone, then calibrate",
        stages=(stage,),
    )


def recurrent_nano_regions() -> Recipe:
    """On one H100 in five minutes; in bfloat16."""
    settings = replace(
        recurrent_nano_backbone().stages[0].settings, steps=3000, batch=32, frames=8,
        learning_rate=5e-4, warmup=50, degradation=Degradation(clean=0.8, strength=0.4, video=0.0),
    )  # fmt: skip
    stage = Stage(name="regions", objective=RegionObjective(), settings=settings)
    return Recipe(
        about="skipvsr:nano run for a part of the picture; start from skipvsr-nano-backbone",
        stages=(stage,),
    )


# The published models, as the papers of BasicVSR and SkipVSR tell.
_RECURRENT = TrainSettings(
    model="basicvsr:x4",
    steps=300_000,
    batch=8,
    crop=256,
    frames=15,
    learning_rate=2e-4,
    warmup=0,
    weight_decay=0.0,
    clip_norm=math.inf,
    checkpoint_every=5000,
    log_every=100,
)


def recurrent(kind: Shrinking) -> Recipe:
    """BasicVSR. Other than published, the flow network learns from the first step on, and the rate
    ends at a hundredth of its height."""
    settings = replace(_RECURRENT, degradation=Degradation(clean=1.0, kind=kind))
    stage = Stage(
        name="backbone", objective=ReconstructObjective(flow_rate=0.125), settings=settings
    )
    return Recipe(about=f"BasicVSR as published, on {kind} footage", stages=(stage,))


def recurrent_routing(kind: Shrinking) -> Recipe:
    """SkipVSR on BasicVSR, with its flow network frozen. The paper tells losses, batch and
    crop; steps and rates are ours."""
    settings = replace(
        recurrent(kind).stages[0].settings, steps=100_000, batch=16, crop=192, learning_rate=1e-4
    )
    stage = Stage(name="routing", objective=BlockSkipObjective(), settings=settings)
    return Recipe(
        about=f"SkipVSR on {kind} footage; start from BasicVSR's weights, then calibrate",
        stages=(stage,),
    )


def _halving(objective: DistillObjective, settings: TrainSettings) -> Stage:
    name = f"distill-{objective.steps}-{objective.steps // 2}"
    return Stage(name=name, objective=objective, settings=settings)


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "nano-autoencoder": nano_autoencoder,
        "nano-teacher": nano_teacher,
        "nano-distill": nano_distill,
        "nano-onestep": nano_onestep,
        "nano-adversarial": nano_adversarial,
        "nano-predictor": nano_predictor,
        "3b-finetune": large_finetune,
        "3b-distill": large_distill,
        "3b-adversarial": large_adversarial,
        "3b-predictor": large_predictor,
        "skipvsr-nano-flow": recurrent_nano_flow,
        "skipvsr-nano-backbone": recurrent_nano_backbone,
        "skipvsr-nano-routing": recurrent_nano_routing,
        "skipvsr-nano-regions": recurrent_nano_regions,
        "basicvsr-x4": lambda: recurrent("matlab"),
        "basicvsr-x4-bd": lambda: recurrent("bd"),
        "skipvsr-x4-routing": lambda: recurrent_routing("matlab"),
        "skipvsr-x4-routing-bd": lambda: recurrent_routing("bd"),
    }
)
