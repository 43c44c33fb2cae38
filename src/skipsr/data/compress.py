"""Lossy compression of clips: JPEG frame by frame, and real video codecs.

Shapes are `c t h w`, c = 3, with values in [0, 1]; results lie on the 8-bit grid k/255.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from skipsr.data.filters import ParameterSampler
from skipsr.video.roundtrip import (
    AS_IT_COMES,
    EncodeWay,
    LossyCodec,
    Preset,
    jpeg_round_trip,
    round_trip,
)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg:
    """Each frame as a JPEG, at a quality that drifts."""

    probability: float = 1.0
    quality: tuple[int, int] = (30, 95)
    """Lowest and highest, of 1 to 100."""

    def at(self, strength: float) -> "Jpeg":
        """The same at higher quality; 0 is quality 100."""
        low, high = (100 - round((100 - bound) * strength) for bound in self.quality)
        return replace(self, quality=(low, high))

    def __call__(self, frames: Tensor, sampler: ParameterSampler) -> Tensor:
        if not sampler.chance(self.probability):
            return frames
        return compress_jpeg(frames, sampler.walk(self.quality, frames.shape[1]).round())


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """The clip as one H.264 or MPEG-4 stream of constant quality.

    RealBasicVSR draws bit rates instead, but what a bit rate does depends on the size of the crop.
    These ranges run from hardly visible to strongly blocked.
    """

    h264: float = 2 / 3
    """Share of H.264; the rest is MPEG-4 part 2."""
    crf: tuple[int, int] = (18, 35)
    """Best and worst CRF of H.264, of 0 to 51."""
    quantizer: tuple[int, int] = (2, 12)
    """Finest and coarsest quantiser of MPEG-4, of 1 to 31."""

    def at(self, strength: float) -> "Video":
        """The same at better quality; 0 is CRF 0 and quantiser 1."""
        crf, quantizer = (
            (best + round((low - best) * strength), best + round((high - best) * strength))
            for best, (low, high) in ((0, self.crf), (1, self.quantizer))
        )
        return replace(self, crf=crf, quantizer=quantizer)

    def __call__(self, frames: Tensor, sampler: ParameterSampler) -> Tensor:
        codec: LossyCodec = "h264" if sampler.chance(self.h264) else "mpeg4"
        low, high = self.crf if codec == "h264" else self.quantizer
        return compress_video(frames, codec, low + int(sampler.uniform(0, high - low + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """One of the ways in which footage is delivered."""

    codec: LossyCodec | Literal["mjpeg"]
    share: float
    """How often it is met; those of all codecs need not add up to 1."""
    quality: tuple[int, int]
    """Best and worst, as `compress_video` or, for "mjpeg", `compress_jpeg` takes it."""
    presets: tuple[Preset | None, ...] = (None,)
    """Equally likely."""

    def at(self, strength: float) -> "Codec":
        """The same with the worst quality nearer to the best; 0 is always the best."""
        best, worst = self.quality
        return replace(self, quality=(best, best + round((worst - best) * strength)))


DELIVERED = (
    Codec(
        codec="h264",
        share=0.55,
        quality=(18, 36),
        presets=("ultrafast", "superfast", "veryfast", "faster", "fast", "medium"),
    ),
    Codec(codec="hevc", share=0.15, quality=(20, 38), presets=("ultrafast", "superfast")),
    Codec(codec="mpeg4", share=0.1, quality=(2, 14)),
    Codec(codec="mpeg2", share=0.08, quality=(2, 14)),
    Codec(codec="vp9", share=0.12, quality=(25, 52)),
    Codec(codec="mjpeg", share=0.1, quality=(95, 40)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The clip as some device, disc or site gives it out: one codec, its quality and its way."""

    codecs: tuple[Codec, ...] = DELIVERED
    gops: tuple[int, ...] = (6, 12, 25, 250)
    """Distances of key frames, equally likely. Short ones, since training clips are short."""
    b_frames: tuple[int, ...] = (0, 1, 2, 3)
    """Equally likely."""

    def at(self, strength: float) -> "Delivery":
        """The same at better quality; 0 is the best quality of each codec."""
        return replace(self, codecs=tuple(codec.at(strength) for codec in self.codecs))

    def __call__(self, frames: Tensor, sampler: ParameterSampler) -> Tensor:
        drawn = sampler.choose(self.codecs, [codec.share for codec in self.codecs])
        quality = round(sampler.uniform(*drawn.quality))
        way = EncodeWay(
            preset=sampler.choose(drawn.presets),
            gop=sampler.choose(self.gops),
            b_frames=sampler.choose(self.b_frames),
        )
        if drawn.codec == "mjpeg":
            return compress_jpeg(frames, quality)
        return compress_video(frames, drawn.codec, quality, way)


def compress_jpeg(frames: Tensor, quality: Tensor | int) -> Tensor:
    """What a JPEG file by libjpeg, 4:2:0, does to each frame.

    Args:
        frames: `c t h w`, c = 3, in [0, 1].
        quality: 1 to 100, one number or one per frame, `t`.

    Returns:
        `c t h w` on the 8-bit grid, on the device and in the type of `frames`.
    """
    qualities = torch.as_tensor(quality).expand(frames.shape[1]).tolist()
    pairs = zip(_to_pixels(frames), qualities, strict=True)
    return _from_pixels(np.stack([jpeg_round_trip(x, int(q)) for x, q in pairs]), frames)


def compress_video(
    frames: Tensor, codec: LossyCodec, quality: int, way: EncodeWay = AS_IT_COMES
) -> Tensor:
    """The clip through a video codec and back, in memory.

    Args:
        frames: `c t h w`, c = 3, in [0, 1].
        codec: "h264", "hevc", "mpeg2", "mpeg4" or "vp9".
        quality: CRF of H.264, HEVC and VP9, or quantiser of MPEG-2 and MPEG-4; lower is better.
        way: how the encoder goes about it.

    Returns:
        `c t h w` on the 8-bit grid, on the device and in the type of `frames`.

    Raises:
        SettingsError: if PyAV was built without the encoder.
    """
    return _from_pixels(round_trip(_to_pixels(frames), codec, quality, way), frames)


def _to_pixels(frames: Tensor) -> Pixels:  # c t h w -> t h w c
    pixels = rearrange(frames, "c t h w -> t h w c").clamp(0, 1).mul(255).round().byte()
    return np.ascontiguousarray(pixels.cpu().numpy())


def _from_pixels(pixels: Pixels, like: Tensor) -> Tensor:  # t h w c -> c t h w
    return rearrange(torch.from_numpy(pixels), "t h w c -> c t h w").to(like) / 255
