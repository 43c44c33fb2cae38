"""MATLAB's bicubic resize: what holds for every picture; the numbers are in tests/parity."""

import pytest
import torch
from made_models import random

from skipsr.nn.resize import imresize


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.7, 1.5, 4.0])
def test_constants_stay(scale: float):
    out = imresize(torch.full((2, 9, 13), 0.3), scale)
    torch.testing.assert_close(out, torch.full_like(out, 0.3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("scale", "size"), [(0.5, (5, 4)), (0.25, (3, 2)), (2.0, (18, 14)), (1.5, (14, 11))]
)
def test_sizes_are_rounded_up(scale: float, size: tuple[int, int]):
    assert imresize(random(3, 9, 7), scale).shape == (3, *size)


def test_nothing_changes_at_scale_one():
    x = random(2, 3, 8, 9).double()
    torch.testing.assert_close(imresize(x, 1.0), x, atol=1e-12, rtol=0)


def test_rows_and_columns_are_treated_alike():
    x = random(17, 23)
    torch.testing.assert_close(imresize(x.T, 0.4), imresize(x, 0.4).T, atol=1e-6, rtol=0)


def test_ramps_are_kept_inside():
    ramp = torch.arange(64).double().expand(64, 64)
    places = (torch.arange(32) + 0.5) * 2 - 0.5  # half-pixel convention
    torch.testing.assert_close(imresize(ramp, 0.5)[8, 4:-4], places[4:-4].double())
    places = (torch.arange(128) + 0.5) / 2 - 0.5
    torch.testing.assert_close(imresize(ramp, 2.0)[8, 8:-8], places[8:-8].double())


def test_stripes_do_not_alias():
    stripes = torch.zeros(64, 64)
    stripes[:, ::2] = 1
    inner = imresize(stripes, 0.25)[:, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=1e-2, rtol=0)


def test_a_picture_smaller_than_the_kernel():
    out = imresize(torch.tensor([[0.2, 0.8]]), 0.25)
    assert out.shape == (1, 1)
    assert 0.2 < out.item() < 0.8


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_scales_are_refused(scale: float):
    with pytest.raises(ValueError, match="a scale is above 0"):
        imresize(torch.zeros(4, 4), scale)


def test_integers_are_refused():
    with pytest.raises(ValueError, match="floating point"):
        imresize(torch.zeros(4, 4, dtype=torch.uint8), 2.0)
