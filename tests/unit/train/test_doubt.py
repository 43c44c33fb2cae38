"""Training the predictor of doubt: targets, samples on disk, and a fit that learns."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from skipsr.backbones.contract import Upscaled
from skipsr.clip import Clip
from skipsr.data.clips import ClipDataset
from skipsr.data.footage import Footage
from skipsr.errors import SettingsError
from skipsr.nn.resize import resize_bicubic
from skipsr.skipping.compute_map import ComputeMap
from skipsr.strength import MODELS, load_doubt, spectrum_of
from skipsr.train import doubt, need
from skipsr.train.doubt import Samples
from skipsr.train.run import RunPaths, find_recipe, run_recipe

SETTINGS = dataclasses.replace(
    doubt.SETTINGS, crop=64, frames=2, steps=3, latents=5, degradation=Footage(compressed=0.0)
)


class HalfWay:
    """Adds half of what sets the truth off from the plain picture, which is grey."""

    def __init__(self, truth: Tensor) -> None:
        self.truth = truth

    def upsample(self, clip: Clip, size: tuple[int, int]) -> Clip:
        return Clip(torch.full((len(clip), 3, *size), 0.5))

    def upscale(self, clip: Clip, size: tuple[int, int]) -> Upscaled:
        frames = torch.lerp(resize_bicubic(clip.frames, size), self.truth, 2 / 3)
        computed = ComputeMap(
            fractions=torch.ones(1, 1, 1), cell_size=(1, 1), units_run=1, units_total=1
        )
        return Upscaled(Clip(frames), computed)


def dataset(data: Path) -> ClipDataset:
    return ClipDataset(data, crop=64, frames=2)


def test_doubt_is_what_is_wrong_by_what_was_added():
    high, low = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 8, 8)
    made = doubt.measure(HalfWay(high), high, low)  # pyright: ignore[reportArgumentType]
    seen, found = made.values()
    assert torch.equal(seen, spectrum_of(low))
    assert found.item() == pytest.approx(math.log(1 / 4), abs=1e-4)  # (1/3)^2 by (2/3)^2


def test_samples_are_the_same_however_they_were_collected(data: Path, tmp_path: Path):
    collection = dataclasses.replace(doubt.COLLECTION, shard=2)
    told: list[tuple[str, int]] = []
    collection.collect(
        dataset(data), SETTINGS, tmp_path / "a", report=lambda m, p: told.append((m, p.step))
    )
    assert told == [(model, done) for model in MODELS for done in (2, 4, 5)]
    first = {model: collection.read(SETTINGS, tmp_path / "a", model) for model in MODELS}
    (tmp_path / "a" / "skipvsr-nano-x2-100002.safetensors").unlink()
    collection.collect(dataset(data), SETTINGS, tmp_path / "a")
    for model, before in first.items():
        again = collection.read(SETTINGS, tmp_path / "a", model)
        assert before["spectra"].shape == (5, 106)
        assert torch.equal(again["spectra"], before["spectra"])
        assert torch.equal(again["doubts"], before["doubts"])
    assert not torch.equal(*(each["doubts"] for each in first.values()))


def made_samples(count: int, seed: int) -> Samples:
    """Noise whose blur, and nothing else, says what the doubt is."""
    generator = torch.Generator().manual_seed(seed)
    spectra, doubts = [], []
    for _ in range(count):
        noise = torch.rand(1, 3, 32, 32, generator=generator)
        soft = F.avg_pool2d(noise, 3, 1, 1)
        share = torch.rand((), generator=generator)
        spectra.append(spectrum_of(torch.lerp(noise, soft, share)))
        doubts.append(4 * share - 1)
    return Samples(torch.stack(spectra), torch.stack(doubts))


def test_a_fit_learns_that_blur_is_doubtful():
    settings = dataclasses.replace(SETTINGS, steps=200)
    both = [made_samples(64, 0), made_samples(64, 1)]
    both[1] = Samples(both[1].spectra, both[1].doubts + 1)
    predictor, unseen = doubt.fit(both, settings), made_samples(32, 2)
    found = predictor(unseen.spectra)
    for k in range(2):
        pair = torch.stack((found[:, k], unseen.doubts))
        assert torch.corrcoef(pair)[0, 1] > 0.9
    assert (found[:, 1] - found[:, 0]).mean().item() == pytest.approx(1, abs=0.3)
    again = doubt.fit(both, settings)
    assert torch.equal(again(unseen.spectra), found)


def test_the_recipe_leaves_weights_that_load(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doubt, "SETTINGS", SETTINGS)
    monkeypatch.setattr(need, "_HELD_OUT", 2)
    paths = RunPaths(data=data, out=tmp_path / "out")
    path = run_recipe("doubt", paths)
    assert load_doubt(path)(torch.rand(106)).shape == (len(MODELS),)
    found = json.loads((tmp_path / "out" / "doubt.json").read_text())
    assert found.keys() == set(MODELS)
    assert (tmp_path / "out" / "data.json").exists()
    with pytest.raises(SettingsError, match="already holds a run"):
        run_recipe("doubt", paths)
    before = load_file(path)
    run_recipe("doubt", paths, resume=True)
    assert all(torch.equal(load_file(path)[name], value) for name, value in before.items())
    with pytest.raises(SettingsError, match="has no stages"):
        find_recipe("doubt")
