"""Plans against counts made by hand; and devices that cannot share a clip."""

import dataclasses
import re
from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from skipsr.backbones.seedvr2.config import DIT_3B, PRESETS
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.windows import windows
from skipsr.errors import SettingsError
from skipsr.train.masks import MaskShares
from skipsr.train.objective import Objective
from skipsr.train.objectives.adversarial import AdversarialObjective
from skipsr.train.objectives.autoencoder import AutoencoderObjective
from skipsr.train.objectives.distill import DistillObjective
from skipsr.train.objectives.finetune import OneStepObjective, VelocityObjective
from skipsr.train.objectives.predictor import PredictorObjective
from skipsr.train.plan import (
    Passes,
    StagePlan,
    count_passes,
    measure_encoder,
    measure_transformer,
    plan_stage,
)  # fmt: skip
from skipsr.train.recipes import RECIPES, Stage
from skipsr.train.settings import TrainSettings

GIB = 2**30
TEXT = 58
TOY = TrainSettings(model="seedvr2:tiny", steps=1, batch=4, crop=96, frames=5)
TOKENS = 2 * 6 * 6  # of the toy's clip


def tflop_3b(grid: tuple[int, int, int]) -> float:
    """One pass of the 3B transformer, term by term."""
    tokens, width, layers = grid[0] * grid[1] * grid[2], 2560, 32
    projections, mlp = 4 * width**2, 3 * width * 6912
    flop = 2.0 * tokens * layers * (projections + mlp)
    flop += 2 * TEXT * (layers * (projections + mlp) - mlp)
    for layer in range(layers):
        for spans in windows(grid, DIT_3B.windows, shifted=layer % 2 == 1):
            inside = 1
            for start, end in spans:
                inside *= end - start
            flop += 4 * width * (inside + TEXT) ** 2
    return (flop + 2 * tokens * (132 + 64) * width + 2 * TEXT * 5120 * width) / 1e12


def stage_of(objective: Objective | None = None, **changes: object) -> Stage:
    settings = dataclasses.replace(TOY, **changes)  # type: ignore[arg-type]
    return Stage(name="toy", objective=objective or VelocityObjective(), settings=settings)


plan_of = cache(plan_stage)  # many tests ask for the same


@pytest.mark.parametrize("frames", [1, 9, 17])
def test_what_encoding_costs_follows_from_a_few_frames(frames: int):
    with torch.device("meta"):
        model = SeedVR2(PRESETS["tiny"])
        clip = torch.empty((1, 3, frames, 32, 32))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encode(clip)
    found = measure_encoder(model, dataclasses.replace(TOY, crop=32, frames=frames))
    assert found == counter.get_total_flops()


def test_operations_of_the_3b_transformer():
    assert tflop_3b((26, 45, 80)) == pytest.approx(546.1, abs=0.05)  # 101 frames of 1280x720
    with torch.device("meta"):
        model = SeedVR2(PRESETS["3b"])
    settings = dataclasses.replace(TOY, model="seedvr2:3b", crop=720, frames=97)
    long = measure_transformer(model, settings)
    assert long.flop / 1e12 == pytest.approx(tflop_3b((25, 45, 45)), rel=0.01)
    assert long.inputs == 25 * 45 * 45 * 2560 * 2
    short = measure_transformer(model, dataclasses.replace(settings, frames=49))
    # in proportion to the tokens: no weights of all pairs, which a fused kernel never keeps
    assert long.layer / short.layer == pytest.approx(25 / 13, rel=0.02)
    # at the least what enters each product: width 2560 into four, 6912 into one, q, k, v of heads
    assert long.layer > 25 * 45 * 45 * 2 * (4 * 2560 + 6912 + 3 * 2560)


def test_a_plan_is_made_of_its_parts():
    plan = plan_of(stage_of(), 1)
    with torch.device("meta"):
        model = SeedVR2(PRESETS["tiny"])
    sizes = {name: sum(p.numel() for p in part.parameters())
             for name, part in model.named_children()}  # fmt: skip
    trained = sizes["dit"] + sizes["text"]
    assert (plan.devices, plan.tokens, plan.auxiliary) == (1, TOKENS, 0)
    assert plan.parameters == sum(sizes.values())
    assert plan.trained == trained
    assert plan.weights_gib * GIB == pytest.approx(4 * sum(sizes.values()))
    # a gradient, two moments and an average for each weight
    assert plan.training_gib * GIB == pytest.approx(4 * 4 * trained)
    measured = measure_transformer(model, TOY)
    assert measured.inputs == TOKENS * 48 * 2
    assert plan.activations_gib * GIB == pytest.approx(4 * 3 * measured.layer)  # clips, layers
    assert plan.transformer_tflop * 1e12 == pytest.approx(4 * 3 * measured.flop)
    assert plan.total_gib == pytest.approx(
        plan.weights_gib + plan.training_gib + plan.activations_gib
    )
    frugal = plan_of(stage_of(recompute=True), 1)
    assert frugal.activations_gib * GIB == pytest.approx(measured.layer + 4 * 3 * measured.inputs)
    assert frugal.transformer_tflop == pytest.approx(plan.transformer_tflop * 4 / 3)


def test_devices_divide_clips_and_the_transformer():
    one, two = (plan_of(stage_of(), devices) for devices in (1, 2))
    with torch.device("meta"):
        dit = sum(p.numel() for p in SeedVR2(PRESETS["tiny"]).dit.parameters())
    assert (one.weights_gib - two.weights_gib) * GIB == pytest.approx(4 * dit / 2)
    assert (one.training_gib - two.training_gib) * GIB == pytest.approx(4 * 4 * dit / 2)
    for name in ("activations_gib", "transformer_tflop", "encoder_tflop"):
        assert getattr(two, name) == pytest.approx(getattr(one, name) / 2), name
        assert getattr(one, name) > 0


def test_devices_that_share_a_clip_halve_its_activations():
    apart = plan_of(stage_of(batch=2), 2)
    shared = plan_of(stage_of(batch=1, sequence=2), 2)
    assert shared.activations_gib == pytest.approx(apart.activations_gib / 2)
    assert shared.transformer_tflop == pytest.approx(apart.transformer_tflop / 2)
    assert shared.encoder_tflop == pytest.approx(apart.encoder_tflop)  # each encodes all of it


def test_kept_latents_spare_the_encoder_where_pixels_are_not_needed():
    anew, kept = (plan_of(stage_of(), 1, latents=latents) for latents in (False, True))
    assert anew.encoder_tflop > 0
    assert kept == dataclasses.replace(anew, encoder_tflop=0.0)
    pixels = plan_of(stage_of(OneStepObjective()), 1, latents=True)
    assert pixels.encoder_tflop == pytest.approx(anew.encoder_tflop)


ONE = Passes(free=0, learning=1, together=1)
# fake and real through the discriminator for the model; then a fake, and fake and real twice each
BOTH = Passes(free=2, learning=6, together=4)
NONE = Passes(free=0, learning=0, together=0)
ALL_MASKS = MaskShares(oracle=0.25, predictor=0.25, blobs=0.25)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (VelocityObjective(), ONE),
        (VelocityObjective(masks=ALL_MASKS), ONE),
        (OneStepObjective(), Passes(free=0, learning=2, together=2)),
        (OneStepObjective(velocity=0.0), ONE),
        (DistillObjective(steps=8), Passes(free=2, learning=1, together=1)),
        (DistillObjective(steps=64, guidance=7.5), Passes(free=4, learning=1, together=1)),
        (AdversarialObjective(), BOTH),
        (AutoencoderObjective(), NONE),
        (PredictorObjective(), NONE),
    ],
)
def test_passes_by_hand(objective: Objective, expected: Passes):
    assert count_passes(stage_of(objective)) == expected


def test_an_objective_of_many_passes_holds_them_at_once():
    velocity, adversarial = (plan_of(stage_of(o), 1) for o in (None, AdversarialObjective()))
    assert adversarial.activations_gib == pytest.approx(4 * velocity.activations_gib)
    assert adversarial.transformer_tflop == pytest.approx(
        velocity.transformer_tflop * (2 + 3 * 6) / 3
    )
    assert adversarial.auxiliary > velocity.trained
    assert adversarial.trained == velocity.trained + adversarial.auxiliary


def test_without_a_transformer_to_train_nothing_of_it_is_kept():
    plan = plan_of(stage_of(PredictorObjective()), 1)
    assert (plan.activations_gib, plan.transformer_tflop) == (0, 0)
    assert plan.encoder_tflop > 0


@pytest.mark.parametrize("devices", [0, 1, 3, 6, 16])
def test_numbers_of_devices_that_cannot_be(devices: int):
    stage = stage_of(sequence=2, batch=4)
    with pytest.raises(SettingsError, match=f"toy: {devices} devices cannot form groups of 2") as e:
        plan_of(stage, devices)
    advice = re.search(r"`devices` (\d+)", str(e.value))
    assert advice is not None
    assert plan_of(stage, int(advice[1])).devices == int(advice[1])


def test_clips_too_small_to_share():
    small = stage_of(batch=1, crop=16, frames=1, sequence=2)
    with pytest.raises(SettingsError, match="2 devices cannot share a clip of 1 windows"):
        plan_of(small, 2)


@pytest.mark.parametrize("name", ["skipvsr-nano-flow", "basicvsr-x4"])
def test_a_network_without_a_transformer_has_no_plan(name: str):
    stage = RECIPES[name].stages[0]
    with pytest.raises(SettingsError, match=rf"{stage.name}: a plan counts a transformer, and"):
        plan_of(stage, 1)


def test_lines_tell_the_figures():
    """Of recipes, and of a model much larger."""
    stages = [RECIPES[name].stages[0] for name in ("nano-autoencoder", "nano-predictor")]
    plans: list[StagePlan] = [plan_of(stage, 1) for stage in (*stages, stage_of())]
    large = dataclasses.replace(plans[-1], transformer_tflop=1234.5, encoder_tflop=56.7)
    for plan in (*plans, large):
        lines = plan.lines()
        assert lines[0].startswith(f"{plan.stage}: 1 devices, {plan.tokens:,} tokens")
        assert f"{plan.parameters / 1e6:,.1f} M" in lines[1]
        found = [
            float(x.replace(",", ""))
            for x in re.findall(r"step: transformer (\S+) .* encoder (\S+)", lines[3])[0]
        ]
        expected = [plan.transformer_tflop, plan.encoder_tflop]
        assert found == [pytest.approx(x, rel=0.06) for x in expected]
