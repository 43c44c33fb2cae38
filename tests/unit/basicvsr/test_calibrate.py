"""Thresholds for budgets: found by running, kept in files, asked for between them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from made_models import perturb
from torch import Tensor, nn

from skipsr.backbones.basicvsr.backbone import BACKBONE
from skipsr.backbones.basicvsr.calibrate import (
    calibrate,
    calibrate_file,
    routed_steps,
    threshold_for,
)
from skipsr.backbones.basicvsr.config import PRESETS, RoutingConfig
from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.backbones.basicvsr.network import CALIBRATED, BasicVSR
from skipsr.errors import SettingsError, WeightsError
from skipsr.loading import load_networks, open_weights
from skipsr.train.run import export

Reference = Literal["depth", "state"]
CPU = torch.device("cpu")


def make(reference: Reference = "depth", stride: int = 1) -> BasicVSR:
    """Routers that see differences well: confidences lie far apart."""
    torch.manual_seed(0)
    routing = RoutingConfig(tile=8, reference=reference, stride=stride)
    model = BasicVSR(replace(PRESETS["tiny"], routing=routing))
    perturb(model)
    perturb(model.routers(), seed=1, spread=3.0)
    return model.eval().requires_grad_(False)


def clips() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.rand(4, 3, 16, 24, generator=draw), torch.rand(2, 3, 20, 16, generator=draw)]


def spent(model: BasicVSR, threshold: float) -> float:
    """Share of the dense FLOPs on the same clips, first frames left out."""
    ran: list[Tensor] = []
    for clip in clips():
        steps = routed_steps(model, threshold)
        list(model.run(clip[None], *steps))
        ran += [mask.flatten() for step in steps for mask in step.executed[1:]]
    return cost_of(model.config).share(torch.cat(ran).float().mean().item())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("reference", ["depth", "state"])
def test_budgets_rise_as_thresholds_fall(reference: Reference, stride: int):
    model = make(reference, stride)
    table = calibrate(model, clips())
    budgets, thresholds = table.unbind(1)
    assert table.shape == (CALIBRATED, 2)
    assert (budgets.diff() >= 0).all()
    assert (thresholds.diff() <= 0).all()
    assert table[0].tolist() == pytest.approx([cost_of(model.config).share(0.0), 1.0])
    assert table[-1].tolist() == [1.0, 0.0]
    # blocks cost the same wherever they are, so the steps of the ladder are about equal
    assert budgets.diff().max() < 4 * (1 - budgets[0]) / (CALIBRATED - 1)


def test_a_threshold_spends_its_budget():
    model = make()
    table = calibrate(model, clips())
    for budget, threshold in table[::3].tolist():
        assert spent(model, threshold) == pytest.approx(budget, abs=0.02)
    for budget in (0.6, 0.8):
        assert spent(model, threshold_for(table, budget)) == pytest.approx(budget, abs=0.08)


def test_a_larger_threshold_never_runs_more_of_the_same_features():
    model = make("state")  # of the second frame: later features differ
    clip = clips()[0][None, :2]
    counts: list[int] = []
    for threshold in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        steps = routed_steps(model, threshold)
        list(model.run(clip, *steps))
        counts.append(sum(int(step.executed[1].sum()) for step in steps))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2] > counts[-1] == 0


# between the calibrated budgets

TABLE = torch.tensor([[0.2, 1.0], [0.4, 0.9], [0.8, 0.5], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("budget", "threshold"),
    [(0.2, 1.0), (0.3, 0.95), (0.4, 0.9), (0.5, 0.8), (0.7, 0.6), (0.9, 0.25), (1.0, 0.0)],
)
def test_thresholds_between_calibrated_ones(budget: float, threshold: float):
    assert threshold_for(TABLE, budget) == pytest.approx(threshold, abs=1e-6)


def test_budgets_that_two_thresholds_share():
    table = torch.tensor([[0.2, 1.0], [0.5, 0.9], [0.5, 0.7], [1.0, 0.0]])
    found = threshold_for(table, 0.5)
    assert 0.7 <= found <= 0.9


def test_a_budget_below_what_always_runs_is_refused():
    with pytest.raises(SettingsError, match=r"`budget` 0.1 is less than .* 0.20"):
        threshold_for(TABLE, 0.1)


def test_a_model_without_thresholds_knows_no_budget():
    with pytest.raises(WeightsError, match="not calibrated: give `threshold`, not `budget`"):
        threshold_for(torch.zeros(CALIBRATED, 2), 0.5)


def test_without_routers_nothing_is_routed():
    model = make()
    model.router_backward = model.router_forward = None
    with pytest.raises(WeightsError, match="no routers: leave out `budget` and `threshold`"):
        routed_steps(model, 0.5)


# files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of the tiny preset, with routers and no thresholds."""
    torch.manual_seed(0)
    model = BasicVSR(PRESETS["tiny"])
    perturb(model)
    perturb(model.routers(), seed=1, spread=3.0)
    return export(model, tmp_path / "tiny.safetensors", {})


def test_a_file_is_calibrated_as_its_network_is(file: Path):
    assert BACKBONE.calibrate is calibrate_file
    found = calibrate_file("tiny", open_weights(file), iter(clips()), CPU)
    network = load_networks("basicvsr:tiny", file)
    assert isinstance(network, BasicVSR)
    assert not network.calibration.any()
    expected = calibrate(network.eval(), clips())
    assert torch.equal(found.thresholds, expected)
    assert torch.equal(found.network.get_buffer("calibration"), expected)
    for name, parameter in network.named_parameters():
        assert torch.equal(found.network.get_parameter(name), parameter), name


def test_weights_without_routers_end_the_job_before_clips_are_read(file: Path, tmp_path: Path):
    model = load_networks("basicvsr:tiny", file)
    assert isinstance(model, BasicVSR)
    model.router_backward = model.router_forward = None
    dense = export(without_thresholds(model), tmp_path / "dense.safetensors", {})

    def unread() -> Iterator[Tensor]:
        raise AssertionError("clips were read")
        yield

    with pytest.raises(WeightsError, match=r"dense\.safetensors: no routers there; train them"):
        calibrate_file("tiny", open_weights(dense), unread(), CPU)


def without_thresholds(model: BasicVSR) -> nn.Module:
    del model.calibration
    return model
