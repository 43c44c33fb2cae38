"""A family is one new folder: a toy, added beside the others, works everywhere without a change."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_models import make_clip, make_frames
from PIL import Image

from skipsr import backbones
from skipsr.backbones.trainable import Recurrent
from skipsr.catalog import list_models
from skipsr.cli.main import run
from skipsr.errors import SettingsError
from skipsr.loading import identify_file, load_networks, load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.train.objectives.reconstruct import ReconstructObjective
from skipsr.train.recipes import Recipe, Stage
from skipsr.train.run import RunPaths, export
from skipsr.train.run import run as train
from skipsr.train.settings import TrainSettings

OPTIONS = '''
"""What the toy can be told."""

from dataclasses import dataclass

from skipsr.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    gain: float = 1.0
    """Brightness of the result, 0 to 4, beside `seed`."""

    def __post_init__(self):
        if not 0 <= self.gain <= 4:
            raise SettingsError(f"`gain` {self.gain:g} is outside 0 to 4")


OPTIONS = ToyOptions
'''

BACKBONE = '''
"""Nearest pixels, each colour times a learned gain."""

from dataclasses import dataclass

import torch
from torch import nn

from skipsr.backbones.contract import Backbone, Upscaled
from skipsr.backbones.toy.options import ToyOptions
from skipsr.clip import Clip
from skipsr.skipping.compute_map import ComputeMap
from skipsr.limits import Limits
from skipsr.weights.identify import FileKind
from skipsr.weights.load import inventory, load_strictly


@dataclass(frozen=True, kw_only=True)
class Config:
    colours: int = 3


class Toy(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.colour = nn.Parameter(torch.ones(config.colours))

    def part(self, name):
        return self

    def flows(self, frames):
        still = torch.zeros_like(frames[:, 1:, :2])
        return still, still

    def forward(self, frames):
        large = frames.repeat_interleave(4, 3).repeat_interleave(4, 4)
        return large * self.colour[:, None, None]


class ToyUpscaler:
    def __init__(self, name, model, options):
        self.name, self.model, self.limits = name, model, Limits()
        self.gain = options.gain
        self.asked, self.device, self.dtype = {}, "cpu", "float32"

    def upscale(self, clip, size, *, seed=0):
        colour = self.gain * self.model.colour.detach()
        frames = self.upsample(clip, size).frames * colour[:, None, None]
        return Upscaled(Clip(frames.clamp(0, 1), clip.start), self.compute_map(clip, size))

    def compute_map(self, clip, size):
        half = torch.zeros(len(clip), 1, 2)
        half[..., 0] = 1
        cell, count = (size[0], -(-size[1] // 2)), len(clip)
        return ComputeMap(fractions=half, cell_size=cell, units_run=count, units_total=2 * count)

    def upsample(self, clip, size):
        return Clip(nn.functional.interpolate(clip.frames, size), clip.start)


PRESETS = {"tiny": Config(), "one": Config()}


def kinds():
    yield FileKind("toy:one network", inventory(Toy(Config())))


def networks(preset, files):
    model = Toy(PRESETS[preset])
    load_strictly(model, files.network(f"toy:{preset}").tensors(), f"toy:{preset}")
    return model


def upscaler_for(name, skip, options):
    return lambda model: ToyUpscaler(name, model, options)


BACKBONE = Backbone(
    presets=PRESETS, bundled={}, limits=lambda *on: Limits(), build=Toy,
    training_input=lambda frames, size: frames, kinds=kinds, normalise=dict, networks=networks,
    optional=(), options=ToyOptions, upscaler=upscaler_for,
)
'''


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The family's folder is there, and a file of it whose red is halved."""
    folder = tmp_path / "families" / "toy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "options.py").write_text(OPTIONS)
    (folder / "backbone.py").write_text(BACKBONE)
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(folder.parent)])
    toy = backbones.get("toy")
    model = toy.build(toy.presets["one"])
    with torch.no_grad():
        model.colour[0] = 0.5
    yield export(model, tmp_path / "toy.safetensors", {})
    for name in ("toy", "toy.options", "toy.backbone"):
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


def test_it_has_an_option_of_its_own(weights: Path):
    clip, runtime = make_clip(2, 8, 8), RuntimeSettings(weights=weights, device="cpu")
    usual, half = (
        load_upscaler("toy:one", None, runtime, options).upscale(clip, (16, 16)).clip.frames
        for options in (None, {"gain": 0.5})
    )
    assert torch.equal(half, usual / 2)
    with pytest.raises(SettingsError, match=r"^`gain` 5 is outside 0 to 4"):
        load_upscaler("toy:one", None, runtime, {"gain": 5})
    with pytest.raises(SettingsError, match=r"^`steps` is not for toy:one: .* options are `gain`$"):
        load_upscaler("toy:one", None, runtime, {"steps": 2})


def test_it_goes_on_training(weights: Path, tmp_path: Path):
    """Its red, halved, comes back."""
    (tmp_path / "data").mkdir()
    Image.fromarray(make_frames(1, 64, 64)[0]).save(tmp_path / "data" / "a.png")
    settings = TrainSettings(
        model="toy:one", steps=20, batch=1, crop=32, frames=1, warmup=1, learning_rate=0.05
    )
    stage = Stage(name="fit", objective=ReconstructObjective(), settings=settings)
    paths = RunPaths(data=tmp_path / "data", out=tmp_path / "out", start=weights)
    assert isinstance(load_networks("toy:one", weights), Recurrent)
    trained = train(Recipe(stages=(stage,)), paths)
    (colour,) = load_networks("toy:one", trained).parameters()
    assert colour[0] > 0.7
    match = identify_file(trained)
    assert match is not None
    assert match.kind == "toy:one network"


def test_the_command_line_runs_it(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    Image.new("RGB", (12, 8), (200, 200, 200)).save(source)
    options = ["--weights", str(weights), "--device", "cpu", "--scale", "2"]

    def job(verb: str, *more: str) -> tuple[int, str]:
        code = run([verb, str(source), str(target), "--overwrite", *options, *more])
        told = capsys.readouterr()
        return code, told.err if code else told.out.splitlines()[-1]

    code, report = job("upscale", "--gain", "0.5")
    assert (code, json.loads(report)["model"]) == (0, "toy:one")
    assert Image.open(target).getpixel((5, 5)) == (50, 100, 100)  # its red is halved in the file
    code, report = job("mask", "--gain", "0.5")
    assert (code, json.loads(report)["skipped"]) == (0, 0.5)
    code, error = job("upscale", "--gain", "5")
    assert (code, "error: --gain 5 is outside 0 to 4" in error) == (1, True)
    code, error = job("upscale", "--steps", "2")
    assert (
        code,
        "error: --steps is not for toy:one: its family's options are --gain" in error,
    ) == (1, True)


def test_the_command_line_knows_its_option(
    weights: Path, small_video: Path, capsys: pytest.CaptureFixture[str]
):
    for verb in ("upscale", "mask", "eval run", "eval study"):
        with pytest.raises(SystemExit):
            run([*verb.split(), "--help"])
        told = " ".join(capsys.readouterr().out.replace("│", "").split())
        assert "--gain FLOAT For toy: Brightness of the result, 0 to 4, beside --seed." in told
    assert (
        run(["upscale", str(small_video), "b.mp4", "--model", "skipvsr:nano", "--gain", "2"]) == 1
    )
    error = capsys.readouterr().err
    assert "--gain is not for skipvsr:nano: its family's options are --skip, --patches" in error


def test_its_folder_may_be_anywhere(weights: Path, tmp_path: Path):
    """Every process that has it in the environment knows the family."""
    environment = {**os.environ, "SKIPSR_BACKBONES": os.pathsep.join(("nowhere", "families"))}

    def found(**more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "skipsr", "models", "identify", str(weights)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, **more)

    known = found(env=environment)
    assert (known.returncode, known.stderr) == (0, "")
    assert known.stdout == f"{weights}: toy:one network\n"
    assert found().returncode == 1


@pytest.mark.parametrize("taken", ["basicvsr", "wrapper", "toy"])
def test_a_family_whose_name_is_taken_is_refused(weights: Path, tmp_path: Path, taken: str):
    """As a copy of one that is there: that one would be run in its place."""
    copy = tmp_path / "mine" / taken
    copy.mkdir(parents=True)
    (copy / "__init__.py").touch()
    own = os.pathsep.join(("families", "mine"))
    command = [sys.executable, "-m", "skipsr", "models", "identify", str(weights)]
    environment = {**os.environ, "SKIPSR_BACKBONES": own}
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert told.returncode == 1
    assert told.stderr.endswith(
        f"error: {copy}, a folder in SKIPSR_BACKBONES, has a name that is taken: rename it\n"
    )
