"""Numbers of the original implementation, at toy size; see check.py for a whole folder."""

import shutil
from pathlib import Path

import check
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
FOLDER = HERE / "seedvr2"
FILES = [
    "dit_3b_tiny_b",
    "vae_tiny_io",
    "pipeline_7b_tiny",
    "windows",
    "rotary",
    "diffusion",
    "colorfix",
    "preprocess",
]
# name: (file that is spoilt, tensor, file that is checked)
SPOILT = {
    "transformer": ("dit_3b_tiny_b", "w.blocks.3.attn.proj_qkv.all.weight", "dit_3b_tiny_b"),
    "rotary frequencies": ("dit_3b_tiny_b", "w.blocks.0.attn.rope.rope.freqs", "dit_3b_tiny_b"),
    "sampling": ("pipeline_7b_tiny", "w.vid_out.proj.bias", "pipeline_7b_tiny"),
    "encoder": ("vae_tiny_weights", "encoder.conv_in.weight", "vae_tiny_io"),
    "decoder": (
        "vae_tiny_weights",
        "decoder.up_blocks.1.upsamplers.0.upscale_conv.weight",
        "vae_tiny_io",
    ),
    "windows": ("windows", "shift.3_17_29", "windows"),
    "tone": ("colorfix", "b.style", "colorfix"),
}


def test_every_file_is_checked():
    stems = {path.stem for path in FOLDER.glob("*.safetensors")}
    assert stems == {*FILES, "vae_tiny_weights"}


@pytest.mark.parametrize("name", FILES)
def test_matches_the_original(name: str):
    worst, tolerance, good, remark = check.run(FOLDER / f"{name}.safetensors")
    assert good, f"{name}: {worst:.2e} > {tolerance:.1e} ({remark})"


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_tensor_is_noticed(what: str, tmp_path: Path):
    """The comparison itself must be able to fail."""
    spoilt, key, checked = SPOILT[what]
    for name in {spoilt, checked}:
        shutil.copy(FOLDER / f"{name}.safetensors", tmp_path)
    path = tmp_path / f"{spoilt}.safetensors"
    with safe_open(path, "pt") as file:
        tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    flat = tensors[key].flatten()
    flat[0] += 1 if not torch.is_floating_point(flat) else 0.05
    save_file(tensors, path, metadata)
    worst, tolerance, good, _ = check.run(tmp_path / f"{checked}.safetensors")
    assert not good
    assert worst > tolerance
