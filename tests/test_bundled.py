"""The files inside the package are what they should be, and the default model runs."""

import torch
from made_models import make_clip

from skipsr import load_upscaler
from skipsr.backbones import family
from skipsr.loading import BUNDLED, find_model, identify_file, list_models
from skipsr.settings import RuntimeSettings


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
    difference = (result.frames - upscaler.enlarge(clip, (64, 64)).frames).abs().mean()
    assert torch.isfinite(difference)
    assert difference < 0.1
