"""The mask drawn over the frames."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skipsr.clip import Clip
from skipsr.pipeline.plan import plan_job
from skipsr.pipeline.preview import Oracle, draw_masks, tint
from skipsr.settings import JobSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.route import Route


def test_computed_cells_stay_as_they_are():
    clip = Clip(torch.rand(1, 3, 16, 32))
    drawn = tint(clip, ComputeMap.of_route(Route(torch.tensor([[[True, False]]])), 1))
    assert torch.equal(drawn.frames[..., :16], clip.frames[..., :16])
    assert (drawn.frames[..., 16:] != clip.frames[..., 16:]).any(1).all()


def test_the_tint_is_as_strong_as_the_skipping():
    """Places of 8 by 12 pixels that reach beyond a frame of 10 by 20."""
    share = torch.tensor([[[0.0, 0.25], [1.0, 0.75]]])
    clip = Clip(torch.full((1, 3, 10, 20), 0.3))
    drawn = tint(
        clip, ComputeMap(fractions=share, cell_size=(8, 12), units_run=5, units_total=10)
    ).frames
    change = drawn - clip.frames
    full = change[0, :, 0, 0]
    assert full.abs().min() > 0.05
    for rows, columns, skipped in (
        (slice(0, 8), slice(0, 12), 1),
        (slice(0, 8), slice(12, 20), 0.75),
        (slice(8, 10), slice(0, 12), 0),
        (slice(8, 10), slice(12, 20), 0.25),
    ):
        expected = (skipped * full)[:, None, None].expand_as(change[0, :, rows, columns])
        torch.testing.assert_close(change[0, :, rows, columns], expected)


def test_the_oracle_draws_odd_sizes_even_and_skips_what_is_flat(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    picture = np.full((61, 71, 3), 120, np.uint8)
    picture[:, :32] = np.random.default_rng(0).integers(0, 255, (61, 32, 3))
    for i in range(3):
        Image.fromarray(picture).save(folder / f"{i}.png")
    plan = plan_job(folder, tmp_path / "out.mp4", Oracle.limits, JobSettings(scale=1.0))
    report = draw_masks(plan, Oracle(), "oracle", lambda _: None)
    assert (report.frames, report.width, report.height) == (3, 72, 62)
    assert 0.3 < report.skipped < 0.7


def test_masks_of_a_transparent_image_are_opaque(tmp_path: Path):
    picture = np.zeros((32, 32, 4), np.uint8)
    Image.fromarray(picture).save(tmp_path / "in.png")
    plan = plan_job(tmp_path / "in.png", tmp_path / "out.png", Oracle.limits, JobSettings(scale=1))
    assert draw_masks(plan, Oracle(), "oracle", lambda _: None).skipped == 1
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.mode == "RGB"
