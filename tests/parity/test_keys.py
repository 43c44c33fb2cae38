"""The networks have the tensors of the published files: the same names, the same shapes."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.weights.identify import identify
from skipsr.weights.load import inventory

FOLDER = Path(__file__).parent / "seedvr2"


def published(name: str) -> dict[str, tuple[int, ...]]:
    keys = json.loads(gzip.decompress((FOLDER / f"{name}_keys.json.gz").read_bytes()))
    return {key: tuple(shape) for key, shape in keys.items()}


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        if name == "vae":
            return VideoAutoencoder(PRESETS["3b"].vae)
        return DiT(PRESETS[name].dit)


@pytest.mark.parametrize("name", ["3b", "7b", "vae"])
def test_names_and_shapes(name: str):
    assert inventory(build(name)) == published(name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("3b", "seedvr2:3b transformer"),
        ("7b", "seedvr2:7b transformer"),
        ("vae", "seedvr2 autoencoder"),
    ],
)
def test_published_files_are_recognised(name: str, kind: str):
    from skipsr.backbones.seedvr2.weights import kinds

    match = identify(published(name), kinds())
    assert match is not None
    assert match.kind == kind
    assert match.exact


def test_7b_and_3b_share_no_configuration():
    """The two lists differ, so that the tests above tell them apart."""
    assert published("3b") != published("7b")
    assert sum(len(published(name)) for name in ("3b", "7b", "vae")) > 1500
