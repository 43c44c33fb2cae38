"""A preset built as the published ones and small, its network, and what a published file holds."""

import pytest
import torch
from made_models import perturb
from torch import Tensor

from skipsr.backbones.basicvsr import weights
from skipsr.backbones.basicvsr.config import BasicVSRConfig
from skipsr.backbones.basicvsr.network import BasicVSR

TOY = BasicVSRConfig(num_feat=4, num_block=2)  # all the published parts, and the published SPyNet


@pytest.fixture
def toy_preset(monkeypatch: pytest.MonkeyPatch):
    """`basicvsr:toy`, among the presets for the time of a test."""
    monkeypatch.setitem(weights.PRESETS, "toy", TOY)


@pytest.fixture(scope="session")
def model() -> BasicVSR:
    """The toy with routers and thresholds; do not change it."""
    torch.manual_seed(0)
    model = BasicVSR(TOY)
    perturb(model)
    model.calibration.uniform_()
    return model


@pytest.fixture(scope="session")
def dense(model: BasicVSR) -> dict[str, Tensor]:
    """What a published file holds of it."""
    routing = ("router_", "calibration")
    return {k: v for k, v in model.state_dict().items() if not k.startswith(routing)}
