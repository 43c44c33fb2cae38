"""What `auto` stands for: the weights that were given, else the bundled model."""

import json
import re
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from skipsr import backbones
from skipsr.backbones.contract import Upscaler
from skipsr.backbones.seedvr2.weights import kinds
from skipsr.errors import SettingsError, WeightsError
from skipsr.loading import BUNDLED, find_model, load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.skipping.need import LOST, head_of

KINDS = {kind.name: kind.tensors for kind in kinds()}


def write_hollow(path: Path, kind: str) -> Path:
    """A whole float16 file of that kind, gigabytes of zeros that take no room on the disk."""
    header: dict[str, object] = {}
    end = 0
    for name, shape in KINDS[kind].items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end)
    return path


def chosen(weights: Path | None, device: str = "cpu") -> str:
    return find_model(runtime=RuntimeSettings(weights=weights, device=device)).name


def test_without_weights_it_is_the_bundled_model():
    assert chosen(None) == BUNDLED


@pytest.mark.parametrize(
    ("asked", "name"),
    [("nano", "seedvr2:nano"), ("basicvsr:nano", "skipvsr:nano"), ("skipvsr:x4", "basicvsr:x4")],
)
def test_a_model_has_one_name_however_it_is_asked_for(asked: str, name: str):
    """By it the head of the need predictor is found, among others."""
    assert backbones.full_name(asked) == name
    if asked != "skipvsr:x4":  # which brings no files
        assert find_model(asked).name == name
        assert head_of(find_model(asked).name) == head_of(name) != LOST


@pytest.mark.parametrize("preset", ["3b", "7b"])
def test_a_folder_is_known_by_its_transformer(tmp_path: Path, preset: str, caplog):
    """Whatever the names, and whatever else is there; the user hears that it will be slow."""
    write_hollow(tmp_path / "one.safetensors", "seedvr2 autoencoder")
    write_hollow(tmp_path / "two.safetensors", f"seedvr2:{preset} transformer")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "readme.txt").write_text("nothing")
    assert chosen(tmp_path) == f"seedvr2:{preset}"
    foreign, warning = caplog.messages
    assert re.search(r"other\.safetensors is left out: none of its tensors belongs", foreign)
    assert "no GPU: this will be slow" in warning
    assert f"seedvr2:{preset} has" in warning


def test_a_small_file_is_taken_without_a_word(tiny_file: Path, caplog):
    assert chosen(tiny_file) == "seedvr2:tiny"
    runtime = RuntimeSettings(weights=tiny_file, device="cpu", dtype="float32")
    upscaler: Upscaler = load_upscaler(runtime=runtime)
    assert upscaler.name == "seedvr2:tiny"
    assert caplog.messages == []


def test_two_models_are_refused(tmp_path: Path):
    for preset in ("3b", "7b"):
        write_hollow(tmp_path / f"{preset}.safetensors", f"seedvr2:{preset} transformer")
    with pytest.raises(WeightsError, match="holds seedvr2:3b and seedvr2:7b: give `model`"):
        chosen(tmp_path)


def test_two_files_of_one_model_are_refused(tmp_path: Path):
    for name in ("a", "b"):
        write_hollow(tmp_path / f"{name}.safetensors", "seedvr2:3b transformer")
    message = r"a\.safetensors and b\.safetensors are each a seedvr2:3b network; keep one, or name"
    with pytest.raises(WeightsError, match=message):
        load_upscaler(runtime=RuntimeSettings(weights=tmp_path, device="cpu"))


def test_weights_that_are_no_model(tmp_path: Path):
    with pytest.raises(WeightsError, match="nowhere: no such file or folder"):
        chosen(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"no network of a model .* it holds no weight file"):
        chosen(tmp_path)
    part = write_hollow(tmp_path / "part.safetensors", "seedvr2 autoencoder")
    with pytest.raises(WeightsError, match=r"part\.safetensors \(seedvr2 autoencoder\)"):
        chosen(tmp_path)
    with pytest.raises(WeightsError, match="is no model's network: seedvr2 autoencoder"):
        chosen(part)
    (tmp_path / "half.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(WeightsError, match=r"half\.safetensors \(not a readable safetensors file"):
        chosen(tmp_path)


def test_a_device_that_is_not_there(tmp_path: Path):
    write_hollow(tmp_path / "model.safetensors", "seedvr2:3b transformer")
    with pytest.raises(SettingsError, match="`device` warp is not usable"):
        chosen(tmp_path, "warp")


def test_public_names_lead_to_the_same_preset():
    assert backbones.public_name("seedvr2", "3b") == "seedvr2:3b"
    assert backbones.public_name("basicvsr", "nano") == "skipvsr:nano"
    assert backbones.public_name("basicvsr", "x4") == "basicvsr:x4"
    for family in backbones.families():
        for preset in backbones.get(family).presets:
            names = {backbones.public_name(family, preset), f"{family}:{preset}"}
            for name in names:
                assert backbones.family(name) == (backbones.get(family), preset)
