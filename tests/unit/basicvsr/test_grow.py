"""Networks that begin with a smaller one's weights."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from made_models import perturb, random

from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.network import BasicVSR

SCRIPT = Path(__file__).parents[3] / "scripts" / "grow.py"
SMALL = PRESETS["tiny"]
LARGE = replace(SMALL, num_feat=13, num_block=7)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grow", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_a_grown_network_computes_the_same_and_all_of_it_learns(script: ModuleType, unshuffle: int):
    torch.manual_seed(0)
    small = BasicVSR(replace(SMALL, unshuffle=unshuffle))
    perturb(small)
    large = script.grow(small, replace(LARGE, unshuffle=unshuffle))
    frames = random(1, 3, 3, 16, 24)
    torch.testing.assert_close(large(frames), small(frames), atol=1e-5, rtol=1e-5)
    optimizer = torch.optim.SGD(large.parameters(), 1e-2)
    before = {name: value.clone() for name, value in large.named_parameters()}
    for _ in range(3):  # what is read by none yet follows once it is read
        optimizer.zero_grad()
        large(frames).square().mean().backward()
        optimizer.step()
    still = {name for name, value in large.named_parameters() if torch.equal(value, before[name])}
    assert not {name for name in still if not name.startswith("spynet.")}


def test_a_network_does_not_shrink(script: ModuleType):
    small = BasicVSR(SMALL)
    for config in (replace(SMALL, num_feat=4), replace(SMALL, num_block=1), PRESETS["x4"]):
        with pytest.raises(ValueError, match="more channels and more blocks"):
            script.grow(small, config)
