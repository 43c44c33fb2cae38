"""The mask drawn over the frames."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skipsr.clip import Clip
from skipsr.pipeline.preview import Oracle, draw_masks, frame_mask, tint
from skipsr.settings import JobSettings
from skipsr.skipping.route import Route


def test_the_first_layer_of_cells_covers_one_frame_the_others_four():
    cells = torch.zeros(2, 1, 2, dtype=torch.bool)
    cells[0, 0, 0] = cells[1, 0, 1] = True
    mask = frame_mask(cells)
    assert mask.shape == (5, 16, 32)
    assert mask[0, :, :16].all()
    assert not mask[0, :, 16:].any()
    assert mask[1:, :, 16:].all()
    assert not mask[1:, :, :16].any()


def test_computed_cells_stay_as_they_are():
    clip = Clip(torch.rand(1, 3, 16, 32))
    drawn = tint(clip, Route(torch.tensor([[[True, False]]])))
    assert torch.equal(drawn.frames[..., :16], clip.frames[..., :16])
    assert (drawn.frames[..., 16:] != clip.frames[..., 16:]).any(1).all()


def test_the_oracle_draws_odd_sizes_even_and_skips_what_is_flat(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    picture = np.full((61, 71, 3), 120, np.uint8)
    picture[:, :32] = np.random.default_rng(0).integers(0, 255, (61, 32, 3))
    for i in range(3):
        Image.fromarray(picture).save(folder / f"{i}.png")
    report = draw_masks(
        folder,
        tmp_path / "out.mp4",
        Oracle(),
        "oracle",
        JobSettings(scale=1.0),
        lambda _: None,
    )
    assert (report.frames, report.width, report.height) == (3, 72, 62)
    assert 0.3 < report.skipped < 0.7
