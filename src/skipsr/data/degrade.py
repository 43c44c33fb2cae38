"""From high-resolution crops to the low-resolution clips a model trains on, reproducibly."""

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """Blur, shrink, noise and JPEG: drawn anew for each sample, steady through a clip."""

    scale: int = 4
    """Both sides are divided by this."""
    clean: float = 0.5
    """Share of samples that are only shrunk, as the evaluation does, 0 to 1."""
    blur: float = 1.2
    """Greatest sigma of the Gaussian before shrinking, pixels of the source."""
    noise: float = 0.03
    """Greatest sigma of the noise after shrinking, full range = 1; small ones come more often."""
    jpeg: tuple[int, int] = (60, 95)
    """Lowest and highest JPEG quality, both included."""

    def __post_init__(self) -> None:
        low, high = self.jpeg
        if self.scale < 1 or not 0 <= self.clean <= 1 or self.blur < 0 or self.noise < 0:
            raise ValueError(f"out of range: {self}")
        if not 1 <= low <= high <= 100:
            raise ValueError(f"JPEG quality goes from 1 to 100, not {low} to {high}")

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade a batch.

        Args:
            frames: `b c t h w`, c = 3, in [0, 1]; h and w multiples of `scale`.
            generator: source of every draw, so that its seed decides the result.

        Returns:
            `b c t h/scale w/scale` in [0, 1], on the 8-bit grid k/255, on the device of `frames`.

        Raises:
            ValueError: for another rank or number of channels, or sides not divided by `scale`.
        """
        _check(frames, self.scale)
        if frames.shape[1] != 3:
            raise ValueError(f"degradation takes three channels, not {frames.shape[1]}")
        return torch.stack([self._degrade(sample, generator) for sample in frames])

    def _degrade(self, frames: Tensor, generator: torch.Generator) -> Tensor:  # c t h w
        if _draw(generator) < self.clean:
            return quantize(downscale(frames[None], self.scale)[0])
        start = self.blur * _draw(generator)
        end = min(self.blur, start * (0.75 + 0.5 * _draw(generator)))
        noise = self.noise * _draw(generator) ** 2
        low, high = self.jpeg
        quality = low + int((high - low + 1) * _draw(generator))
        soft = blur(frames, torch.linspace(start, end, frames.shape[1]))
        small = downscale(soft[None], self.scale)[0]
        return compress_jpeg(add_noise(small, noise, generator), quality)


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


def blur(frames: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur of `c t h w` frames; one sigma in pixels per frame, 0 is none."""
    radius = int(np.ceil(3 * float(sigmas.max())))
    if radius == 0:
        return frames
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / sigmas.float().clamp(min=1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).to(frames)  # t k
    # replicate, because reflection would limit how small a crop can be
    padded = F.pad(frames, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, weights[:, None, :, None], groups=len(weights))
    return F.conv2d(rows, weights[:, None, None, :], groups=len(weights))


def add_noise(frames: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise, independent in every pixel, channel and frame; clamped to [0, 1]."""
    # float32 on the generator's device: the draw must not depend on where or in what dtype we train
    noise = torch.randn(frames.shape, generator=generator, device=generator.device)
    return (frames + sigma * noise.to(frames)).clamp(0, 1)


def compress_jpeg(frames: Tensor, quality: int) -> Tensor:
    """Each frame of `c t h w` in [0, 1] through a JPEG file in memory; on the 8-bit grid after."""
    pixels = rearrange(frames, "c t h w -> t h w c").clamp(0, 1).mul(255).round().byte()
    decoded: list[Tensor] = []
    for image in pixels.cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=quality)
        decoded.append(torch.from_numpy(np.array(Image.open(file))))
    return rearrange(torch.stack(decoded), "t h w c -> c t h w").to(frames) / 255


def quantize(frames: Tensor) -> Tensor:
    """Round values in [0, 1] to the 8-bit grid k/255."""
    return frames.mul(255).round() / 255


def _draw(generator: torch.Generator) -> float:
    """A uniform number in [0, 1)."""
    return torch.rand((), generator=generator, device=generator.device, dtype=torch.float64).item()


def _check(frames: Tensor, scale: int) -> None:
    shape = tuple(frames.shape)
    if len(shape) != 5:
        raise ValueError(f"frames are b c t h w, not {shape}")
    if shape[3] % scale or shape[4] % scale:
        raise ValueError(f"{shape[3]}x{shape[4]} frames cannot be divided by {scale}: crop them")
