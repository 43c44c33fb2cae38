"""Degradation: reproducible, on the 8-bit grid, and equal to the evaluation's where it is clean."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from skipsr.data.compress import Jpeg
from skipsr.data.degrade import (
    FIRST,
    SECOND,
    Degradation,
    Shrinking,
    Stage,
    downscale,
    downscale_bd,
    quantize,
    shrink,
)
from skipsr.data.filters import Blur, Noise, Resize
from skipsr.nn.resize import imresize

# made by the published code of DUF, and after the published recipe of BasicVSR ("even")
BD = load_file(Path(__file__).parent / "bd_degradation.safetensors")
# made by a published equal of MATLAB's
BI = load_file(Path(__file__).parents[2] / "parity" / "metrics" / "imresize.safetensors")
NOTHING = Stage(
    blur=Blur(probability=0),
    resize=Resize(up=0, down=0),
    noise=Noise(probability=0),
    jpeg=Jpeg(probability=0),
)


def clip(b: int = 2, t: int = 3, h: int = 32, w: int = 48) -> Tensor:
    return torch.rand(b, 3, t, h, w, generator=torch.Generator().manual_seed(5))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def single(stage: Stage, *, video: float = 0.0) -> Degradation:
    """One stage, always, without ringing; at scale 1 the final resize changes nothing."""
    quiet = Blur(probability=0)
    return Degradation(scale=1, clean=0, stages=(stage,), ringing=quiet, video=video)


@pytest.mark.parametrize("clean", [0.0, 0.5, 1.0])
def test_shape_range_and_grid(clean: float) -> None:
    degrade = Degradation(clean=clean)
    for seed in range(6):
        small = degrade(clip(), seeded(seed))
        assert small.shape == (2, 3, 3, 8, 12)
        assert small.dtype == torch.float32
        levels = small * 255
        assert torch.allclose(levels, levels.round(), atol=1e-4)
        assert levels.min() >= 0
        assert levels.max() <= 255


def test_single_frames_and_other_scales() -> None:
    assert Degradation(clean=0, scale=2)(clip(1, 1), seeded()).shape == (1, 3, 1, 16, 24)
    assert Degradation(clean=0, scale=8)(clip(1, 1), seeded()).shape == (1, 3, 1, 4, 6)


def test_generator_decides() -> None:
    degrade = Degradation(clean=0, video=1)
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


@pytest.mark.parametrize("kind", ["bicubic", "matlab", "bd", "bd_duf"])
def test_clean_samples_are_of_the_kind_that_is_asked_for(kind: Shrinking) -> None:
    frames = clip()
    small = {
        "bicubic": downscale(frames, 4),
        "matlab": imresize(frames, 0.25).clamp(0, 1),
        "bd": downscale_bd(frames, 4, "even"),
        "bd_duf": downscale_bd(frames, 4, "duf"),
    }
    found = Degradation(clean=1, kind=kind)(frames, seeded())
    for name, expected in small.items():
        assert torch.equal(found, quantize(expected)) == (name == kind)
    # what is not clean is as ever
    other = Degradation(clean=0, kind=kind)(frames, seeded())
    assert torch.equal(other, Degradation(clean=0)(frames, seeded()))


def test_a_kind_identifies_a_run() -> None:
    assert Degradation() == Degradation(kind="bicubic")
    assert repr(Degradation(kind="bd")) != repr(Degradation())


@pytest.mark.parametrize(
    ("kind", "x", "y"),
    [
        ("matlab", BI["noise_down4.x"], BI["noise_down4.y"]),
        ("matlab", *(BI[f"down4_hwc.{end}"].permute(2, 0, 1) for end in "xy")),
        ("bd", BD["even_1.x"], BD["even_1.y"]),
        ("bd_duf", BD["duf_x4_1.x"], BD["duf_x4_1.y"]),
    ],
    ids=["matlab", "matlab, channels last", "bd", "bd_duf"],
)
def test_kinds_equal_the_published_code(kind: Shrinking, x: Tensor, y: Tensor) -> None:
    frames, expected = x[None, :, None], y[None, :, None].clamp(0, 1)
    assert (shrink(frames, 4, kind) - expected).abs().max() < 1e-5
    rounded = Degradation(clean=1, kind=kind)(frames, seeded())
    assert (rounded - expected).abs().max() < 0.5 / 255 + 1e-5


def test_clean_share_is_the_share_of_clean_samples() -> None:
    frames = clip(60, 1, 8, 8)
    expected = quantize(downscale(frames, 4))
    found = Degradation(clean=0.5, video=0)(frames, seeded())
    clean = (found == expected).flatten(1).all(1).sum().item()
    assert 18 <= clean <= 42  # four deviations of a fair coin


def test_a_stage_of_nothing_only_rounds() -> None:
    frames = clip()
    assert torch.equal(single(NOTHING)(frames, seeded()), quantize(frames))


@pytest.mark.parametrize(
    "stage",
    [
        replace(NOTHING, blur=Blur(sigma=(1, 2), kernels=(("iso", 1.0),))),
        replace(NOTHING, resize=Resize(up=0, down=1, factor=(0.2, 0.5))),
        replace(NOTHING, noise=Noise(sigma=(5, 9), poisson=0)),
        replace(NOTHING, jpeg=Jpeg(quality=(20, 40))),
    ],
    ids=["blur", "resize", "noise", "jpeg"],
)
def test_each_ingredient_alone_changes_pixels(stage: Stage) -> None:
    frames = clip(1)
    found = single(stage)(frames, seeded())
    assert found.shape == frames.shape
    assert (found - frames).abs().mean() > 0.01


def test_video_share() -> None:
    frames = clip(1, t=5)
    assert torch.equal(single(NOTHING, video=0)(frames, seeded()), quantize(frames))
    assert not torch.equal(single(NOTHING, video=1)(frames, seeded()), quantize(frames))


def test_strength_orders_the_damage() -> None:
    frames = F.interpolate(clip(4, t=3, h=4, w=4), size=(3, 64, 64), mode="trilinear")
    expected = downscale(frames, 4)
    errors = [
        (Degradation(clean=0, strength=strength)(frames, seeded()) - expected).square().mean()
        for strength in (0.0, 0.3, 1.0)
    ]
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 0.01


def test_strength_scales_every_range() -> None:
    assert SECOND.at(1) == SECOND
    half = FIRST.at(0.5)
    assert half.blur.sigma == (0.1, 1.5)
    assert half.blur.cutoff == (0.6, 1.0)
    assert half.resize.factor == (0.15**0.5, 1.5**0.5)
    assert half.noise.sigma == (0.5, 15.0)
    assert half.jpeg.quality == (65, 98)
    assert half.video.crf == (9, 18)
    none = FIRST.at(0)
    assert none.resize.factor == (1, 1)
    assert none.noise.scale == (0, 0)
    assert (none.video.crf, none.video.quantizer) == ((0, 0), (1, 1))


def test_settings_identify_a_run() -> None:
    changed = Degradation(stages=(FIRST, replace(SECOND, jpeg=Jpeg(quality=(31, 95)))))
    assert repr(Degradation()) == repr(Degradation())
    assert repr(changed) != repr(Degradation())
    with pytest.raises(FrozenInstanceError):
        changed.clean = 1.0  # type: ignore[misc]


def test_downscale_equals_interpolate_per_frame() -> None:
    frames = clip()
    small = downscale(frames, 4)
    for t in range(frames.shape[2]):
        reference = F.interpolate(
            frames[:, :, t], scale_factor=0.25, mode="bicubic", antialias=True, align_corners=False
        )
        assert torch.allclose(small[:, :, t], reference.clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("name", sorted(key[:-2] for key in BD if key.endswith(".x")))
def test_bd_equals_the_published_code(name: str) -> None:
    frames, expected = BD[f"{name}.x"], BD[f"{name}.y"]
    kernel = "even" if name.startswith("even") else "duf"
    scale = 4 if kernel == "even" else int(name[5])
    small = downscale_bd(frames[None, :, None], scale, kernel)[0, :, 0]
    assert small.shape == expected.shape
    assert (small - expected).abs().max() < 1e-5


def test_bd_frames_are_independent() -> None:
    frames = clip()
    small = downscale_bd(frames)
    assert torch.allclose(small[1:, :, 2:], downscale_bd(frames[1:, :, 2:]), atol=1e-7)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="divided by 4"):
        Degradation()(clip(h=30), seeded())
    with pytest.raises(ValueError, match="b c t h w"):
        downscale(clip()[0], 4)
    with pytest.raises(ValueError, match="three channels"):
        Degradation()(clip()[:, :1], seeded())
    with pytest.raises(ValueError, match="scale 4, not 2"):
        downscale_bd(clip(), 2, "even")
    with pytest.raises(ValueError, match="too small"):
        downscale_bd(clip(h=4))
    for kind in ("bicubic", "matlab", "bd", "bd_duf"):
        with pytest.raises(ValueError, match="divided by 4"):
            shrink(clip(h=30), 4, kind)
