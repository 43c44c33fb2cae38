"""Footage: reproducible, on the 8-bit grid, clean where it says so, each part doing its own."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.data.degrade import downscale, quantize
from skipsr.data.footage import Footage

QUIET = Footage(
    clean=0,
    defocus=0,
    motion=0,
    rescaled=0,
    cheap=0,
    noise=0,
    sharpened=0,
    interlaced=0,
    repeated=0,
    bleeding=0,
    compressed=0,
)
PARTS = (
    "defocus",
    "motion",
    "rescaled",
    "cheap",
    "noise",
    "sharpened",
    "interlaced",
    "repeated",
    "bleeding",
    "compressed",
)


def clip(b: int = 1, t: int = 5, side: int = 128) -> Tensor:
    """Soft, pale colour that moves two pixels a frame: `b 3 t side side`."""
    seeds = torch.Generator().manual_seed(3)
    grey = torch.rand(b, 1, side // 32, side // 32, generator=seeds)
    coarse = 0.1 + 0.65 * grey + 0.15 * torch.rand(b, 3, side // 32, side // 32, generator=seeds)
    wide = F.interpolate(coarse, size=(side, side + 2 * t), mode="bicubic").clamp(0, 1)
    return torch.stack([wide[..., 2 * i : 2 * i + side] for i in range(t)], 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def psnr(one: Tensor, other: Tensor) -> float:
    return -10 * (one - other).square().mean().log10().item()


@pytest.mark.parametrize("clean", [0.0, 0.5, 1.0])
def test_results_are_small_on_the_grid_and_repeat_themselves(clean: float) -> None:
    frames, footage = clip(2), Footage(clean=clean)
    for seed in range(6):
        found = footage(frames, seeded(seed))
        assert found.shape == (2, 3, 5, 32, 32)
        assert torch.equal(found, quantize(found))
        assert found.min() >= 0
        assert found.max() <= 1
        assert torch.equal(found, footage(frames, seeded(seed)))


def test_other_seeds_give_other_footage() -> None:
    frames = clip()
    found = [Footage(clean=0)(frames, seeded(seed)) for seed in range(4)]
    assert not any(torch.equal(one, found[0]) for one in found[1:])


@pytest.mark.parametrize("scale", [2, 4])
def test_clean_samples_are_only_shrunk(scale: int) -> None:
    frames = clip(2)
    expected = quantize(downscale(frames, scale))
    assert torch.equal(Footage(clean=1, scale=scale)(frames, seeded()), expected)
    assert torch.equal(replace(QUIET, scale=scale)(frames, seeded()), expected)
    assert not torch.equal(Footage(clean=0, scale=scale)(frames, seeded()), expected)


def test_no_strength_is_nearly_clean() -> None:
    frames = clip()
    expected = downscale(frames, 4)
    for seed in range(20):
        assert psnr(Footage(clean=0, strength=0)(frames, seeded(seed)), expected) > 35


def test_strength_orders_the_damage() -> None:
    frames = clip(8)
    expected = downscale(frames, 4)
    damage = [
        psnr(Footage(clean=0, strength=strength)(frames, seeded()), expected)
        for strength in (0.0, 0.4, 1.0)
    ]
    assert damage == sorted(damage, reverse=True)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_shows_but_leaves_the_picture(part: str) -> None:
    frames = clip()
    footage = replace(QUIET, **{part: 1.0})
    found = torch.cat([footage(frames, seeded(seed)) for seed in range(6)])
    expected = downscale(frames, 4).expand_as(found)
    assert 15 < psnr(found, expected) < 60


def test_repeated_frames_are_those_before_and_never_the_first() -> None:
    frames = clip(t=12)
    expected = quantize(downscale(frames, 4))[0]
    repeats = 0
    for seed in range(8):
        found = replace(QUIET, repeated=1.0)(frames, seeded(seed))[0]
        assert torch.equal(found[:, 0], expected[:, 0])
        for t in range(1, 12):
            again = torch.equal(found[:, t], found[:, t - 1])
            assert again or torch.equal(found[:, t], expected[:, t])
            repeats += again
    assert repeats > 0


def test_woven_fields_hold_lines_of_two_frames() -> None:
    frames = clip()
    expected = quantize(downscale(frames, 4))[0]
    woven = 0
    for seed in range(16):
        found = replace(QUIET, interlaced=1.0)(frames, seeded(seed))[0]
        for odd in (0, 1):
            kept = torch.equal(found[:, 0, 1 - odd :: 2], expected[:, 0, 1 - odd :: 2])
            later = torch.equal(found[:, 0, odd::2], expected[:, 1, odd::2])
            woven += kept and later
    assert woven > 0


def test_bleeding_leaves_greys_alone() -> None:
    frames = clip()[:, :1].expand(-1, 3, -1, -1, -1)
    found = replace(QUIET, bleeding=1.0)(frames, seeded())
    assert (found - downscale(frames, 4)).abs().max() < 1 / 255


def test_one_frame_and_odd_sizes_pass() -> None:
    frames = clip(t=1)[..., :36, :20]
    for seed in range(20):
        footage = Footage(clean=0, interlaced=1, repeated=1, noise=1, motion=1, bleeding=1)
        assert footage(frames, seeded(seed)).shape == (1, 3, 1, 9, 5)


def test_settings_identify_a_run() -> None:
    assert repr(Footage()) == repr(Footage())
    assert repr(Footage(noise=0.5)) != repr(Footage())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="divided by 4"):
        Footage()(clip()[..., :30], seeded())
    with pytest.raises(ValueError, match="three channels"):
        Footage()(clip()[:, :1], seeded())
