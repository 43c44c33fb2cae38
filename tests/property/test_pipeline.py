"""Windows change nothing where no seam is, and a seed repeats bit for bit."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_models import TINY, make_clip, make_frames, make_model
from PIL import Image

from skipsr.backbones.contract import Upscaler
from skipsr.backbones.seedvr2.config import Sampling
from skipsr.backbones.seedvr2.sampler import frame_noise, noise_places
from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.pipeline.job import upscale_video
from skipsr.settings import JobSettings, SkipSettings
from skipsr.video import open_source

COUNT, HEIGHT, WIDTH = 14, 20, 27
SIZE = (40, 54)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for i, frame in enumerate(make_frames(COUNT, HEIGHT, WIDTH)):
        Image.fromarray(frame).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def upscaler(tiny_model) -> SeedVR2Upscaler:
    """Skips about half of the tokens."""
    upscaler = TokenSkippingUpscaler("seedvr2:tiny", tiny_model, SkipSettings())
    clip = make_clip(COUNT, HEIGHT, WIDTH)
    scores = tiny_model.predictor(tiny_model.encode(upscaler._frames(clip, SIZE, None))).sigmoid()
    threshold = scores.median().item()
    return TokenSkippingUpscaler("seedvr2:tiny", tiny_model, SkipSettings(threshold=threshold))


def read(path: Path) -> np.ndarray:
    with open_source(path) as reader:
        return np.concatenate([clip.to_array(reader.info.bits) for clip in reader.clips(5, 0)])


def windowed(source: Path, target: Path, upscaler: Upscaler, **settings: int) -> np.ndarray:
    codec = "ffv1" if target.suffix else "h264"
    job = JobSettings(scale=2, codec=codec, **settings)  # type: ignore[arg-type]
    report = upscale_video(source, target, upscaler, job)
    assert (report.frames, report.height, report.width) == (COUNT, *SIZE)
    return read(target)


def directly(upscaler: Upscaler, start: int, end: int, seed: int = 0) -> Clip:
    frames = make_clip(COUNT, HEIGHT, WIDTH).frames[start:end]
    return upscaler.upscale(Clip(frames, start), SIZE, seed=seed).clip


@pytest.mark.parametrize("name", ["out.mkv", "out"])
def test_one_window_is_the_upscaler_itself(source, upscaler, tmp_path, name):
    ours = windowed(source, tmp_path / name, upscaler, window=COUNT + 3, overlap=2)
    assert np.array_equal(ours, directly(upscaler, 0, COUNT).to_array())


def test_windows_are_the_upscaler_cross_faded(source, upscaler, tmp_path):
    """Three windows of 9 that share 4: each part from its own window, seams from both."""
    ours = windowed(source, tmp_path / "out", upscaler, window=9, overlap=4)
    first, second = directly(upscaler, 0, 9), directly(upscaler, 5, 14)
    assert np.array_equal(ours[:5], first.to_array()[:5])
    assert np.array_equal(ours[9:], second.to_array()[4:])
    weight = torch.tensor([1, 2, 3, 4]).reshape(4, 1, 1, 1) / 5
    blend = first.frames[5:] * (1 - weight) + second.frames[:4] * weight
    difference = ours[5:9].astype(int) - Clip(blend).to_array().astype(int)
    assert abs(difference).max() <= 1
    assert not np.array_equal(first.to_array()[5:], second.to_array()[:4])


def test_frames_before_the_first_seam_are_the_first_window(source, upscaler, tmp_path):
    ours = windowed(source, tmp_path / "out", upscaler, window=5, overlap=1)
    assert np.array_equal(ours[:4], directly(upscaler, 0, 5).to_array()[:4])


def test_a_seed_repeats_and_another_differs(source, upscaler, tmp_path):
    a, b, c = (
        windowed(source, tmp_path / name, upscaler, window=9, overlap=1, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert torch.equal(directly(upscaler, 0, 5, 3).frames, directly(upscaler, 0, 5, 3).frames)


def test_the_report_counts_tokens(source, upscaler, tmp_path):
    report = upscale_video(
        source, tmp_path / "out", upscaler, JobSettings(scale=2, window=9, overlap=1)
    )
    frames = make_clip(COUNT, HEIGHT, WIDTH).frames
    maps = [upscaler.compute_map(Clip(frames[a:b], a), SIZE) for a, b in ((0, 9), (8, 14))]
    kept, cells = (sum(n) for n in zip(*((w.units_run, w.units_total) for w in maps), strict=True))
    assert 0 < kept < cells
    assert cells == 2 * 3 * 3 * 4  # two windows of three layers of 48x64 pixels
    assert report.computed == pytest.approx(kept / cells)
    assert list(report.seconds) == [
        "read", "encode", "predict", "denoise", "decode", "write", "total",
    ]  # fmt: skip
    seconds = report.seconds
    assert min(seconds["read"], seconds["write"]) > 0  # beside the others
    beside = sum(s for k, s in seconds.items() if k not in ("read", "write", "total"))
    assert seconds["total"] >= max(beside, seconds["read"], seconds["write"])


def test_neighbouring_windows_start_from_the_same_noise():
    like = torch.zeros(4, 3, 5, 2)
    ahead, behind = noise_places(range(13), 4), noise_places(range(8, 21), 4)
    assert (ahead, behind) == ([0, 1, 2, 3], [2, 3, 4, 5])
    first, second = frame_noise(like, ahead, 7, stream=0), frame_noise(like, behind, 7, stream=0)
    assert torch.equal(first[2:], second[:2])
    drawn = [
        first,
        second[2:],
        frame_noise(like, ahead, 8, stream=0),
        frame_noise(like, ahead, 7, stream=1),
    ]
    frames = torch.cat(drawn).flatten(1)
    matches = (frames[:, None] == frames[None]).all(-1)
    assert torch.equal(matches, torch.eye(len(frames), dtype=torch.bool))
    assert abs(frames.mean()) < 0.2
    assert frames.std() == pytest.approx(1, abs=0.2)


def test_noise_belongs_to_frames_of_the_source_where_some_repeat():
    """Of every frame twice, windows 16 apart; and where a latent is of padding alone."""
    assert noise_places(range(0, 34, 2), 5) == [0, 2, 4, 6, 8]
    assert noise_places(range(16, 50, 2), 5) == [4, 6, 8, 10, 12]
    assert noise_places(range(6), 3) == [0, 1, 2]


def test_nothing_kept_shows_the_decoded_base(tiny_model):
    """At the highest threshold the transformer is left out, whatever the seed."""
    upscaler = TokenSkippingUpscaler("seedvr2:tiny", tiny_model, SkipSettings(threshold=1))
    clip = make_clip(5, HEIGHT, WIDTH)
    results = [upscaler.upscale(clip, SIZE, seed=seed) for seed in (0, 1)]
    assert results[0].computed == 0
    assert torch.equal(results[0].clip.frames, results[1].clip.frames)


@pytest.mark.parametrize("budget", [0.01, 0.3, 1.0])
def test_a_budget_is_kept_in_every_window(tiny_model, budget: float):
    upscaler = TokenSkippingUpscaler("seedvr2:tiny", tiny_model, SkipSettings(budget=budget))
    clip = make_clip(5, HEIGHT, WIDTH)
    result = upscaler.upscale(clip, SIZE)
    assert result.compute_map.units_total == 2 * 3 * 4
    assert result.compute_map.units_run == math.ceil(budget * 24)
    scores = tiny_model.predictor(tiny_model.encode(upscaler._frames(clip, SIZE, None))).flatten()
    lowest = scores.sort(descending=True).values[result.compute_map.units_run - 1].item()
    threshold = torch.tensor(lowest).sigmoid().item() - 1e-6
    same = TokenSkippingUpscaler("seedvr2:tiny", tiny_model, SkipSettings(threshold=threshold))
    assert torch.equal(same.compute_map(clip, SIZE).fractions, result.compute_map.fractions)


def test_a_budget_needs_a_predictor():
    model = make_model()
    model.predictor = None
    with pytest.raises(SettingsError, match="no mask predictor here: leave out `budget`"):
        TokenSkippingUpscaler("seedvr2:tiny", model, SkipSettings(budget=0.5))


def test_a_decoder_without_correction_gives_the_plainly_enlarged_clip():
    """Without a correction from the decoder the whole path must be exact."""
    model = make_model()
    with torch.no_grad():
        for layer in (model.vae.decoder.conv_out, model.vae.decoder.patch_out.proj):
            layer.weight.zero_()
            layer.bias.zero_()
    upscaler = TokenSkippingUpscaler("seedvr2:tiny", model, SkipSettings(dense=True))
    clip = make_clip(6, HEIGHT, WIDTH)
    out = upscaler.upscale(clip, SIZE).clip.frames
    torch.testing.assert_close(out, upscaler.upsample(clip, SIZE).frames, atol=1e-6, rtol=0)


def test_noise_on_the_condition_comes_from_the_seed():
    config = replace(TINY, sampling=Sampling(steps=2, condition_noise=0.1))
    upscaler = TokenSkippingUpscaler("seedvr2:tiny", make_model(config), SkipSettings(dense=True))
    clip = make_clip(5, HEIGHT, WIDTH)
    a, b, c = (upscaler.upscale(clip, SIZE, seed=s).clip.frames for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
