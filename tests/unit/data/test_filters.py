"""Sampled parameters, kernels, blur, resizing and noise."""

import math

import pytest
import torch
from torch import Tensor

from skipsr.data.filters import (
    MODES,
    PUBLISHED_KERNELS,
    Blur,
    Kernel,
    Mode,
    Noise,
    ParameterSampler,
    Resize,
    convolve,
    elliptic_distance,
    gaussian_kernels,
    resample,
    sinc_kernels,
)


def sampler(seed: int = 0, drift: float = 0.02) -> ParameterSampler:
    return ParameterSampler(torch.Generator().manual_seed(seed), drift)


def dot(t: int = 3, side: int = 31) -> Tensor:
    """One bright pixel amid black: filtered, it shows the kernel."""
    frames = torch.zeros(3, t, side, side)
    frames[:, :, side // 2, side // 2] = 1
    return frames


def grey(level: float, t: int = 3, side: int = 64) -> Tensor:
    return torch.full((3, t, side, side), level)


@pytest.mark.parametrize("drift", [0.0, 0.02, 0.5, 1.0])
def test_walks_stay_in_range_and_step_slowly(drift: float) -> None:
    for seed in range(20):
        path = sampler(seed, drift).walk((3.0, 5.0), 40)
        assert path.shape == (40,)
        assert path.min() >= 3
        assert path.max() <= 5
        assert path.diff().abs().max() <= 2 * drift + 1e-5
    assert (path.unique().numel() == 1) is (drift == 0)


def test_choices_follow_their_shares() -> None:
    one = sampler()
    drawn = [one.choose("abc", (0.6, 0.0, 0.4)) for _ in range(500)]
    assert "b" not in drawn
    assert abs(drawn.count("a") / 500 - 0.6) < 0.1
    assert not any(sampler(seed).chance(0.0) for seed in range(50))
    assert all(sampler(seed).chance(1.0) for seed in range(50))


@pytest.mark.parametrize("kind", [name for name, _ in PUBLISHED_KERNELS])
@pytest.mark.parametrize("seed", range(5))
def test_kernels_sum_to_one(kind: Kernel, seed: int) -> None:
    bright = Blur(kernels=((kind, 1.0),))(grey(0.5, side=9), sampler(seed))
    assert torch.allclose(bright, grey(0.5, side=9), atol=1e-5)


def test_published_shares_are_complete() -> None:
    assert math.isclose(sum(share for _, share in PUBLISHED_KERNELS), 1)


def test_gaussian_is_gaussian() -> None:
    sigmas = torch.tensor([[0.0, 0.0], [1.2, 1.2]])
    kernels = gaussian_kernels(elliptic_distance(13, sigmas, torch.zeros(2)), torch.ones(2))
    centre = torch.zeros(13, 13)
    centre[6, 6] = 1
    assert torch.allclose(kernels[0], centre, atol=1e-6)
    ratio = kernels[1, 6, 7] / kernels[1, 6, 6]
    assert torch.isclose(ratio, torch.tensor(-0.5 / 1.2**2).exp(), atol=1e-5)
    assert torch.allclose(kernels[1], kernels[1].T)


def test_anisotropic_kernels_turn() -> None:
    sigmas = torch.tensor([[3.0, 1.0]]).expand(2, 2)
    angles = torch.tensor([0.0, math.pi / 2])
    kernels = gaussian_kernels(elliptic_distance(15, sigmas, angles), torch.ones(2))
    offsets = torch.arange(15.0) - 7
    width = (kernels[0].sum(0) * offsets**2).sum()
    height = (kernels[0].sum(1) * offsets**2).sum()
    assert width > 3 * height  # the first sigma lies along the rows
    assert torch.allclose(kernels[1], kernels[0].T, atol=1e-6)


def test_exponents_shape_the_kernels() -> None:
    distance = elliptic_distance(21, torch.full((2, 2), 3.0), torch.zeros(2))
    sharp, flat = gaussian_kernels(distance, torch.tensor([0.5, 4.0]))
    assert sharp[10, 10] > 1.15 * sharp[10, 11]  # a peak
    assert flat[10, 12] > 0.9 * flat[10, 10]  # generalised: a table with steep sides
    plateau = gaussian_kernels(distance, torch.tensor([1.0, 2.0]), plateau=True)
    tail = gaussian_kernels(distance, torch.ones(2))[:, 10, 0]
    assert (plateau[:, 10, 0] > tail).all()  # heavier tails than a Gaussian


def test_sinc_cuts_high_frequencies() -> None:
    kernel = sinc_kernels(21, torch.tensor([1 / 3]))[0]
    response = torch.fft.rfft2(kernel, s=(96, 96)).abs()
    row = response[0]  # frequencies 0 to Nyquist in 48 steps; the cut is at 16
    assert torch.isclose(row[0], torch.tensor(1.0), atol=1e-5)
    assert row[:12].min() > 0.8
    assert row[22:].max() < 0.12
    assert kernel.min() < 0  # it rings


def test_sinc_is_round() -> None:
    kernel = sinc_kernels(11, torch.tensor([0.5]))[0]
    assert torch.allclose(kernel, kernel.T)
    assert torch.isclose(kernel[5, 10], kernel[5 + 3, 5 + 4], atol=1e-7)  # both 5 pixels away


def test_convolution_takes_one_kernel_per_frame() -> None:
    kernels = torch.zeros(3, 3, 5)
    kernels[0, 1, 2] = kernels[1, 1, 4] = kernels[2, 0, 2] = 1
    shifted = convolve(dot(side=9), kernels)
    assert torch.equal(shifted[:, 0], dot(side=9)[:, 0])
    assert (shifted[:, 1, 4, 2] == 1).all()
    assert (shifted[:, 2, 5, 4] == 1).all()


def test_blur_drifts_with_the_clip() -> None:
    blur = Blur(sigma=(0.5, 3.0), kernels=(("iso", 1.0),), size=(21, 21))
    steady = blur(dot(5), sampler(3, drift=0.0))
    assert torch.equal(steady[:, 0], steady[:, 4])
    moving = blur(dot(5), sampler(3, drift=0.1))
    peaks = moving[0, :, 15, 15]
    assert peaks.unique().numel() == 5
    assert torch.equal(moving[0], moving[2])


@pytest.mark.parametrize("mode", MODES)
def test_resampling_keeps_the_middle_in_the_middle(mode: Mode) -> None:
    ramp = (torch.arange(24.0) / 24 + 1 / 48).expand(3, 2, 24, 24)
    for side in (8, 12, 48):
        small = resample(ramp, (side, side), mode)
        assert small.shape == (3, 2, side, side)
        expected = torch.arange(side) / side + 1 / (2 * side)
        middle = slice(side // 4, -side // 4)
        assert torch.allclose(small[0, 0, 0, middle], expected[middle], atol=1 / 47)


def test_resize_draws_within_its_range() -> None:
    frames = grey(0.5, 1, 40)
    sides = [Resize(up=0, down=1)(frames, (40, 40), sampler(seed)).shape[2] for seed in range(40)]
    assert min(sides) >= 6
    assert max(sides) <= 40
    assert len(set(sides)) > 10
    up = [Resize(up=1, down=0)(frames, (40, 40), sampler(seed)).shape[2] for seed in range(40)]
    assert min(up) >= 40
    assert 55 <= max(up) <= 60
    assert Resize(up=0, down=0)(frames, (20, 10), sampler()).shape == (3, 1, 20, 10)


def test_gaussian_noise_has_its_sigma_and_is_new_in_each_frame() -> None:
    still = grey(0.5)
    noise = Noise(sigma=(5.1, 5.1), poisson=0, grey=0)(still, sampler()) - still
    assert abs(noise.std().item() - 0.02) < 5e-4
    assert abs(noise.mean().item()) < 1e-3
    assert not torch.equal(noise[:, 0], noise[:, 1])
    assert not torch.equal(noise[0], noise[1])


def test_photon_noise_grows_with_brightness() -> None:
    noise = Noise(scale=(1, 1), poisson=1, grey=0)
    for level in (0.1, 0.4, 0.6):
        found = noise(grey(level), sampler()) - grey(level)
        assert math.isclose(found.var().item(), level / 255, rel_tol=0.1)
    assert torch.equal(noise(grey(0.0), sampler()), grey(0.0))


@pytest.mark.parametrize("photons", [0.0, 1.0])
def test_grey_noise_is_the_same_in_all_channels(photons: float) -> None:
    still = grey(0.5)
    noise = Noise(sigma=(5, 5), scale=(2, 2), poisson=photons, grey=1)(still, sampler()) - still
    assert noise.std() > 0.01
    assert torch.equal(noise[0], noise[1])
    assert torch.equal(noise[0], noise[2])


def test_probability_zero_draws_nothing_visible() -> None:
    frames = torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(1))
    assert Blur(probability=0)(frames, sampler()) is frames
    assert Noise(probability=0)(frames, sampler()) is frames
