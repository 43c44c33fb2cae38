"""Routers in closed form: they tell the needs that the network itself has."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from made_models import perturb
from torch import Tensor

from skipsr.backbones.basicvsr.calibrate import calibrate_file
from skipsr.backbones.basicvsr.config import PRESETS, RoutingConfig
from skipsr.backbones.basicvsr.fit import fit_routers
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.routing_targets import feature_distances
from skipsr.errors import WeightsError
from skipsr.loading import open_weights
from skipsr.train.run import export

Reference = Literal["depth", "state"]


def make(reference: Reference) -> BasicVSR:
    torch.manual_seed(0)
    routing = RoutingConfig(tile=8, reference=reference, align=2)
    model = BasicVSR(replace(PRESETS["tiny"], routing=routing))
    perturb(model)
    return model.eval().requires_grad_(False)


def clip(seed: int) -> Tensor:
    """Calm on the left, busy on the right."""
    frames = torch.rand(5, 3, 16, 32, generator=torch.Generator().manual_seed(seed))
    return 0.5 + (frames - 0.5) * torch.linspace(0.02, 1, 32)


@pytest.mark.parametrize("reference", ["depth", "state"])
def test_fitted_routers_tell_the_need(reference: Reference):
    model = make(reference)
    fit_routers(model, [clip(seed) for seed in range(6)])
    unseen = clip(9)[None]  # it was not fitted on this
    seen = model.forward_traced(unseen, torch.zeros(1), tile=8)
    need = feature_distances(model, seen, seen, pixels=True)
    both = torch.stack((need.flatten(), seen.confidences[:, 1:].flatten()))
    # one output for blocks of unlike needs cannot tell as much
    assert torch.corrcoef(both)[0, 1] > (0.8 if reference == "state" else 0.6)


def test_distances_by_hand():
    model = make("state")
    frames = clip(0)[None]
    seen = model.forward_traced(frames, torch.zeros(1), tile=8)
    need = feature_distances(model, seen, seen, pixels=True)
    assert need.shape == seen.confidences[:, 1:].shape
    backward, forward = seen.features
    # backward's second frame in order of travel is the last but one in time: forward's fourth
    now, goal = (
        model.residual_planes(backward[1][depth], forward[3][-1])[0, :, :8, 8:16]
        for depth in (2, 3)
    )
    assert need[0, 0, 2, 1].item() == pytest.approx((now - goal).abs().mean().item(), rel=1e-5)
    now, goal = (
        model.residual_planes(backward[2][-1], forward[2][depth])[0, :, 8:, 24:] for depth in (0, 2)
    )
    assert need[1, 1, 0, 7].item() == pytest.approx((now - goal).abs().mean().item(), rel=1e-5)


def test_the_correction_is_what_the_states_add():
    """For both ways of upsampling."""
    frame = torch.rand(1, 3, 8, 9)
    for hr in (None, 8):
        model = BasicVSR(replace(PRESETS["tiny"], hr_feat=hr)).requires_grad_(False)
        later, earlier = torch.rand(2, 1, 8, 8, 9)
        base = torch.nn.functional.interpolate(frame, scale_factor=4, mode="bilinear")
        added = torch.nn.functional.pixel_shuffle(model.residual_planes(later, earlier), 4)
        expected = model.reconstruct(frame, later, earlier)
        torch.testing.assert_close(base + added, expected, atol=1e-5, rtol=0)


def test_weights_without_routers_can_be_fitted(tmp_path: Path):
    model = make("depth")
    model.router_backward = model.router_forward = None
    file = open_weights(export(model, tmp_path / "dense.safetensors", {}))
    cpu = torch.device("cpu")
    with pytest.raises(WeightsError, match="router"):
        calibrate_file("tiny", file, [clip(0)], cpu)
    found = calibrate_file("tiny", file, [clip(0), clip(1)], cpu, fit=True)
    assert found.thresholds.any()
