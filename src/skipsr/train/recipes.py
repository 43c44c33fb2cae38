"""Named training runs: what to train and how. A variant is made from another one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from skipsr.backbones.trainable import PartName
from skipsr.data.degrade import Degradation, Shrinking
from skipsr.data.footage import Footage
from skipsr.train.masks import MaskShares
from skipsr.train.objective import Objective
from skipsr.train.objectives.adversarial import AdversarialObjective
from skipsr.train.objectives.autoencoder import AutoencoderObjective
from skipsr.train.objectives.blockskip import BlockSkipObjective
from skipsr.train.objectives.detail import DetailObjective
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
    """The part that is written alone, to be put beside the files it was trained with; None: all."""

    def tiny(self) -> "Stage":
        """The same in seconds: the family's smallest model, crops and batch."""
        family = self.settings.model.partition(":")[0]
        settings = replace(
            self.settings, model=f"{family}:tiny", steps=2, batch=2, crop=64, warmup=1,
            frames=min(5, self.settings.frames), latents=4, samples=min(4, self.settings.samples),
            sequence=1, checkpoint_every=1, log_every=1, bfloat16=False,
        )  # fmt: skip
        return replace(self, settings=settings)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run: its stages, each of which goes on from the one before."""

    stages: tuple[Stage, ...]
    start: str | None = None
    """What weights it goes on from, in words; None: it can begin from nothing."""


def _one(
    name: str,
    objective: Objective[Any],
    settings: TrainSettings,
    exports: PartName | None = None,
    *,
    start: str | None = None,
) -> Recipe:
    stage = Stage(name=name, objective=objective, settings=settings, exports=exports)
    return Recipe((stage,), start)


def _halvings(settings: TrainSettings, *objectives: DistillObjective, start: str) -> Recipe:
    stages = (
        Stage(name=f"distill-{o.steps}-{o.steps // 2}", objective=o, settings=settings)
        for o in objectives
    )
    return Recipe(tuple(stages), start)


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
    bfloat16=True,
)
_NANO_TEACHER = replace(
    _NANO, steps=1500, batch=4, crop=128, learning_rate=1e-3, clip_norm=1.0, latents=1024
)
_NANO_ONESTEP = replace(_NANO, steps=2500, crop=128, learning_rate=6e-4, clip_norm=0.3, ema=0.997)
_NANO_PREDICTOR = replace(
    _NANO_TEACHER,
    steps=1600,
    crop=192,
    bfloat16=False,  # bfloat16 gave NaN on processors: a convolution with one output channel
    latents=768,
)

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
    bfloat16=True,
    sequence=4,
    recompute=True,
    checkpoint_every=500,
)
_LARGE_SLOW = replace(_LARGE, learning_rate=1e-6)
_LARGE_PREDICTOR = replace(
    _LARGE, batch=8, frames=17, learning_rate=1e-4, ema=0.999, bfloat16=False, sequence=1
)
_ALL_MASKS = MaskShares(oracle=0.25, predictor=0.25, blobs=0.25)
_CONDITION_NOISE = 0.25  # the most of it: models are run with 0 (SeedVR2) and 0.1 (SeedVR)
_FROM_64 = DistillObjective(
    steps=64, guidance=7.5, masks=_ALL_MASKS, condition_noise=_CONDITION_NOISE
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
    bfloat16=True,
)
_RECURRENT_NANO_WHOLE = replace(
    _RECURRENT_NANO, steps=4600, batch=3, frames=6, learning_rate=8e-4, warmup=100,
    clip_norm=0.1, ema=0.999,
)  # fmt: skip

# On footage as people have it: made once, since codecs take longer than steps on a GPU.
_FOOTAGE = replace(
    _RECURRENT_NANO_WHOLE,
    batch=32,
    frames=8,
    learning_rate=5e-4,
    clip_norm=0.1,
    degradation=Footage(),
    samples=8192,
    checkpoint_every=500,
    log_every=50,
)
_FOOTAGE_FLOW = replace(_FOOTAGE, steps=2000, batch=16, learning_rate=2e-3, clip_norm=1.0, ema=0.99)
_LONGER = replace(_FOOTAGE, batch=16)
_FAITHFUL = ReconstructObjective(structure=0.05)


def _from_nothing(model: str, steps: int, batch: int) -> Recipe:
    """Flow, then the network around it."""
    flow = replace(_FOOTAGE_FLOW, model=model)
    whole = replace(_FOOTAGE, model=model, steps=steps, batch=batch, learning_rate=8e-4)
    return Recipe(
        (
            Stage(name="flow", objective=FlowObjective(), settings=flow),
            Stage(name="backbone", objective=_FAITHFUL, settings=whole),
        )
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


def _recurrent(kind: Shrinking) -> Recipe:
    """As published, but flow learns from the start, and the rate ends at a hundredth."""
    settings = replace(_RECURRENT, degradation=Degradation(clean=1.0, kind=kind))
    return _one("backbone", ReconstructObjective(flow_rate=0.125), settings)


def _recurrent_routing(kind: Shrinking) -> Recipe:
    """The flow network is frozen. Losses, batch and crop are the paper's; the rest is ours."""
    settings = replace(
        _RECURRENT, degradation=Degradation(clean=1.0, kind=kind), steps=100_000, batch=16,
        crop=192, learning_rate=1e-4,
    )  # fmt: skip
    return _one("routing", BlockSkipObjective(), settings, start="BasicVSR's weights")


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        # from nothing
        "nano-autoencoder": _one("autoencoder", AutoencoderObjective(), _NANO),
        # many steps
        "nano-teacher": _one(
            "teacher", VelocityObjective(), _NANO_TEACHER, start="nano-autoencoder"
        ),
        # from eight steps to one, fewer than the published 64: a small model is sampled in eight
        "nano-distill": _halvings(
            replace(_NANO_TEACHER, steps=250, learning_rate=4e-4),
            *(DistillObjective(steps=steps) for steps in (8, 4, 2)),
            start="nano-teacher",
        ),
        # one step, with its decoder
        "nano-onestep": _one("onestep", OneStepObjective(), _NANO_ONESTEP, start="nano-distill"),
        # for any tau
        "nano-predictor": _one(
            "predictor", PredictorObjective(usual=0.3), _NANO_PREDICTOR, start="nano-onestep"
        ),
        # with skipping, many steps. A tenth of the clips has the negative text: Stable Diffusion
        # 3's share of dropped texts
        "3b-finetune": _one(
            "finetune",
            VelocityObjective(
                masks=_ALL_MASKS, shifted=True, condition_noise=_CONDITION_NOISE, dropped=0.1
            ),
            _LARGE,
            start="SeedVR-3B and its predictor",
        ),
        # with skipping from 64 steps to one
        "3b-distill": _halvings(
            _LARGE_SLOW,
            _FROM_64,
            *(replace(_FROM_64, steps=steps, guidance=1.0) for steps in (32, 16, 8, 4, 2)),
            start="3b-finetune",
        ),
        # with skipping in one step against a discriminator
        "3b-adversarial": _one(
            "adversarial",
            AdversarialObjective(masks=_ALL_MASKS, condition_noise=_CONDITION_NOISE),
            _LARGE_SLOW,
            start="3b-distill",
        ),
        # the paper's mask predictor for 3B and 7B, a file to be put beside theirs
        "3b-predictor": _one(
            "predictor", PredictorObjective(), _LARGE_PREDICTOR, "predictor", start="SeedVR2-3B"
        ),
        # from nothing
        "skipvsr-nano-flow": _one("flow", FlowObjective(), _RECURRENT_NANO),
        # with every block run
        "skipvsr-nano-backbone": _one(
            "backbone", ReconstructObjective(), _RECURRENT_NANO_WHOLE, start="skipvsr-nano-flow"
        ),
        # with skipping; to be calibrated then. Features differ by hundredths; the gain spreads the
        # targets, the rate lets routers follow
        "skipvsr-nano-routing": _one(
            "routing",
            BlockSkipObjective(gain=40.0, error=300.0, tile=32, router_rate=100.0),
            replace(_RECURRENT_NANO_WHOLE, steps=1000, learning_rate=2e-4, warmup=30, ema=0.998),
            start="skipvsr-nano-backbone",
        ),
        # run for a part of the picture. On one H100 in five minutes; in bfloat16
        "skipvsr-nano-regions": _one(
            "regions",
            RegionObjective(),
            replace(
                _RECURRENT_NANO_WHOLE,
                steps=3000,
                batch=32,
                frames=8,
                learning_rate=5e-4,
                warmup=50,
                degradation=Degradation(clean=0.8, strength=0.4, video=0.0),
            ),
            start="skipvsr-nano-backbone",
        ),
        # on damaged footage
        "skipvsr-nano-footage": Recipe(
            (
                Stage(name="footage", objective=_FAITHFUL, settings=replace(_FOOTAGE, steps=1628)),
                Stage(name="longer", objective=_FAITHFUL, settings=replace(_LONGER, steps=3058)),
            ),
            start="skipvsr-nano-regions",
        ),
        # crisp instead of faithful
        "skipvsr-nano-detail": _one(
            "detail",
            DetailObjective(),
            replace(_FOOTAGE, steps=277, learning_rate=1e-4, ema=0.995),
            start="skipvsr-nano-footage",
        ),
        # twice the size, from nothing
        "skipvsr-nano-x2": _from_nothing("skipvsr:nano-x2", 1761, 64),
        # larger
        "skipvsr-small": _one(
            "grown",
            _FAITHFUL,
            replace(_LONGER, model="skipvsr:small", steps=1778),
            start="what scripts/grow.py makes of skipvsr-nano-footage",
        ),
        # BasicVSR as published, on footage shrunk as the BI and the BD benchmarks are
        "basicvsr-x4": _recurrent("matlab"),
        "basicvsr-x4-bd": _recurrent("bd"),
        # SkipVSR on it; to be calibrated then
        "skipvsr-x4-routing": _recurrent_routing("matlab"),
        "skipvsr-x4-routing-bd": _recurrent_routing("bd"),
    }
)
