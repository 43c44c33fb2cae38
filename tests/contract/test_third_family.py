"""A family is one new folder: a toy, added beside the others, works everywhere without a change."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_videos import make_video, ramp

from skipsr import backbones
from skipsr.cli.main import run
from skipsr.loading import identify_file, list_models, load_networks, load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.train.run import export

TOY = '''
"""Nearest pixels, each colour times a learned gain."""

from dataclasses import dataclass

import torch
from torch import nn

from skipsr.backbones.contract import Backbone, Upscaled
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.skipping.work import Work
from skipsr.timeline import Limits
from skipsr.weights.identify import Kind
from skipsr.weights.load import inventory, load_strictly


@dataclass(frozen=True, kw_only=True)
class Config:
    colours: int = 3


class Toy(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.gain = nn.Parameter(torch.ones(config.colours))


class ToyUpscaler:
    def __init__(self, name, model):
        self.name, self.model, self.limits = name, model, Limits()
        self.asked, self.device, self.dtype = {}, "cpu", "float32"

    def upscale(self, clip, size, *, seed=0):
        frames = self.enlarge(clip, size).frames * self.model.gain.detach()[:, None, None]
        return Upscaled(Clip(frames.clamp(0, 1), clip.start), self.work(clip, size))

    def work(self, clip, size):
        share = torch.zeros(len(clip), 1, 2)
        share[..., 0] = 1
        cell = (size[0], -(-size[1] // 2))
        return Work(share=share, cell=cell, computed=len(clip), total=2 * len(clip))

    def enlarge(self, clip, size):
        return Clip(nn.functional.interpolate(clip.frames, size), clip.start)


PRESETS = {"tiny": Config(), "one": Config()}


def kinds():
    yield Kind("toy:one network", inventory(Toy(Config())))


def networks(preset, files):
    model = Toy(PRESETS[preset])
    load_strictly(model, files.network(f"toy:{preset}").tensors(), f"toy:{preset}")
    return model


def upscaler_for(name, skip, steps, guidance):
    if steps is not None:
        raise SettingsError(f"--steps is not for {name}")
    return lambda model: ToyUpscaler(name, model)


BACKBONE = Backbone(
    presets=PRESETS, bundled={}, limits=lambda config: Limits(), build=Toy,
    training_input=lambda frames, size: frames, kinds=kinds, normalise=dict, networks=networks,
    optional=(), upscaler=upscaler_for,
)
'''


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The family's folder is there, and a file of it whose red is halved."""
    folder = tmp_path / "families" / "toy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "backbone.py").write_text(TOY)
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(folder.parent)])
    toy = backbones.get("toy")
    model = toy.build(toy.presets["one"])
    with torch.no_grad():
        model.gain[0] = 0.5
    yield export(model, tmp_path / "toy.safetensors", {})
    for name in ("toy", "toy.backbone"):
        del sys.modules[f"skipsr.backbones.{name}"]


def test_it_is_listed_and_its_file_is_known(weights: Path):
    assert "toy:one" in {model.name for model in list_models()}
    match = identify_file(weights)
    assert match is not None
    assert match.exact
    assert match.kind == "toy:one network"


def test_it_loads_by_what_the_file_is_and_goes_on_training(weights: Path):
    upscaler = load_upscaler(runtime=RuntimeSettings(weights=weights, device="cpu"))
    assert upscaler.name == "toy:one"
    network = load_networks("toy:one", weights)
    assert [p.tolist() for p in network.parameters()] == [[0.5, 1, 1]]


def test_the_command_line_runs_it(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = make_video(tmp_path / "in.mp4", ramp(5))
    options = ["--weights", str(weights), "--device", "cpu", "--scale", "2"]
    assert run(["upscale", str(source), str(tmp_path / "out.mp4"), *options]) == 0
    assert '"model": "toy:one"' in capsys.readouterr().out
    assert run(["mask", str(source), str(tmp_path / "mask.mp4"), *options]) == 0
    assert '"skipped": 0.5' in capsys.readouterr().out
    assert run(["upscale", str(source), str(tmp_path / "b.mp4"), *options, "--steps", "2"]) == 1
    assert "--steps is not for toy:one" in capsys.readouterr().err
