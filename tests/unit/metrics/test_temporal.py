"""Optical flow and warping error on moved textures, whose motion is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.metrics import METRICS, MetricError
from skipsr.metrics.flow import optical_flow, visible
from skipsr.metrics.temporal import error_along, motion, warp_error
from skipsr.nn.warp import warp

SHIFTS = [(1, 0), (3, -2), (-7, 5)]  # pixels a frame, across and down


def texture(height: int, width: int, grain: int = 4, seed: int = 0) -> Tensor:
    """Smooth noise, `1 3 h w` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    grains = torch.rand(1, 3, height // grain, width // grain, generator=generator)
    return F.interpolate(grains, (height, width), mode="bicubic").clamp(0, 1)


def moving(shift: tuple[int, int], count: int = 3) -> Tensor:
    """A window of 96x128 that moves over a texture, so that the picture moves the other way."""
    whole = texture(160, 192)
    x, y = shift
    return torch.cat(
        [whole[..., 32 + y * i : 128 + y * i, 32 + x * i : 160 + x * i] for i in range(count)]
    )


def noise(frames: Tensor, sigma: float, seed: int = 1) -> Tensor:
    return sigma * torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", SHIFTS)
def test_flow_of_a_moved_texture(shift: tuple[int, int]):
    grey = moving(shift).mean(1)
    flow = optical_flow(grey[:2], grey[1:])
    away = flow + torch.tensor(shift)
    assert away[:, 16:-16, 16:-16].abs().mean() < 0.05


def test_flow_of_a_fraction_of_a_pixel():
    whole = texture(200, 264, 8)
    frames = [F.avg_pool2d(whole[..., i : i + 192, i : i + 256], 2).mean(1) for i in (0, 1)]
    flow = optical_flow(*frames)
    assert (flow[:, 16:-16, 16:-16] + 0.5).abs().mean() < 0.05


def test_no_motion_no_flow():
    grey = texture(64, 80).mean(1)
    assert optical_flow(grey, grey).abs().max() < 1e-4
    assert optical_flow(torch.full_like(grey, 0.5), torch.full_like(grey, 0.5)).abs().max() == 0


def test_bicubic_warping_by_whole_pixels():
    x = texture(40, 48)
    flow = torch.zeros(1, 40, 48, 2)
    torch.testing.assert_close(warp(x, flow, "bicubic", "border"), x, atol=1e-5, rtol=0)
    moved = warp(x, flow + torch.tensor([3.0, -2.0]), "bicubic", "border")
    torch.testing.assert_close(moved[..., 2:, :-3], x[..., :-2, 3:], atol=1e-4, rtol=0)
    corner = warp(x, flow + 100, "bicubic", "border")
    assert torch.allclose(corner, x[..., -1:, -1:].expand_as(x), atol=1e-5)


def test_what_leaves_the_picture_is_not_visible():
    forth = torch.zeros(1, 32, 40, 2)
    forth[..., 0] = 5
    seen = visible(forth, -forth)
    assert seen[..., :-5].all()
    assert not seen[..., -5:].any()
    assert not visible(forth, forth).any()


@pytest.mark.parametrize("shift", SHIFTS)
def test_motion_alone_is_no_error(shift: tuple[int, int]):
    frames = moving(shift)
    plain = 1000 * (frames[1:] - frames[:-1]).square().mean().item()
    assert warp_error(frames) < 0.05 * plain


@pytest.mark.parametrize("sigma", [0.01, 0.05])
def test_noise_adds_twice_its_variance(sigma: float):
    frames = moving((2, 1))
    noisy = frames + noise(frames, sigma)
    added = warp_error(noisy, frames) - warp_error(frames, frames)
    assert added == pytest.approx(2000 * sigma**2, rel=0.1)
    assert warp_error(noisy) > warp_error(frames)


def test_still_noise_is_no_error():
    frames = texture(64, 64).expand(3, -1, -1, -1)
    assert warp_error(frames + noise(frames[:1], 0.1)) < 1e-6


def test_the_truth_gives_the_motion():
    still, frames = texture(96, 128).expand(2, -1, -1, -1), moving((3, 0), 2)
    plain = 1000 * (frames[1:] - frames[:-1]).square().mean().item()
    assert warp_error(frames, still) == pytest.approx(plain, rel=0.02)
    found = METRICS["temporal"].measure(frames, still)
    assert found == {"warp_error": warp_error(frames, still)}
    assert METRICS["temporal"].measure(frames, None) == {"warp_error": warp_error(frames)}


def test_a_motion_found_once_serves_several_clips():
    truth = moving((2, 1))
    found = list(motion(truth))
    for frames in (truth, truth + noise(truth, 0.05)):
        assert error_along(frames, found) == warp_error(frames, truth)


def test_refusals():
    with pytest.raises(MetricError, match="two frames of 32 pixels a side, not 1 of 64x64"):
        warp_error(torch.rand(1, 3, 64, 64))
    with pytest.raises(MetricError, match="not 2 of 40x20"):
        warp_error(torch.rand(2, 3, 20, 40))
    with pytest.raises(MetricError, match="cut both to one size"):
        warp_error(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 65))
