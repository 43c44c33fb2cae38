"""From high-resolution clips to low-resolution ones, reproducibly.

Three ways: `downscale` as the evaluation on bicubic does, `downscale_bd` as the BD benchmarks were
made, and `Degradation`, the random second-order pipeline for training on real footage, some of
whose samples are only shrunk, as one of the benchmarks is. `data.footage` has another pipeline.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.data.compress import Jpeg, Video
from skipsr.data.filters import Blur, Noise, ParameterSampler, Resize
from skipsr.nn.resize import imresize

Shrinking = Literal["bicubic", "matlab", "bd", "bd_duf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One round of what happens to footage. By default the first of Real-ESRGAN."""

    blur: Blur = Blur()
    resize: Resize = Resize()
    noise: Noise = Noise()
    jpeg: Jpeg = Jpeg()
    video: Video = Video()

    def at(self, strength: float) -> "Stage":
        """The same with every range scaled: 1 leaves it, 0 does next to nothing."""
        return Stage(
            blur=self.blur.at(strength),
            resize=self.resize.at(strength),
            noise=self.noise.at(strength),
            jpeg=self.jpeg.at(strength),
            video=self.video.at(strength),
        )


FIRST = Stage()
SECOND = Stage(
    blur=Blur(probability=0.8, sigma=(0.2, 1.5)),
    resize=Resize(up=0.3, down=0.4, factor=(0.3, 1.2)),
    noise=Noise(sigma=(1.0, 25.0), scale=(0.05, 2.5)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomDegradation(ABC):
    """What clips go through, drawn anew for each sample, drifting slowly through its clip."""

    scale: int = 4
    """Both sides are divided by this."""
    clean: float = 0.5
    """Share of samples that are only shrunk, 0 to 1."""
    strength: float = 1.0
    """How far every range reaches, from 1 down to 0, where hardly anything is left."""
    drift: float = 0.02
    """Greatest change from one frame to the next, as a share of a parameter's range."""

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade a batch.

        Args:
            frames: `b c t h w`, c = 3, in [0, 1]; h and w multiples of `scale`.
            generator: source of every draw, so that its seed decides the result.

        Returns:
            `b c t h/scale w/scale` in [0, 1], on the 8-bit grid k/255, on the device of `frames`.

        Raises:
            ValueError: for another rank or number of channels, or sides not divided by `scale`.
            SettingsError: if PyAV was built without an encoder that is asked for.
        """
        _check(frames, self.scale)
        if frames.shape[1] != 3:
            raise ValueError(f"degradation takes three channels, not {frames.shape[1]}")
        sampler = ParameterSampler(generator, self.drift)
        return torch.stack([quantize(self._degrade(sample, sampler)) for sample in frames])

    @abstractmethod
    def _degrade(self, frames: Tensor, sampler: ParameterSampler) -> Tensor:
        """One sample, `c t h w` to `c t h/scale w/scale` in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation(RandomDegradation):
    """A high-order degradation.

    Each stage blurs, resizes, adds noise and compresses (Real-ESRGAN, arXiv 2107.10833, section
    3.1), by JPEG and then by a video codec (RealBasicVSR, arXiv 2111.12704). In the last stage the
    final resize, with its ringing, comes before or after the compression, each as often.
    """

    kind: Shrinking = "bicubic"
    """How clean samples are shrunk, see `shrink`."""
    stages: tuple[Stage, ...] = (FIRST, SECOND)
    """Rounds in turn; at least one."""
    ringing: Blur = Blur(probability=0.8, kernels=(("sinc", 1.0),), cutoff=(1 / 3, 1.0))
    """The sinc filter after the final resize."""
    video: float = 0.5
    """Share of clips that each stage puts through a video codec, 0 to 1."""

    def _degrade(self, frames: Tensor, sampler: ParameterSampler) -> Tensor:
        if sampler.chance(self.clean):
            return shrink(frames[None], self.scale, self.kind)[0]
        h, w = (side // self.scale for side in frames.shape[2:])
        *early, last = (stage.at(self.strength) for stage in self.stages)
        base = (frames.shape[2], frames.shape[3])
        for stage in early:
            frames = self._compress(_film(frames, stage, base, sampler), stage, sampler)
            base = (h, w)
        frames = _film(frames, last, base, sampler)
        compress_last = sampler.chance(0.5)
        if not compress_last:
            frames = self._compress(frames, last, sampler)
        frames = last.resize.to(frames, (h, w), sampler)
        frames = self.ringing.at(self.strength)(frames, sampler)
        return self._compress(frames, last, sampler) if compress_last else frames

    def _compress(self, frames: Tensor, stage: Stage, sampler: ParameterSampler) -> Tensor:
        frames = stage.jpeg(frames, sampler)
        return stage.video(frames, sampler) if sampler.chance(self.video) else frames


def _film(frames: Tensor, stage: Stage, base: tuple[int, int], sampler: ParameterSampler) -> Tensor:
    """What a camera does before anything is stored: blur, sampling, noise."""
    return stage.noise(stage.resize(stage.blur(frames, sampler), base, sampler), sampler)


def shrink(frames: Tensor, scale: int, kind: Shrinking) -> Tensor:
    """Shrink as one kind of benchmark was made.

    Args:
        frames: `b c t h w`, in [0, 1].
        scale: divides both sides.
        kind: "bicubic", `downscale`; "matlab", the BI benchmarks' `imresize`; "bd" and "bd_duf",
            the BD benchmarks' even kernel, for scale 4 alone, and that of DUF (`downscale_bd`).

    Returns:
        `b c t h/scale w/scale`, in [0, 1], not rounded to 8 bits.

    Raises:
        ValueError: for another rank, sides that `scale` does not divide, or what the kind's
            function refuses.
    """
    match kind:
        case "bicubic":
            return downscale(frames, scale)
        case "matlab":
            _check(frames, scale)
            return imresize(frames, 1 / scale).clamp(0, 1)
        case "bd":
            return downscale_bd(frames, scale, "even")
        case "bd_duf":
            return downscale_bd(frames, scale, "duf")


def downscale(frames: Tensor, scale: int) -> Tensor:
    """Shrink as the evaluation does: antialiased bicubic, clamped.

    `b c t h w -> b c t h/scale w/scale`, values in [0, 1].

    Raises:
        ValueError: for another rank, or sides that `scale` does not divide.
    """
    _check(frames, scale)
    b, _, _, h, w = frames.shape
    images = rearrange(frames, "b c t h w -> (b t) c h w")
    small = F.interpolate(
        images, size=(h // scale, w // scale), mode="bicubic", antialias=True, align_corners=False
    )
    return rearrange(small.clamp(0, 1), "(b t) c h w -> b c t h w", b=b)


def downscale_bd(frames: Tensor, scale: int = 4, kernel: Literal["duf", "even"] = "duf") -> Tensor:
    """Shrink as the BD benchmarks were made: a Gaussian blur, then every `scale`-th pixel.

    Args:
        frames: `b c t h w`, in [0, 1].
        scale: divides both sides.
        kernel: "duf", the 13x13 kernel of DUF: sigma = 0.4 scale, mirrored borders, pixels 0, s,
            2s, ...; it shifts the picture by (s - 1) / 2 pixels. "even", the 12x12 kernel of
            BasicVSR's data: sigma = 1.6, repeated borders, pixels 1, 5, 9, ...; for scale 4 alone,
            where it shifts nothing.

    Returns:
        `b c t h/scale w/scale`, in [0, 1], not rounded to 8 bits.

    Raises:
        ValueError: for another rank, sides that `scale` does not divide, "even" at another scale,
            or "duf" on frames below 8 pixels a side.
    """
    _check(frames, scale)
    b, _, _, h, w = frames.shape
    if kernel == "even" and scale != 4:
        raise ValueError(f"the even BD kernel is defined for scale 4, not {scale}")
    if kernel == "duf" and min(h, w) < 8:
        raise ValueError(f"frames of {w}x{h} are too small for a 13x13 kernel: give 8x8 or more")
    taps, sigma = (13, 0.4 * scale) if kernel == "duf" else (12, 1.6)
    offsets = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum()).to(frames)
    # what is cut from the padding on the left makes pixel 0 or 1 the first to be kept
    before = 6 if kernel == "duf" else 4
    padding = (before, 6, before, 6)
    images = rearrange(frames, "b c t h w -> (b c t) 1 h w")
    padded = F.pad(images, padding, mode="reflect" if kernel == "duf" else "replicate")
    rows = F.conv2d(padded, rearrange(weights, "k -> 1 1 k 1"), stride=(scale, 1))
    small = F.conv2d(rows, rearrange(weights, "k -> 1 1 1 k"), stride=(1, scale))
    return rearrange(small, "(b c t) 1 h w -> b c t h w", b=b, t=frames.shape[2])


def quantize(frames: Tensor) -> Tensor:
    """Round values in [0, 1] to the 8-bit grid k/255."""
    return frames.mul(255).round() / 255


def _check(frames: Tensor, scale: int) -> None:
    """Raise ValueError for frames that are not `b c t h w` or whose sides `scale` leaves over."""
    shape = tuple(frames.shape)
    if len(shape) != 5:
        raise ValueError(f"frames are b c t h w, not {shape}")
    if shape[3] % scale or shape[4] % scale:
        raise ValueError(f"{shape[3]}x{shape[4]} frames cannot be divided by {scale}: crop them")
