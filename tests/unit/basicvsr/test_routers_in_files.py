"""Files with and without routers: either is read as it is, and trained further with routers."""

import logging
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from skipsr.backbones.basicvsr import weights
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.weights import kinds, normalise
from skipsr.errors import WeightsError
from skipsr.loading import load_networks, load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.train.run import export
from skipsr.weights.identify import identify
from skipsr.weights.load import read_inventory

pytestmark = pytest.mark.usefixtures("toy_preset")
State = dict[str, Tensor]


def saved(path: Path, state: State) -> Path:
    torch.save({"params": state}, path)
    return path


def kind_of(path: Path) -> str:
    match = identify(normalise(read_inventory(path)), kinds())
    assert match is not None
    assert match.exact
    return match.title


def read(path: Path) -> BasicVSR:
    model = load_networks("basicvsr:toy", path)
    assert isinstance(model, BasicVSR)
    return model


def test_a_dense_file_is_said_to_hold_no_routers(
    dense: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    runtime = RuntimeSettings(weights=saved(tmp_path / "network.pth", dense), device="cpu")
    with caplog.at_level(logging.WARNING):
        load_upscaler("basicvsr:toy", runtime=runtime)  # by regions, which needs none
        assert not caplog.text
        load_upscaler("basicvsr:toy", None, runtime, {"skip": "blocks"})
    assert "every block will be run" in caplog.text


def test_routers_and_thresholds_travel(model: BasicVSR, tmp_path: Path):
    path = export(model, tmp_path / "routed.safetensors", {})
    assert kind_of(path) == "basicvsr:toy network with routers (bare layout)"
    for found in (read(path), read(tmp_path)):
        assert found.state_dict().keys() == model.state_dict().keys()
        assert torch.equal(found.calibration, model.calibration)
        for name, parameter in model.named_parameters():
            assert torch.equal(found.get_parameter(name), parameter.half().float()), name


@pytest.mark.parametrize("name", ["router_forward.fc.bias", "calibration"])
def test_half_a_routed_file_is_refused(model: BasicVSR, tmp_path: Path, name: str):
    path = export(model, tmp_path / "routed.safetensors", {})
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=rf"1 missing \(such as {re.escape(name)}\)"):
        read(path)


def test_a_dense_network_written_again_is_still_one(dense: State, tmp_path: Path):
    first = read(saved(tmp_path / "network.pth", dense))
    path = export(first, tmp_path / "again.safetensors", {})
    assert kind_of(path) == "basicvsr:toy network (bare layout)"
    again = read(path)
    assert again.router_forward is None
    assert again.state_dict().keys() == first.state_dict().keys()


def test_training_starts_from_a_dense_file_with_new_routers(dense: State, tmp_path: Path):
    halved = {k: v.half() for k, v in dense.items()}
    restored = read(saved(tmp_path / "network.pth", halved))
    restored.routers()
    assert all(p.dtype == torch.float32 for p in restored.parameters())
    assert all(p.requires_grad for p in restored.parameters())
    state = restored.state_dict()
    assert all(torch.equal(state[name], value.float()) for name, value in halved.items())
    assert restored.state_dict().keys() == BasicVSR(weights.PRESETS["toy"]).state_dict().keys()
    assert not any(tensor.is_meta for tensor in restored.state_dict().values())
    assert restored.router_forward is not restored.router_backward
    frames = torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    restored(frames).mean().backward()
    assert restored.fusion.weight.grad is not None
