"""Means of neighbourhoods."""

import pytest
import torch
import torch.nn.functional as F

from skipsr.nn.box import box_mean


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_they_are_those_of_pooling_over_repeated_borders(radius: int):
    frames = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    padded = F.pad(frames, (radius,) * 4, mode="replicate")
    expected = F.avg_pool2d(padded, 2 * radius + 1, 1)
    torch.testing.assert_close(box_mean(frames, radius), expected, atol=1e-6, rtol=0)


def test_layout_and_rank_do_not_matter():
    frames = torch.rand(2, 3, 4, 9, 14, generator=torch.Generator().manual_seed(0))
    other = frames.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    expected = torch.stack([box_mean(frame, 2) for frame in frames.flatten(0, 2)])
    assert torch.equal(box_mean(other, 2).flatten(0, 2), expected)
