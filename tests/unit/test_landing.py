"""Frames that come piece by piece lie in their places."""

import pytest
import torch

from skipsr.nn.landing import land
from skipsr.nn.pieces import in_pieces


def test_pieces_land_in_their_places():
    frames, result = torch.rand(7, 3, 6, 10), torch.full((7, 3, 4, 8), torch.nan)
    land(frames[:, :, 1:5, 1:9].split([3, 1, 3]), result)
    assert torch.equal(result, frames[:, :, 1:5, 1:9])


@pytest.mark.parametrize(
    ("a", "b", "pieces"),
    [
        (torch.zeros(5, 8), torch.zeros(5, 8), 2),
        (torch.zeros(5, 16).bfloat16(), torch.zeros(5, 16).bfloat16(), 2),
        (torch.zeros(5, 12)[:, 4:], torch.zeros(5, 8), 2),
        (torch.zeros(5, 12)[:, 2:10], torch.zeros(5, 8), None),  # begins within one
        (torch.zeros(5, 9)[:, :8], torch.zeros(5, 8), None),  # rows do
        (torch.zeros(5, 6), torch.zeros(5, 6), None),
        (torch.zeros(8, 5).T, torch.zeros(5, 8), None),
        (torch.zeros(5, 8), torch.zeros(5, 8).half(), None),
    ],
)
def test_pieces_of_16_bytes_where_memory_allows(
    a: torch.Tensor, b: torch.Tensor, pieces: int | None
):
    seen = in_pieces(a, b)
    if pieces is None:
        assert seen[0] is a
        assert seen[1] is b
    else:
        assert seen[0].shape == seen[1].shape == (5, pieces)
        assert seen[0].data_ptr() == a.data_ptr()
