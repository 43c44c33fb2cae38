"""Training the need predictor: targets, samples on disk, and a fit that learns."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import repeat
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from skipsr.backbones.contract import Upscaled
from skipsr.clip import Clip
from skipsr.data.clips import ClipDataset
from skipsr.data.degrade import Degradation
from skipsr.errors import SettingsError, WeightsError
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.need import HEADS, NeedPredictor, load_need
from skipsr.skipping.oracle import patch_errors
from skipsr.train import need
from skipsr.train.need import Samples
from skipsr.train.run import RunPaths, find_recipe, run_recipe

SETTINGS = dataclasses.replace(
    need.SETTINGS, crop=64, frames=2, steps=3, batch=2, warmup=1, latents=5, log_every=1,
    degradation=Degradation(video=0.0),
)  # fmt: skip


class Brighter:
    """An upscaler that changes all values by a tenth, and remembers what it was given."""

    def __init__(self) -> None:
        self.read: list[Tensor] = []

    def upsample(self, clip: Clip, size: tuple[int, int]) -> Clip:
        return Clip(F.interpolate(clip.frames, size))

    def upscale(self, clip: Clip, size: tuple[int, int]) -> Upscaled:
        self.read.append(clip.frames)
        frames = self.upsample(clip, size).frames + 0.1
        computed = ComputeMap(
            fractions=torch.ones(1, 1, 1), cell_size=(1, 1), units_run=1, units_total=1
        )
        return Upscaled(Clip(frames), computed)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that were loaded, none of which is a real one."""
    names: list[str] = []

    def load(name: str, _skip: SkipSettings, _runtime: RuntimeSettings) -> Brighter:
        names.append(name)
        return Brighter()

    monkeypatch.setattr(need, "load_upscaler", load)
    monkeypatch.setattr(need, "_SHARD", 2)
    monkeypatch.setattr(need, "_HELD_OUT", 2)
    return names


def dataset(data: Path) -> ClipDataset:
    return ClipDataset(data, crop=64, frames=2)


def ripples(t: int, side: int) -> Tensor:
    """`t 3 h w`: fine stripes in the left half, next to nothing in the right one."""
    stripes = torch.arange(side) % 4 / 3 * (torch.arange(side) < side // 2)
    return repeat(stripes, "w -> t c h w", t=t, c=3, h=side)


# targets


def test_what_is_lost_is_at_least_what_the_oracle_says():
    high = ripples(1, 64)
    low = F.interpolate(high, scale_factor=1 / 4, mode="area")
    found = need.lost(high, low)
    assert found.shape == (1, 4, 4)
    oracle = patch_errors(high.transpose(0, 1)[None])[0]
    assert (found >= oracle.clamp(min=need.SMALLEST).log() - 1e-5).all()
    assert (found[:, :, :2] > math.log(1e-2)).all()
    torch.testing.assert_close(found[:, :, 3], torch.full((1, 4), math.log(need.SMALLEST)))


def test_a_damaged_base_counts_as_lost():
    high = torch.full((1, 3, 32, 32), 0.5)
    low = torch.full((1, 3, 8, 8), 0.5)
    low[..., 4:] = 0.6
    found = need.lost(high, low)
    assert found[0, :, 0].max() < math.log(1e-3)
    assert found[0, :, 1].min() > math.log(5e-3)


def test_what_a_model_changes():
    found = need.change(Brighter(), torch.rand(2, 3, 8, 12))  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.full((2, 2, 3), math.log(0.01)))
    twice = need.change(Brighter(), torch.rand(2, 3, 16, 24), 2)  # type: ignore[arg-type]
    torch.testing.assert_close(twice, found)


# samples


def test_samples_are_the_same_however_they_were_collected(
    data: Path, tmp_path: Path, loaded: list[str]
):
    told: list[str] = []
    need.collect(dataset(data), SETTINGS, tmp_path / "a", report=lambda what, _: told.append(what))
    assert loaded == list(HEADS[1:])
    assert told == [head for head in HEADS for _ in range(3)]
    first = need.read_samples(tmp_path / "a", SETTINGS)
    assert first.frames.shape == (10, 2, 3, 16, 16)  # at 4x, and again at 2x
    assert first.errors.shape == (10, 2, len(HEADS), 4, 4)
    for lost_file in ("skipvsr-nano-00001.safetensors", "frames-00002.safetensors"):
        (tmp_path / "a" / lost_file).unlink()
    need.collect(dataset(data), SETTINGS, tmp_path / "a")
    assert loaded == [*HEADS[1:], "skipvsr:nano"]  # of the others nothing was missing
    again = need.read_samples(tmp_path / "a", SETTINGS)
    assert torch.equal(first.frames, again.frames)
    torch.testing.assert_close(first.errors, again.errors, rtol=0, atol=0, equal_nan=True)
    high, low = need.draw_sample(dataset(data), SETTINGS, 3)
    assert torch.equal(first.frames[3].float() / 255, low)
    torch.testing.assert_close(first.errors[3, :, 0], need.lost(high, low), rtol=0, atol=0.01)


def test_for_twice_the_same_clips_are_shrunk_by_two_and_seen_as_means(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    used: dict[str, Brighter] = {}

    def load(name: str, _skip: SkipSettings, _runtime: RuntimeSettings) -> Brighter:
        return used.setdefault(name, Brighter())

    monkeypatch.setattr(need, "load_upscaler", load)
    need.collect(dataset(data), SETTINGS, tmp_path / "a")
    names = ("frames", "frames-x2", "lost", "skipvsr-nano", "seedvr2-nano", "skipvsr-nano-x2")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        f"{name}-00000.safetensors" for name in names
    }
    doubled = used["skipvsr:nano-x2"]
    samples = need.read_samples(tmp_path / "a", SETTINGS)
    for number in range(5):
        high, low = need.draw_sample(dataset(data), SETTINGS, number, 2)
        assert torch.equal(high, need.draw_sample(dataset(data), SETTINGS, number)[0])
        assert low.shape == (2, 3, 32, 32)
        assert torch.equal(doubled.read[number], low)
        seen = samples.frames[5 + number].float() / 255
        torch.testing.assert_close(seen, F.avg_pool2d(low, 2), rtol=0, atol=0.5001 / 255)


def test_what_is_not_of_a_sample_is_missing_from_it(data: Path, tmp_path: Path, loaded: list[str]):
    need.collect(dataset(data), SETTINGS, tmp_path / "a")
    missing = need.read_samples(tmp_path / "a", SETTINGS).errors.isnan()
    own = torch.tensor([head.endswith("x2") for head in HEADS])
    assert loaded[-1] == "skipvsr:nano-x2"
    for samples, there in ((missing[:5], ~own), (missing[5:], own)):
        assert torch.equal(samples, ~there[:, None, None].expand_as(samples))


def test_samples_from_before_a_head_are_kept(data: Path, tmp_path: Path, loaded: list[str]):
    need.collect(dataset(data), SETTINGS, tmp_path / "a")
    for path in (tmp_path / "a").glob("*x2*"):
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    del loaded[:]
    need.collect(dataset(data), SETTINGS, tmp_path / "a")
    assert loaded == ["skipvsr:nano-x2"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((tmp_path / "a").glob("*x2*"))) == 6


def test_a_clip_is_held_out_at_every_scale(
    data: Path, tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Five clips of two scales: the places alternate, the numbers do not."""
    fitted: list[Samples] = []

    def fit(samples: Samples, *_rest: object, **_more: object) -> NeedPredictor:
        fitted.append(samples)
        return NeedPredictor()

    monkeypatch.setattr(need, "fit", fit)
    need.train(dataset(data), SETTINGS, tmp_path)
    every = need.read_samples(tmp_path / "samples", SETTINGS)
    assert loaded == list(HEADS[1:])
    kept = [0, 2, 4, 5, 7, 9]
    assert torch.equal(fitted[0].frames, every.frames[kept])


# fit


def made_samples(count: int, seed: int) -> Samples:
    """Noise whose contrast, and nothing else, says what the error is; differently for each head."""
    generator = torch.Generator().manual_seed(seed)
    level = -8 * torch.rand((count, 1, 4, 4), generator=generator) - 3  # ln of the variance
    level[::2] = level[::2, :, :1, :1]  # half of the frames are alike all over
    shade = repeat(level, "n t h w -> n t 1 (h p) (w q)", p=4, q=4).div(2).exp()
    frames = 0.5 + shade * torch.randn((count, 1, 3, 16, 16), generator=generator)
    errors = torch.stack([level - 4 + k for k in range(len(HEADS))], 2)
    return Samples(frames.clamp(0, 1).mul(255).round().byte(), errors)


def loss(predictor: NeedPredictor, samples: Samples) -> float:
    taus = torch.logspace(-6, -2, 9)
    found = predictor(samples.frames[:, 0].float() / 255)
    return need.cross_entropy(found, samples.errors[:, 0], taus).item()


def test_complete_samples_count_in_full():
    samples, taus = made_samples(4, 0), torch.logspace(-6, -2, 9)
    errors = samples.errors[:, 0]
    found = need.Need(errors + 0.5, torch.full_like(errors, 2))
    asked = taus.log()[:, None, None, None, None]
    expected = F.binary_cross_entropy_with_logits(
        (found.mean - asked) / found.spread, (errors > asked).float()
    )
    torch.testing.assert_close(need.cross_entropy(found, errors, taus), expected)


def test_errors_that_are_missing_teach_nothing():
    errors, taus = made_samples(4, 0).errors[:, 0], torch.logspace(-6, -2, 9)
    mean = (errors + 0.5).requires_grad_()
    spread = torch.full_like(errors, 2)
    errors[:3, -1], errors[3, :-1] = torch.nan, torch.nan
    there = ~errors.isnan()
    found = need.cross_entropy(need.Need(mean, spread), errors, taus)
    parts = [
        need.cross_entropy(need.Need(mean[n, k], spread[n, k]), errors[n, k], taus)
        for n, k in ((slice(3), slice(-1)), (slice(3, None), slice(-1, None)))
    ]
    weight = 3 * (len(HEADS) - 1)
    torch.testing.assert_close(found, (weight * parts[0] + parts[1]) / (weight + 1))
    found.backward()
    assert mean.grad is not None
    assert (mean.grad[~there] == 0).all()
    assert (mean.grad[there] != 0).any()


def test_a_fit_learns_that_contrast_needs_a_model():
    settings = dataclasses.replace(SETTINGS, steps=150, batch=16, warmup=5, ema=0.9)
    predictor, unseen = need.fit(made_samples(64, 0), settings), made_samples(32, 1)
    torch.manual_seed(0)
    assert loss(predictor, unseen) < 0.6 * loss(NeedPredictor(), unseen)
    found = predictor(unseen.frames[:, 0].float() / 255)
    both = torch.stack((found.mean.flatten(), unseen.errors[:, 0].flatten()))
    assert torch.corrcoef(both)[0, 1] > 0.9
    ahead = found.mean.diff(dim=1).mean().item()  # heads differ by one
    assert ahead == pytest.approx(1, abs=0.3)
    for shares in need.measure(predictor, unseen).values():
        for share in shares.values():
            assert 0.6 * share.oracle < share.predicted <= share.oracle
    again = need.fit(made_samples(64, 0), dataclasses.replace(settings, steps=3))
    other = need.fit(made_samples(64, 0), dataclasses.replace(settings, steps=3))
    assert torch.equal(again.layers[0].weight, other.layers[0].weight)


def test_shares_of_a_predictor_that_knows_and_of_one_that_guesses():
    class Knows(NeedPredictor):
        def forward(self, frames: Tensor) -> need.Need:
            mean = samples.errors[int(frames[0, 0, 0, 0] * 255)] * sign
            return need.Need(mean, torch.ones_like(mean))

    samples = made_samples(8, 0)
    samples.frames[:, :, 0, 0, 0] = torch.arange(8)[:, None]
    sign = 1
    for shares in need.measure(Knows(), samples).values():
        for share in shares.values():
            assert share.predicted == pytest.approx(share.oracle)
    sign = -1
    for shares in need.measure(Knows(), samples).values():
        for share in shares.values():
            assert share.predicted < 0.5 * share.oracle


def test_shares_are_of_the_samples_that_have_the_head():
    whole = made_samples(8, 0)
    partly = Samples(whole.frames, whole.errors.clone())
    partly.errors[:4, :, -1], partly.errors[4:, :, :-1] = torch.nan, torch.nan
    torch.manual_seed(0)
    predictor = NeedPredictor()
    found = need.measure(predictor, partly)
    last, first = slice(4, None), slice(4)
    for head in HEADS:
        part = last if head == HEADS[-1] else first
        alone = need.measure(predictor, Samples(whole.frames[part], whole.errors[part]))
        assert found[head] == alone[head]


# the recipe


def test_the_recipe_leaves_weights_that_load(
    data: Path, tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
):
    paths, told = RunPaths(data=data, out=tmp_path / "out"), []
    monkeypatch.setattr(need, "SETTINGS", SETTINGS)
    path = run_recipe("need", paths, report=lambda what, _: told.append(what))
    assert told == [head for head in HEADS for _ in range(3)] + ["fit"] * 3
    assert load_need(path)(torch.rand(1, 3, 8, 8)).mean.shape == (1, len(HEADS), 2, 2)
    shares = json.loads((tmp_path / "out" / "need.json").read_text())
    assert shares.keys() == set(HEADS)
    assert (tmp_path / "out" / "data.json").exists()
    with pytest.raises(SettingsError, match="already holds a run"):
        run_recipe("need", paths)
    before = load_file(path)
    run_recipe("need", paths, resume=True)
    again = load_file(path)
    assert all(torch.equal(again[name], value) for name, value in before.items())
    assert len(loaded) == len(HEADS) - 1  # the samples were kept
    for image in data.iterdir():
        shape = np.asarray(Image.open(image)).shape
        Image.fromarray(np.full(shape, 77, np.uint8)).save(image)
    with pytest.raises(SettingsError, match="samples holds samples of other data or settings"):
        run_recipe("need", paths, resume=True)


def refused(act: Callable[[], object], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        act()


def test_what_the_recipe_refuses(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = RunPaths(data=data, out=tmp_path / "out")
    begun = dataclasses.replace(paths, start=data)
    refused(lambda: run_recipe("need", begun), SettingsError, "begins from nothing")
    refused(lambda: run_recipe("need", paths, resume=True), WeightsError, "no run to resume")
    refused(lambda: find_recipe("need"), SettingsError, "no stages to plan")
    refused(
        lambda: find_recipe("neet"),
        SettingsError,
        "unknown recipe 'neet'.*, need, doubt, or FILE.py:NAME",
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(lambda: run_recipe("need", paths), SettingsError, "by one process: .* without torchrun")
    assert not paths.out.exists()
