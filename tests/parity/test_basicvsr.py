"""BasicVSR, SPyNet and the warp against the original: names, shapes and numbers."""

import gzip
import json
import shutil
from pathlib import Path

import check as common
import check_basicvsr as check
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.weights import kinds
from skipsr.weights.identify import identify
from skipsr.weights.load import inventory

HERE = Path(__file__).parent
FOLDER = HERE / "basicvsr"
FILES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
# what: (file that is spoilt, tensor, file that is checked)
SPOILT = {
    "trunk": ("basicvsr_tiny_weights", "forward_trunk.main.0.weight", "basicvsr_tiny_trace"),
    "fusion": ("basicvsr_tiny_weights", "fusion.weight", "basicvsr_tiny_case2"),
    "later flow": ("basicvsr_tiny_trace", "flows_backward", "basicvsr_tiny_trace"),
    "earlier flow": ("basicvsr_tiny_trace", "flows_forward", "basicvsr_tiny_trace"),
    "a frame": ("basicvsr_tiny_trace", "x", "basicvsr_tiny_trace"),
    "result": ("basicvsr_tiny_trace", "y.t0", "basicvsr_tiny_trace"),
    "a level": ("spynet_weights", "basic_module.3.basic_module.4.weight", "spynet_cases"),
    "way between levels": ("spynet_cases", "case0.level1.out", "spynet_cases"),
    "a picture": ("spynet_cases", "case0.supp", "spynet_cases"),
    "flow": ("spynet_cases", "case0.flow", "spynet_cases"),
    "warp": ("flow_warp", "one_row.flow", "flow_warp"),
    "resizing": ("upsampler", "resize_flow_ratio.x", "upsampler"),
}


def published(name: str) -> dict[str, tuple[int, ...]]:
    keys = json.loads(gzip.decompress((FOLDER / f"{name}_keys.json.gz").read_bytes()))
    return {key: tuple(shape) for key, shape in keys.items()}


def test_names_and_shapes_of_the_published_network():
    """Those of the dense network: what routes it is ours."""
    with torch.device("meta"):
        model = BasicVSR(PRESETS["x4"])
    whole = inventory(model)
    added = {name for name in whole if name.startswith("router_") or name == "calibration"}
    assert {k: v for k, v in whole.items() if k not in added} == published("basicvsr")
    assert len(published("basicvsr")) == 316
    assert {name.split(".")[0] for name in added} == {
        "router_backward",
        "router_forward",
        "calibration",
    }
    dense = [p for name, p in model.named_parameters() if name not in added]
    assert sum(p.numel() for p in dense) == 6_291_311
    assert sum(p.numel() for p in model.spynet.parameters()) == 1_440_300


def test_names_and_shapes_of_the_published_spynet():
    with torch.device("meta"):
        found = inventory(BasicVSR(PRESETS["x4"]).spynet)
    constants = {"mean": (1, 3, 1, 1), "std": (1, 3, 1, 1)}
    assert found == published("spynet") | constants
    assert len(published("spynet")) == 60


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("basicvsr", "basicvsr:x4 network"),
        ("spynet", "basicvsr flow network (SPyNet)"),
    ],
)
def test_published_files_are_recognised(name: str, kind: str):
    match = identify(published(name), kinds())
    assert match is not None
    assert (match.kind, match.exact) == (kind, True)


def test_every_file_is_checked():
    assert set(FILES) == {path.stem for path in FOLDER.glob("*.safetensors") if check.known(path)}
    assert {checked for _, _, checked in SPOILT.values()} == {
        name for name in FILES if not name.endswith("_weights")
    }


@pytest.mark.parametrize("name", FILES)
def test_matches_the_original(name: str):
    worst, tolerance, good, remark = check.run(FOLDER / f"{name}.safetensors")
    assert good, f"{name}: {worst:.2e} > {tolerance:.1e} ({remark})"


def copy_spoilt(folder: Path, name: str, key: str) -> None:
    """A fixture with one number changed."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors[key].view(-1)[tensors[key].numel() // 2] += 0.05
    save_file(tensors, folder / f"{name}.safetensors", metadata)


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_number_is_noticed(what: str, tmp_path: Path):
    """The comparison itself must be able to fail."""
    spoilt, key, checked = SPOILT[what]
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)  # a file is checked with its weights
    copy_spoilt(tmp_path, spoilt, key)
    worst, tolerance, good, _ = check.run(tmp_path / f"{checked}.safetensors")
    assert not good
    assert tolerance < worst < float("inf")


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
@pytest.mark.parametrize("name", ["spynet_weights", "basicvsr_tiny_weights"])
def test_weights_that_are_not_ours_are_noticed(name: str, change: str, tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    key = sorted(tensors)[-1]
    if change == "missing":
        del tensors[key]
    elif change == "unexpected":
        tensors["more.weight"] = torch.ones(1)
    else:
        tensors[key] = tensors[key][None]
    save_file(tensors, path, metadata)
    assert not check.run(path)[2]


def test_what_is_not_compared_is_said():
    assert check.run(FOLDER / "flow_warp.safetensors")[3] == (
        "11 comparisons; not compared: random_align_corners_false"
    )


def test_a_folder_goes_through_the_common_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copy(FOLDER / "flow_warp.safetensors", tmp_path)
    assert common.main(tmp_path) == 0
    assert capsys.readouterr().out.split()[:4:3] == ["flow_warp", "ok"]
    copy_spoilt(tmp_path, "flow_warp", "zero_flow.y")
    assert common.main(tmp_path) == 1
    assert capsys.readouterr().out.split()[:4:3] == ["flow_warp", "FAIL"]


def test_files_that_are_not_ours_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file({"x": torch.ones(1)}, tmp_path / "else.safetensors")
    assert check.main(tmp_path) == 1
    assert "else.safetensors: not one of ours, left out" in capsys.readouterr().out
