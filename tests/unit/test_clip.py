"""Clips: integers in and out, rounded and clamped."""

import numpy as np
import pytest
import torch

from skipsr.clip import Clip
from skipsr.errors import MediaError


def test_integers_come_back():
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        top = np.iinfo(dtype).max
        array = np.random.default_rng(0).integers(0, top, (2, 3, 5, 3), dtype, endpoint=True)
        clip = Clip.from_array(array, start=7)
        assert clip.start == 7
        assert (len(clip), clip.size) == (2, (3, 5))
        assert np.array_equal(clip.to_array(bits), array)
        assert torch.equal(clip.frames[1, 2], torch.from_numpy(array[1, ..., 2] / np.float32(top)))


def test_all_8_bit_values_come_back():
    array = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert np.array_equal(Clip.from_array(array).to_array(), array)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.int8])
def test_other_numbers_are_refused(dtype: type):
    """What NumPy makes by default would be black."""
    with pytest.raises(ValueError, match="uint8 or uint16, not"):
        Clip.from_array(np.full((1, 8, 8, 3), 100, dtype))


@pytest.mark.parametrize(
    ("value", "byte"),
    [
        (-0.5, 0),
        (1.7, 255),
        (100.4 / 255, 100),
        (100.6 / 255, 101),
        (254.6 / 255, 255),
        (0.4 / 255, 0),
    ],
)
def test_rounded_not_truncated_and_clamped(value, byte):
    clip = Clip(torch.full((1, 3, 1, 1), value))
    assert clip.to_array().tolist() == [[[[byte] * 3]]]
    assert clip.frames[0, 0, 0, 0] == pytest.approx(value)  # unchanged itself


def test_depths():
    clip = Clip(torch.full((1, 3, 1, 1), 0.5))
    assert clip.to_array(8).dtype == np.uint8
    for bits in (10, 12, 16):
        assert clip.to_array(bits).dtype == np.uint16
        assert clip.to_array(bits)[0, 0, 0, 0] == 32768


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(3, 4, 4),
        torch.zeros(1, 4, 4, 4),
        torch.zeros(0, 3, 4, 4),
        torch.zeros(1, 3, 0, 4),
        torch.zeros(1, 3, 4, 4, dtype=torch.float64),
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
    ],
)
def test_other_tensors_are_refused(frames):
    with pytest.raises(ValueError, match="a clip is"):
        Clip(frames)


def test_what_is_no_number_is_not_black():
    frames = torch.rand(3, 3, 4, 5)
    frames[1, 0, 2, 2] = torch.nan
    with pytest.raises(MediaError, match=r"from 7 on some are no numbers \(NaN\).*`dtype` float32"):
        Clip(frames, 7).to_array()
    assert Clip(frames[:1]).to_array().shape == (1, 4, 5, 3)
