"""Degradation: reproducible, on the 8-bit grid, and equal to the evaluation's where it is clean."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.data.degrade import (
    Degradation,
    add_noise,
    blur,
    compress_jpeg,
    downscale,
    quantize,
)


def clip(b: int = 2, t: int = 3, h: int = 32, w: int = 48) -> Tensor:
    return torch.rand(b, 3, t, h, w, generator=torch.Generator().manual_seed(5))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("clean", [0.0, 0.5, 1.0])
def test_shape_range_and_grid(clean: float) -> None:
    small = Degradation(clean=clean)(clip(), seeded())
    assert small.shape == (2, 3, 3, 8, 12)
    assert small.dtype == torch.float32
    levels = small * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_generator_decides() -> None:
    degrade = Degradation(clean=0)
    torch.manual_seed(1)
    first = degrade(clip(), seeded())
    torch.manual_seed(2)
    assert torch.equal(first, degrade(clip(), seeded()))
    assert not torch.equal(first, degrade(clip(), seeded(1)))


def test_clean_share_equals_evaluation() -> None:
    frames = clip()
    expected = quantize(downscale(frames, 4))
    assert torch.equal(Degradation(clean=1)(frames, seeded())[0], expected[0])
    assert not torch.equal(Degradation(clean=0)(frames, seeded())[0], expected[0])


def test_downscale_equals_interpolate_per_frame() -> None:
    frames = clip()
    small = downscale(frames, 4)
    for t in range(frames.shape[2]):
        reference = F.interpolate(
            frames[:, :, t], scale_factor=0.25, mode="bicubic", antialias=True, align_corners=False
        )
        assert torch.allclose(small[:, :, t], reference.clamp(0, 1), atol=1e-6)


def test_blur_is_gaussian_and_per_frame() -> None:
    dot = torch.zeros(3, 3, 17, 17)
    dot[:, :, 8, 8] = 1
    soft = blur(dot, torch.tensor([0.0, 0.6, 1.2]))
    assert torch.allclose(soft[:, 0], dot[:, 0], atol=1e-6)
    assert torch.allclose(soft.sum((2, 3)), torch.ones(3, 3), atol=1e-5)
    row = soft[0, 2, 8]
    assert torch.isclose(row[9] / row[8], torch.tensor(-0.5 / 1.2**2).exp(), atol=1e-4)
    assert torch.equal(blur(dot, torch.zeros(3)), dot)


def test_noise_differs_between_frames() -> None:
    grey = torch.full((3, 4, 40, 40), 0.5)
    noise = add_noise(grey, 0.02, seeded()) - grey
    assert abs(noise.std().item() - 0.02) < 1e-3
    assert not torch.equal(noise[:, 0], noise[:, 1])


def test_jpeg_quality_matters() -> None:
    frames = clip(b=1)[0]
    loss = [(compress_jpeg(frames, quality) - frames).abs().mean() for quality in (60, 95)]
    assert loss[0] > loss[1]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="divided by 4"):
        Degradation()(clip(h=30), seeded())
    with pytest.raises(ValueError, match="b c t h w"):
        downscale(clip()[0], 4)
    with pytest.raises(ValueError, match="three channels"):
        Degradation()(clip()[:, :1], seeded())
    with pytest.raises(ValueError, match="quality"):
        Degradation(jpeg=(90, 60))
    with pytest.raises(ValueError, match="out of range"):
        Degradation(clean=2)
