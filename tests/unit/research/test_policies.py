"""Policies: each costs what was asked for, and goes by what it says."""

from dataclasses import replace

import pytest
import torch
from made_models import make_clip, perturb
from torch import Tensor

from skipsr.backbones.basicvsr.calibrate import routed_steps
from skipsr.backbones.basicvsr.config import PRESETS, RoutingConfig
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.routing import RoutedTrunk
from skipsr.backbones.basicvsr.tiles import TileGrid
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.backbones.by_scale import ByScale
from skipsr.clip import Clip
from skipsr.errors import SettingsError, WeightsError
from skipsr.loading import load_upscaler
from skipsr.research.policies import POLICIES, OracleTrunk, UnalignedTrunk, Uniform, tuned
from skipsr.settings import RuntimeSettings, SkipSettings

SIZE = 40, 56
LARGE = 160, 224
CLIP = make_clip(5, *SIZE).frames
DENSE = SkipSettings(dense=True)
BY_DEPTH = RoutingConfig(tile=8, align=2)
BY_STATE = RoutingConfig(tile=8, align=2, reference="state", stride=2)


def made(routing: RoutingConfig, spread: float = 0.05) -> BasicVSRUpscaler:
    torch.manual_seed(0)
    model = BasicVSR(replace(PRESETS["tiny"], routing=routing))
    perturb(model, spread=spread)
    return BasicVSRUpscaler("basicvsr:tiny", model, DENSE)


@pytest.fixture(scope="module", params=[BY_DEPTH, BY_STATE], ids=["depth", "state"])
def upscaler(request: pytest.FixtureRequest) -> BasicVSRUpscaler:
    return made(request.param)


def run(model: BasicVSR, steps: list[RoutedTrunk], frames: Tensor) -> Tensor:
    """Masks of both directions, frames in order of travel: `2 t m rows columns`."""
    with torch.inference_mode():
        list(model.run(frames[None], *steps))
    return torch.stack([torch.stack(step.executed)[:, :, 0] for step in steps])


@pytest.mark.parametrize(
    ("policy", "share"),
    [("learned", 0.8), ("learned", 0.3), ("oracle", 0.3), ("unaligned", 0.8)],
)
def test_a_share_is_met(upscaler: BasicVSRUpscaler, policy: str, share: float):
    clips = [CLIP, CLIP[:4, :, :30].flip(0)]
    chosen = tuned(upscaler, policy, clips, share)
    maps = [chosen.compute_map(Clip(clip), LARGE) for clip in clips]
    executed = sum(w.units_run for w in maps) / sum(w.units_total for w in maps)
    assert executed == pytest.approx(share, abs=0.01)


def test_chance_keeps_its_share():
    policy = Uniform((0.0, 0.3, 1.0), torch.Generator().manual_seed(0))
    drawn = policy(torch.zeros(2, 20, 25, 8))
    assert drawn.shape == (2, 20, 25, 3)
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    shares = drawn.mean((0, 1, 2)).tolist()
    assert shares[0] == 0
    assert shares[1] == pytest.approx(0.3, abs=0.06)  # four deviations of a thousand draws
    assert shares[2] == 1
    again = Uniform((0.0, 0.3, 1.0), torch.Generator().manual_seed(0))
    assert torch.equal(again(torch.ones(2, 20, 25, 8)), drawn)
    assert not torch.equal(again(torch.ones(2, 20, 25, 8)), drawn)


def test_chance_meets_a_share_and_repeats(upscaler: BasicVSRUpscaler):
    chosen = tuned(upscaler, "uniform", [CLIP], 0.5)
    first, second = (chosen.compute_map(Clip(CLIP), LARGE) for _ in range(2))
    assert first.fraction == pytest.approx(0.5, abs=0.04)  # 840 draws
    assert torch.equal(first.fractions, second.fractions)


@pytest.mark.parametrize(
    ("policy", "expected"), [("deep skip", [1, 1, 0]), ("shallow skip", [0, 1, 1])]
)
def test_whole_blocks(upscaler: BasicVSRUpscaler, policy: str, expected: list[int]):
    """Of three blocks after the first frame of five, nearest to 0.7 are two."""
    chosen = tuned(upscaler, policy, [CLIP], 0.7)
    executed = run(upscaler.model, list(chosen._steps()), CLIP)
    assert executed[:, 0].all()
    later = executed[:, 1:].float().mean((0, 1, 3, 4))
    assert later.tolist() == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_the_whole_share_is_dense(upscaler: BasicVSRUpscaler, policy: str):
    expected = upscaler.upscale(Clip(CLIP), LARGE).clip.frames
    result = tuned(upscaler, policy, [CLIP], 1.0).upscale(Clip(CLIP), LARGE)
    assert result.computed == 1
    torch.testing.assert_close(result.clip.frames, expected, atol=1e-5, rtol=0)


def test_what_is_added_is_amplified_as_by_the_dense_network():
    bundled = load_upscaler("skipvsr:nano", DENSE, RuntimeSettings(device="cpu", dtype="float32"))
    assert isinstance(bundled, ByScale)
    dense = bundled.at(4)
    assert isinstance(dense, BasicVSRUpscaler)
    assert dense.strength is not None
    chosen = tuned(dense, "learned", [CLIP], 1.0)
    expected, result = (each.upscale(Clip(CLIP), LARGE).clip.frames for each in (dense, chosen))
    assert torch.equal(result, expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_change_the_result(upscaler: BasicVSRUpscaler, policy: str):
    dense = upscaler.upscale(Clip(CLIP), LARGE).clip.frames
    result = tuned(upscaler, policy, [CLIP], 0.4).upscale(Clip(CLIP), LARGE)
    assert result.computed < 0.6
    assert not torch.allclose(result.clip.frames, dense, atol=1e-4)


def test_the_oracle_is_the_target_of_training():
    """One tile, no block left out: needs recomputed from the features that training looks at."""
    upscaler = made(replace(BY_DEPTH, tile=64))
    model = upscaler.model
    steps = [OracleTrunk(step, model.aligned_layers) for step in routed_steps(model, 0.0)]
    run(model, list(steps), CLIP)
    with torch.no_grad():
        dense = model.forward_traced(CLIP[None], torch.zeros(1))
    assert list(model.aligned_layers) == [2, 3]
    for step, frames in zip(steps, dense.features, strict=True):
        for found, features in zip(step.confidences[1:], frames[1:], strict=True):
            for depth, goal in enumerate((2, 2, 3)):
                expected = (features[depth] - features[goal]).abs().mean().tanh()
                torch.testing.assert_close(found[depth].squeeze(), expected)


def test_the_oracle_compares_with_the_dense_network_not_with_itself():
    """Goals stay those of a dense run when every later block is skipped."""
    upscaler = made(BY_DEPTH)
    model = upscaler.model
    kept = [OracleTrunk(step, model.aligned_layers) for step in routed_steps(model, 0.0)]
    skipped = [OracleTrunk(step, model.aligned_layers) for step in routed_steps(model, 1.0)]
    executed = run(model, list(skipped), CLIP)
    run(model, list(kept), CLIP)
    assert not executed[:, 1:].any()
    for a, b in zip(kept, skipped, strict=True):
        for goal, other in zip(a._goals, b._goals, strict=True):
            assert torch.equal(goal, other)


@pytest.mark.parametrize("routing", [BY_DEPTH, BY_STATE], ids=["depth", "state"])
def test_unaligned_looks_at_what_was_not_warped(routing: RoutingConfig):
    upscaler = made(routing)
    model = upscaler.model
    step = routed_steps(model, 0.0)[1]
    told: list[Tensor] = []
    inner = step.router

    def router(differences: Tensor) -> Tensor:
        told.append(differences)
        return inner(differences)

    step.router = router
    entered: list[Tensor] = []
    unaligned = UnalignedTrunk(step)
    unaligned.watch = lambda depth, x: entered.append(x.clone()) if depth == 0 else None
    with torch.inference_mode():
        _, back = model.flows(CLIP[None, :2])
        states = [x.clone() for x in model.propagate(CLIP[None, :2], back, unaligned)]
    assert back.abs().max() > 0.01
    before = states[0] if routing.reference == "state" else entered[0]
    expected = TileGrid.of(*SIZE, routing.tile, routing.stride).difference(entered[1], before)
    torch.testing.assert_close(told[0], expected)


def test_what_cannot_be_compared(upscaler: BasicVSRUpscaler):
    with pytest.raises(SettingsError, match=r"first frames of these clips alone run 50\.0%"):
        tuned(upscaler, "learned", [CLIP[:2]], 0.4)
    bare = made(BY_STATE)
    bare.model.router_forward = bare.model.router_backward = None
    with pytest.raises(WeightsError, match="weights without routers"):
        tuned(bare, "uniform", [CLIP], 0.5)
