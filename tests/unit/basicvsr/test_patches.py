"""Overlapping patches: where they lie and how they are weighed."""

import pytest
import torch
from made_models import random

from skipsr.backbones.basicvsr.patches import Patches


def test_the_patches_of_the_paper():
    """Of 320x180 frames: 48 pixels a side, 46 apart, the last ones moved back into the frame."""
    corners = Patches(180, 320).corners
    assert len(corners) == 28
    assert sorted({y for y, _ in corners}) == [0, 46, 92, 132]
    assert sorted({x for _, x in corners}) == [0, 46, 92, 138, 184, 230, 272]
    assert corners[:2] == [(0, 0), (0, 46)]


@pytest.mark.parametrize(("length", "starts"), [(48, [0]), (30, [0]), (49, [0, 1]), (94, [0, 46])])
def test_starts_along_an_axis(length: int, starts: list[int]):
    assert sorted({y for y, _ in Patches(length, 48).corners}) == starts


def test_a_frame_below_a_patch_is_extended_by_its_border():
    frames = random(1, 3, 5, 7)
    (patch,) = Patches(5, 7, side=8).split(frames)
    assert torch.equal(patch[..., :5, :7], frames)
    assert torch.equal(patch[..., 5:, :7], frames[..., 4:, :].expand(1, 3, 3, 7))
    assert torch.equal(patch[..., 7], patch[..., 6])


def test_the_mean_of_an_overlap():
    patches = Patches(4, 6, side=4)  # columns 2 and 3 lie in both
    values = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1).expand(2, 1, 1, 4, 4)
    assert patches.merge(values)[0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]
