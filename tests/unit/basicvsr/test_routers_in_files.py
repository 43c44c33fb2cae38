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
from skipsr.backbones.basicvsr.weights import kinds, normalise, read_model, restore
from skipsr.errors import WeightsError
from skipsr.train.run import export
from skipsr.weights.identify import identify, read_inventory

pytestmark = pytest.mark.usefixtures("toy_preset")
State = dict[str, Tensor]


def saved(path: Path, state: State) -> Path:
    torch.save({"params": state}, path)
    return path


def kind_of(path: Path) -> str:
    match = identify(normalise(read_inventory(path)), kinds())
    assert match is not None
    assert match.exact
    return match.kind


def test_a_dense_file_is_said_to_hold_no_routers(
    dense: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = saved(tmp_path / "network.pth", dense)
    with caplog.at_level(logging.WARNING):
        restore("toy", path)
        assert not caplog.text
        read_model("toy", path)
    assert "every block will be run" in caplog.text


def test_routers_and_thresholds_travel(model: BasicVSR, tmp_path: Path):
    path = export(model, tmp_path / "routed.safetensors", {})
    assert kind_of(path) == "basicvsr:toy network with routers (bare layout)"
    for read in (read_model("toy", path), read_model("toy", tmp_path), restore("toy", path)):
        assert read.state_dict().keys() == model.state_dict().keys()
        assert torch.equal(read.calibration, model.calibration)
        for name, parameter in model.named_parameters():
            assert torch.equal(read.get_parameter(name).float(), parameter.half().float()), name


@pytest.mark.parametrize("name", ["router_forward.fc.bias", "calibration"])
def test_half_a_routed_file_is_refused(model: BasicVSR, tmp_path: Path, name: str):
    path = export(model, tmp_path / "routed.safetensors", {})
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=rf"1 missing \(such as {re.escape(name)}\)"):
        read_model("toy", path)


def test_a_dense_network_written_again_is_still_one(dense: State, tmp_path: Path):
    first = read_model("toy", saved(tmp_path / "network.pth", dense))
    path = export(first, tmp_path / "again.safetensors", {})
    assert kind_of(path) == "basicvsr:toy network (bare layout)"
    again = read_model("toy", path)
    assert again.router_forward is None
    assert again.state_dict().keys() == first.state_dict().keys()


def test_training_starts_from_a_dense_file_with_new_routers(dense: State, tmp_path: Path):
    halved = {k: v.half() for k, v in dense.items()}
    restored = restore("toy", saved(tmp_path / "network.pth", halved))
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
