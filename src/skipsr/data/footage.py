"""Footage as people have it: filmed, scaled, cleaned up and delivered, in that order.

`Degradation` strings random filters together; `Footage` follows the chain of real deliveries, from
the lens to the disc, phone or site that a clip comes from, with one overall strength per clip.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skipsr.data.camera import (
    bleed_chroma,
    denoise,
    interlace,
    motion_kernels,
    repeat_frames,
    sensor_noise,
    sharpen,
)
from skipsr.data.compress import Delivery
from skipsr.data.degrade import RandomDegradation, downscale
from skipsr.data.filters import MODES, Blur, Kernel, ParameterSampler, Range, convolve, resample
from skipsr.nn.resize import resize_bicubic

Size = tuple[int, int]  # h, w

_LENS: tuple[tuple[Kernel, float], ...] = (
    ("iso", 0.45),
    ("aniso", 0.3),
    ("generalised_iso", 0.25),  # nearly a disc, at the exponents below
)
_DISC = (3.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage(RandomDegradation):
    """The chain from a lens to a delivered file.

    Each sample that is not clean has one strength u^1.3, u even in 0 to 1, which scales all
    ranges. Shares are those of samples that are not clean. Frames that repeat or mix with their
    neighbours do so in the result alone: the truth keeps moving.
    """

    clean: float = 0.4
    """Share of samples that are only shrunk, by antialiased bicubic, 0 to 1."""
    defocus: float = 0.5
    """Share with the blur of a lens: Gaussian, round or not, or a disc."""
    motion: float = 0.15
    """Share with motion blur along a line."""
    rescaled: float = 0.25
    """Share that comes by way of another size, half to twice the result's."""
    cheap: float = 0.5
    """Share of scalers without antialiasing: area, bilinear, bicubic."""
    noise: float = 0.4
    """Share with the noise of a sensor, or of film."""
    sharpened: float = 0.2
    """Share with the halos of unsharp masking."""
    interlaced: float = 0.05
    """Share with two fields woven or averaged into each frame."""
    repeated: float = 0.07
    """Share in which some frames repeat the one before."""
    bleeding: float = 0.25
    """Share with colour that is coarse, blurred or shifted along the rows."""
    compressed: float = 0.9
    """Share that has been through a codec."""
    twice: float = 0.25
    """Share of those that went through a second one."""
    delivery: Delivery = Delivery()
    """The codecs, at strength 1."""

    def _degrade(self, frames: Tensor, sampler: ParameterSampler) -> Tensor:
        if sampler.chance(self.clean):
            return downscale(frames[None], self.scale)[0]
        chain = _Chain(self, sampler, self.strength * sampler.uniform(0, 1) ** 1.3)
        size = frames.shape[2] // self.scale, frames.shape[3] // self.scale
        frames = chain.shrink(chain.film(frames), size)
        return chain.deliver(chain.finish(chain.expose(frames)))


@dataclass(frozen=True, slots=True)
class _Chain:
    """What happens to one sample."""

    shares: Footage
    sampler: ParameterSampler
    strength: float

    def film(self, frames: Tensor) -> Tensor:
        """Lens and shutter, at high resolution."""
        t = frames.shape[1]
        widest = self.strength * self.shares.scale
        side = 2 * max(2, math.ceil(2.5 * widest)) + 1
        lens = Blur(
            probability=self.shares.defocus,
            kernels=_LENS,
            sigma=(widest / 10, widest),
            beta_generalised=_DISC,
            size=(side, side),
        )
        frames = lens(frames, self.sampler)
        if self.sampler.chance(self.shares.motion):
            length = self._walk((0.0, 3.0 * self.shares.scale), t)
            angle = self.sampler.walk((0, math.pi), t)
            frames = convolve(frames, motion_kernels(length, angle))
        return frames

    def shrink(self, frames: Tensor, size: Size) -> Tensor:
        """To `size`, by way of another size or not."""
        if self.sampler.chance(self.shares.rescaled):
            reach = 2**self.strength
            low, high = (1 / reach, 1.0) if self.sampler.chance(0.6) else (1.0, reach)
            factor = self.sampler.uniform(low, high)
            h, w = (max(1, round(side * factor)) for side in size)
            frames = self._scale(frames, (h, w))
        return self._scale(frames, size)

    def expose(self, frames: Tensor) -> Tensor:
        """Noise, and what is done against it."""
        sampler, t = self.sampler, frames.shape[1]
        if not sampler.chance(self.shares.noise):
            return frames
        grain = sampler.uniform(0.4, 1.0) if sampler.chance(0.4) else 0.0
        grey = sampler.chance(0.3)
        shot, read = self._walk((0.02, 0.12), t), self._walk((0.001, 0.01), t)
        frames = sensor_noise(frames, shot, read, sampler, grain=grain, grey=grey)
        if sampler.chance(0.4):
            keep, sigma = sampler.uniform(0.2, 0.7), sampler.uniform(0.3, 1.0)
            frames = denoise(frames, keep * self.strength, sigma * self.strength)
        return frames

    def finish(self, frames: Tensor) -> Tensor:
        """Sharpening, fields, frame rate and colour, as decks and editors leave them."""
        sampler, t = self.sampler, frames.shape[1]
        if sampler.chance(self.shares.sharpened):
            frames = sharpen(frames, self._walk((0.2, 1.5), t), sampler.walk((0.6, 1.6), t))
        if self._often(self.shares.interlaced):
            odd, blend = sampler.chance(0.5), sampler.chance(0.5)
            frames = interlace(frames, odd=odd, blend=blend)
        if self._often(self.shares.repeated):
            frames = repeat_frames(frames, self._repeated(t))
        if sampler.chance(self.shares.bleeding):
            shift = sampler.uniform(-1, 1) * self._walk((0.0, 2.0), t)
            step = 2 if self._often(0.5) else 1
            frames = bleed_chroma(frames, self._walk((0.3, 2.0), t), shift, step)
        return frames

    def deliver(self, frames: Tensor) -> Tensor:
        """One codec or two, at the size that is delivered."""
        if not self.sampler.chance(self.shares.compressed):
            return frames
        delivery = self.shares.delivery.at(self.strength)
        for _ in range(2 if self._often(self.shares.twice) else 1):
            frames = delivery(frames, self.sampler)
        return frames

    def _scale(self, frames: Tensor, size: Size) -> Tensor:
        if self._often(self.shares.cheap):
            return resample(frames, size, self.sampler.choose(MODES))
        return resize_bicubic(frames, size)

    def _repeated(self, t: int) -> Tensor:
        """Every so many frames, as a change of frame rate repeats them, or at random."""
        if self.sampler.chance(0.5):
            every = 2 + int(self.sampler.uniform(0, 5))
            return (torch.arange(t) + int(self.sampler.uniform(0, every))) % every == 0
        rate = self.sampler.uniform(0.1, 0.5)
        return torch.tensor([self.sampler.chance(rate) for _ in range(t)])

    def _walk(self, bounds: Range, t: int) -> Tensor:
        """Numbers that grow with the strength, one per frame."""
        return self.sampler.walk(bounds, t) * self.strength

    def _often(self, share: float) -> bool:
        """Chances of what has no degrees: they sink for the weakest samples."""
        return self.sampler.chance(share * min(1.0, 4 * self.strength))
