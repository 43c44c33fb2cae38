"""Training the light upsamplers: targets, samples on disk, and a fit that learns."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from skipsr.backbones.contract import Upscaled
from skipsr.clip import Clip
from skipsr.data.clips import ClipDataset
from skipsr.data.degrade import Degradation
from skipsr.nn.resize import resize_bicubic
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.light import FOLDS, load_light
from skipsr.train import light, need
from skipsr.train.light import Samples
from skipsr.train.run import RunPaths, run_recipe

SETTINGS = dataclasses.replace(
    light.SETTINGS, crop=64, frames=4, steps=3, latents=5, degradation=Degradation(clean=1.0)
)


def dataset(data: Path) -> ClipDataset:
    return ClipDataset(data, crop=64, frames=4)


class Adds:
    """Adds the given planes to bicubic frames."""

    def __init__(self, planes: Tensor) -> None:
        self.planes = planes

    def upscale(self, clip: Clip, size: tuple[int, int]) -> Upscaled:
        frames = resize_bicubic(clip.frames, size) + F.pixel_shuffle(self.planes, 4)
        computed = ComputeMap(
            fractions=torch.ones(1, 1, 1), cell_size=(1, 1), units_run=1, units_total=1
        )
        return Upscaled(Clip(frames), computed)


@pytest.mark.parametrize("scale", [4, 2])
def test_targets_are_what_is_added_to_every_other_frame(scale: int):
    side, planes = 8 * 4 // scale, torch.rand(4, 48, 8, 8)
    low = torch.rand(4, 3, side, side).mul(255).round() / 255
    high = torch.empty(4, 3, 32, 32)  # whose size alone is asked for
    made = light.measure(Adds(planes), high, low)  # pyright: ignore[reportArgumentType]
    frames, added = made.values()
    assert torch.equal(frames, F.pixel_unshuffle(low[1::2], 4 // scale).mul(255).round().byte())
    torch.testing.assert_close(added.float(), planes[1::2], atol=1e-3, rtol=0)


def test_samples_are_the_same_however_they_were_collected(data: Path, tmp_path: Path):
    collection = dataclasses.replace(light.COLLECTION, shard=2)
    told: list[tuple[str, int]] = []
    collection.collect(
        dataset(data), SETTINGS, tmp_path / "a", report=lambda m, p: told.append((m, p.step))
    )
    assert told == [(model, done) for model in FOLDS for done in (2, 4, 5)]
    first = {model: collection.read(SETTINGS, tmp_path / "a", model) for model in FOLDS}
    (tmp_path / "a" / "skipvsr-nano-x2-200002.safetensors").unlink()
    collection.collect(dataset(data), SETTINGS, tmp_path / "a")
    for model, before in first.items():
        again = collection.read(SETTINGS, tmp_path / "a", model)
        assert before["frames"].flatten(0, 1).shape == (10, 3 * FOLDS[model] ** 2, 16, 16)
        assert before["added"].flatten(0, 1).shape == (10, 48, 16, 16)
        assert torch.equal(again["frames"], before["frames"])
        assert torch.equal(again["added"], before["added"])


@pytest.mark.parametrize("fold", FOLDS.values())
def test_a_fit_learns_what_is_added(fold: int):
    """To soft noise, what makes it brighter: the same however it is turned."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(24, 3, 8, 8, generator=generator)
    frames = F.interpolate(frames, 16 * fold, mode="bilinear")
    gone = F.interpolate(0.3 * (frames - 0.5), scale_factor=4 // fold)
    samples = Samples(
        F.pixel_unshuffle(frames, fold).mul(255).round().byte(), F.pixel_unshuffle(gone, 4).half()
    )
    settings = dataclasses.replace(SETTINGS, steps=100, warmup=5, ema=0.9, learning_rate=1e-2)
    found = light.fit(samples, settings, 1e-4)
    guessed = found(samples.frames / 255)
    before, after = samples.added.float(), guessed - samples.added.float()
    assert after.square().mean() < 0.5 * before.square().mean()
    assert torch.equal(light.fit(samples, settings, 1e-4)(samples.frames / 255), guessed)
    tau = before.square().mean().item() / 2
    served = light.served_by(found, samples, tau)
    assert served.light > served.bicubic


def test_the_recipe_leaves_weights_that_load(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(light, "SETTINGS", SETTINGS)
    monkeypatch.setattr(need, "_HELD_OUT", 2)
    paths = RunPaths(data=data, out=tmp_path / "out")
    path = run_recipe("light", paths)
    for model, fold in FOLDS.items():
        found = load_light(model, path)
        assert found is not None
        assert found(torch.rand(1, 3 * fold**2, 8, 8)).shape == (1, 48, 8, 8)
    assert json.loads((tmp_path / "out" / "light.json").read_text()).keys() == set(FOLDS)
    before = load_file(path)
    run_recipe("light", paths, resume=True)
    assert all(torch.equal(load_file(path)[name], value) for name, value in before.items())
