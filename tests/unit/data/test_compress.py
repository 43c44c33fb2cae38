"""Clips through JPEG and real video codecs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.data.compress import (
    DELIVERED,
    Delivery,
    Jpeg,
    Video,
    compress_jpeg,
    compress_video,
)
from skipsr.data.filters import ParameterSampler
from skipsr.errors import SettingsError
from skipsr.video.roundtrip import EncodeWay, LossyCodec, round_trip

CODECS: tuple[LossyCodec, ...] = ("h264", "hevc", "mpeg2", "mpeg4", "vp9")


def picture(t: int = 2, h: int = 40, w: int = 56) -> Tensor:
    """Soft colour with some grain, moving: `c t h w` on the 8-bit grid."""
    seeds = torch.Generator().manual_seed(4)
    soft = torch.rand(1, 3, h // 8, (w + 2 * t) // 8, generator=seeds)
    wide = F.interpolate(soft, size=(h, w + 2 * t), mode="bicubic")[0]
    wide += 0.03 * torch.randn(wide.shape, generator=seeds)
    frames = torch.stack([wide[..., 2 * i : 2 * i + w] for i in range(t)], 1)
    return frames.clamp(0, 1).mul(255).round() / 255


def sampler(seed: int = 0) -> ParameterSampler:
    return ParameterSampler(torch.Generator().manual_seed(seed), 0.02)


@pytest.mark.parametrize("size", [(32, 48), (19, 33), (1, 1)])
def test_jpeg_takes_any_size_and_repeats_itself(size: tuple[int, int]) -> None:
    frames = picture()[:, :, : size[0], : size[1]]
    found = compress_jpeg(frames.double(), 75)
    assert (found.shape, found.dtype) == (frames.shape, torch.float64)
    assert torch.equal(found, compress_jpeg(frames.double(), 75))


@pytest.mark.parametrize(
    ("one", "other", "stays"), [((1, 1, 1), (0, 0, 0), True), ((0.38, 0, 0), (0, 0, 1), False)]
)
def test_jpeg_keeps_stripes_of_light_and_mixes_those_of_colour(
    one: tuple[float, ...], other: tuple[float, ...], stays: bool
) -> None:
    """A pixel wide, at the best quality; red and blue of one luma become violet."""
    stripes = torch.tensor([one, other]).T.repeat(1, 16)[:, None, None].expand(3, 1, 32, 32)
    found = compress_jpeg(stripes, 100)[2]
    contrast = (found[..., ::2] - found[..., 1::2]).abs().mean()
    assert contrast > 0.95 if stays else contrast < 0.1


def test_jpeg_is_on_the_grid_and_takes_a_quality_per_frame() -> None:
    frames = picture(3)
    found = compress_jpeg(frames, torch.tensor([20.0, 60.0, 95.0]))
    assert torch.allclose(found * 255, (found * 255).round(), atol=1e-4)
    for i, quality in enumerate((20, 60, 95)):
        assert torch.equal(found[:, i : i + 1], compress_jpeg(frames[:, i : i + 1], quality))
    errors = (found - frames).square().mean((0, 2, 3))
    assert errors[0] > errors[1] > errors[2]


def test_jpeg_draws_its_quality_in_range() -> None:
    frames = picture(1)
    low, high = compress_jpeg(frames, 30), compress_jpeg(frames, 95)
    worst, best = (x.sub(frames).square().mean() for x in (low, high))
    for seed in range(10):
        error = Jpeg()(frames, sampler(seed)).sub(frames).square().mean()
        assert best * 0.99 <= error <= worst * 1.01
    assert Jpeg(probability=0)(frames, sampler()) is frames


@pytest.mark.parametrize(
    ("codec", "qualities"),
    [
        ("h264", (5, 25, 45)),
        ("hevc", (5, 25, 45)),
        ("mpeg2", (1, 8, 31)),
        ("mpeg4", (1, 8, 31)),
        ("vp9", (5, 30, 63)),
    ],
)
def test_video_quality_orders_the_loss(codec: str, qualities: tuple[int, ...]) -> None:
    frames = picture(7)
    errors = [
        (compress_video(frames, codec, quality) - frames).abs().mean().item()  # type: ignore[arg-type]
        for quality in qualities
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.03
    assert errors[2] > 1.5 * errors[0]


@pytest.mark.parametrize("codec", CODECS)
def test_video_frames_come_back_in_order(codec: str) -> None:
    levels = torch.linspace(0.1, 0.9, 9)
    frames = levels[None, :, None, None].expand(3, 9, 32, 32)
    found = compress_video(frames, codec, 12)  # type: ignore[arg-type]
    assert found.shape == frames.shape
    assert torch.allclose(found.mean((0, 2, 3)), levels, atol=0.03)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(1, 1), (5, 19), (16, 32), (40, 40)])
def test_video_takes_any_size_and_repeats_itself(codec: str, size: tuple[int, int]) -> None:
    frames = picture(3)[:, :, : size[0], : size[1]]
    found = compress_video(frames, codec, 20)  # type: ignore[arg-type]
    assert found.shape == frames.shape
    assert torch.equal(found, compress_video(frames, codec, 20))  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("way", [EncodeWay(gop=250, b_frames=0), EncodeWay(gop=4, b_frames=2)])
def test_every_way_gives_all_frames_back(codec: LossyCodec, way: EncodeWay) -> None:
    frames = picture(12)
    found = compress_video(frames, codec, 5, way)
    assert found.shape == frames.shape
    assert -10 * (found - frames).square().mean().log10() > 26
    assert torch.equal(found, compress_video(frames, codec, 5, way))


def test_ways_differ() -> None:
    frames = picture(12)
    ways = [EncodeWay(), EncodeWay(preset="ultrafast"), EncodeWay(gop=2), EncodeWay(b_frames=0)]
    found = [compress_video(frames, "h264", 30, way) for way in ways]
    assert not any(torch.equal(one, found[0]) for one in found[1:])


def test_delivery_draws_every_codec_within_its_range() -> None:
    frames, best = picture(3), Delivery().at(0)
    assert all(codec.quality[0] == codec.quality[1] for codec in best.codecs)
    for codec in DELIVERED:
        low, high = codec.quality
        errors = [
            Delivery(codecs=(replace(codec, quality=bounds),))(frames, sampler()).sub(frames).norm()
            for bounds in ((low, low), (low, high), (high, high))
        ]
        assert errors[0] < errors[1] < errors[2]


def test_video_settings_choose_codec_and_quality() -> None:
    frames = picture(3)
    h264 = Video(h264=1, crf=(30, 30))(frames, sampler())
    assert torch.equal(h264, compress_video(frames, "h264", 30))
    mpeg4 = Video(h264=0, quantizer=(9, 9))(frames, sampler())
    assert torch.equal(mpeg4, compress_video(frames, "mpeg4", 9))


def test_video_keeps_colours() -> None:
    flat = torch.tensor([0.8, 0.3, 0.1])[:, None, None, None].expand(3, 2, 32, 32)
    for codec, quality in (("h264", 10), ("mpeg4", 2)):
        found = compress_video(flat, codec, quality)  # type: ignore[arg-type]
        assert torch.allclose(found, flat, atol=0.02)


def test_refusals() -> None:
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(SettingsError, match="mpeg4 goes from 1"):
        round_trip(pixels, "mpeg4", 0)
    with pytest.raises(SettingsError, match="h264 goes from 0"):
        round_trip(pixels, "h264", 52)
