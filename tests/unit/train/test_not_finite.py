"""A loss that is not finite ends a run, and keeps the last good state."""

import dataclasses
from pathlib import Path

import pytest
import torch
from made_models import make_frames
from PIL import Image

from skipsr.backbones import family
from skipsr.data.clips import ClipDataset
from skipsr.errors import TrainingError
from skipsr.train.batches import ClipSource
from skipsr.train.loop import train
from skipsr.train.recipes import RECIPES


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path):
    Image.fromarray(make_frames(1, 96, 96)[0]).save(tmp_path / "one.png")
    stage = RECIPES["nano-predictor"].stages[0].tiny()
    settings = dataclasses.replace(stage.settings, learning_rate=1e30, steps=4)
    backbone, preset = family(settings.model)
    torch.manual_seed(0)
    model = backbone.build(backbone.presets[preset])
    data = ClipDataset(tmp_path, crop=settings.crop, frames=settings.frames)
    source = ClipSource(data, settings, backbone.training_input)
    with pytest.raises(TrainingError, match="not finite"):
        train(model, stage.objective, settings, source, tmp_path / "out")
    state = torch.load(tmp_path / "out" / "state.pt", weights_only=True)
    assert 1 <= state["step"] < 4
