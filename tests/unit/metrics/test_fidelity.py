"""PSNR and SSIM: known values, and what must hold for every pair; see tests/parity for more."""

import math
from collections.abc import Callable

import pytest
import torch
from made_models import make_clip, random

from skipsr.metrics import METRICS, MetricError
from skipsr.metrics.fidelity import CAP, luma, psnr_rgb, psnr_y, ssim_rgb, ssim_y

EVERY = [psnr_rgb, psnr_y, ssim_rgb, ssim_y]


def test_one_level_everywhere():
    truth = torch.full((2, 3, 16, 16), 100 / 255)
    frames = truth.clone()
    frames[1] += 1 / 255
    expected = torch.tensor([CAP, 20 * math.log10(255)]).double()
    torch.testing.assert_close(psnr_rgb(frames, truth), expected)
    shift = (65.481 + 128.553 + 24.966) / 255  # of luma, for one level of each channel
    expected[1] = 20 * math.log10(255 / shift)
    torch.testing.assert_close(psnr_y(frames, truth), expected, atol=1e-4, rtol=0)


def test_luma_of_black_white_and_colours():
    pixels = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]).float()
    found = luma(pixels[:, :, None, None]).flatten()
    torch.testing.assert_close(found, torch.tensor([16, 235, 81.481, 40.966]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("measure", EVERY)
def test_identical_frames_are_perfect(measure: Callable[..., torch.Tensor]):
    clip = make_clip(2, 20, 24).frames
    best = CAP if "psnr" in measure.__name__ else 1.0
    assert measure(clip, clip).tolist() == pytest.approx([best, best])


@pytest.mark.parametrize("measure", EVERY)
def test_more_noise_is_worse(measure: Callable[..., torch.Tensor]):
    truth, noise = make_clip(1, 32, 32).frames, random(1, 3, 32, 32)
    values = [measure(truth + s * noise, truth).item() for s in (0.01, 0.03, 0.1, 0.3)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


@pytest.mark.parametrize("measure", EVERY)
def test_frames_are_measured_one_by_one(measure: Callable[..., torch.Tensor]):
    clip, truth = make_clip(3, 16, 16).frames, make_clip(3, 16, 16, seed=1).frames
    together = measure(clip, truth)
    apart = torch.cat([measure(clip[i : i + 1], truth[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("measure", EVERY)
def test_the_border_is_left_out(measure: Callable[..., torch.Tensor]):
    truth = make_clip(1, 24, 24).frames
    spoilt = 1 - truth
    spoilt[..., 4:-4, 4:-4] = truth[..., 4:-4, 4:-4]
    assert measure(spoilt, truth, border=4).item() == measure(truth, truth).item()
    assert measure(spoilt, truth, border=3).item() < measure(truth, truth).item()


def test_less_than_half_a_level_is_nothing():
    truth = make_clip(1, 16, 16).frames
    assert psnr_rgb(truth + 0.4 / 255, truth).item() == CAP
    assert psnr_rgb(truth - 0.6 / 255, truth).item() < CAP


def test_the_table_gives_means():
    clip, truth = make_clip(3, 16, 16).frames, make_clip(3, 16, 16, seed=1).frames
    found = METRICS["fidelity"].measure(clip, truth)
    assert found["psnr_y"] == pytest.approx(psnr_y(clip, truth).mean().item())
    assert found["ssim_rgb"] == pytest.approx(ssim_rgb(clip, truth).mean().item())


@pytest.mark.parametrize("measure", EVERY)
def test_what_does_not_fit_is_refused(measure: Callable[..., torch.Tensor]):
    clip = make_clip(2, 16, 16).frames
    with pytest.raises(MetricError, match="2 frames of 16x16 and its truth 1 frames of 16x16"):
        measure(clip, clip[:1])
    with pytest.raises(MetricError, match="border of 8 pixels leaves nothing of 16x16"):
        measure(clip, clip, border=8)
    with pytest.raises(MetricError, match=r"take t 3 h w floats"):
        measure(clip[:, :1], clip[:, :1])


def test_ssim_needs_its_window():
    clip = make_clip(1, 10, 16).frames
    with pytest.raises(MetricError, match="SSIM needs at least 11 pixels a side, not 16x10"):
        ssim_y(clip, clip)
