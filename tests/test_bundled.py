"""The files inside the package are what they should be, and the default model runs."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip

from skipsr import Clip, load_upscaler
from skipsr.backbones import family
from skipsr.catalog import list_models
from skipsr.loading import BUNDLED, find_model, identify_file
from skipsr.metrics.fidelity import psnr_y
from skipsr.nn.resize import resize_bicubic
from skipsr.settings import RuntimeSettings
from skipsr.video import open_source


def test_bundled_weights_are_recognised():
    for model in list_models():
        backbone, preset = family(model.name)
        assert model.bundled == (preset in backbone.bundled)
        if model.bundled:
            match = identify_file(backbone.bundled[preset])
            assert match is not None
            assert match.exact
            weights = RuntimeSettings(weights=backbone.bundled[preset], device="cpu")
            assert find_model(runtime=weights).name == model.name


def test_the_default_model_runs():
    upscaler = load_upscaler(runtime=RuntimeSettings(device="cpu", dtype="float32"))
    assert upscaler.name == BUNDLED
    clip = make_clip(2, 16, 16)
    result = upscaler.upscale(clip, (64, 64)).clip
    assert result.frames.shape == (2, 3, 64, 64)
    difference = (result.frames - upscaler.upsample(clip, (64, 64)).frames).abs().mean()
    assert torch.isfinite(difference)
    assert difference < 0.1


@pytest.mark.parametrize(("model", "gain"), [("skipvsr:nano", 1.8), ("seedvr2:nano", 0.8)])
def test_bundled_models_are_better_than_bicubic(model: str, gain: float):
    """The sample shrunk by four and enlarged again, by so many dB of luma; of frames of its own
    size, which are not too small for it, they skip as usual."""
    with open_source(Path(str(files("skipsr.assets"))) / "sample.mp4") as source:
        truth = next(source.clips(5, 0)).frames
    size = truth.shape[2], truth.shape[3]
    low = Clip(F.interpolate(truth, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1))
    runtime = RuntimeSettings(device="cpu", dtype="float32")
    upscaler = load_upscaler(model, runtime=runtime)
    found = upscaler.upscale(low, size)
    bicubic = resize_bicubic(low.frames, size)
    ours, plain = (psnr_y(frames, truth).mean().item() for frames in (found.clip.frames, bicubic))
    assert ours > plain + gain
    larger = 4 * size[0], 4 * size[1]
    assert 0.3 < upscaler.compute_map(Clip(truth), larger).fraction < 0.9
