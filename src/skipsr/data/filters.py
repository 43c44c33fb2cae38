"""The parts of a degradation, seeded blur, resizing and noise, and their parameters' sampler.

Shapes are `c t h w` with values in [0, 1]. Parameters are drawn once per clip and drift from frame
to frame. Ranges are those of Real-ESRGAN (arXiv 2107.10833), with the drift through a clip of
RealBasicVSR (arXiv 2111.12704), where nothing else is said.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

T = TypeVar("T")
Range = tuple[float, float]  # lowest and highest, both included
Kernel = Literal[
    "iso", "aniso", "generalised_iso", "generalised_aniso", "plateau_iso", "plateau_aniso", "sinc"
]
Mode = Literal["area", "bilinear", "bicubic"]

MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")
PUBLISHED_KERNELS: tuple[tuple[Kernel, float], ...] = (
    ("iso", 0.405),
    ("aniso", 0.225),
    ("generalised_iso", 0.108),
    ("generalised_aniso", 0.027),
    ("plateau_iso", 0.108),
    ("plateau_aniso", 0.027),
    ("sinc", 0.1),
)
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class ParameterSampler:
    """Draws the random parameters of a degradation; one generator's seed decides them all."""

    generator: torch.Generator
    drift: float = 0.0
    """Greatest change of a parameter from one frame to the next, as a share of its range."""

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._rand(1))

    def chance(self, probability: float) -> bool:
        """True with this probability; always draws once."""
        return self.uniform(0, 1) < probability

    def choose(self, options: Sequence[T], shares: Sequence[float] | None = None) -> T:
        """One of the options, each as likely as its share; equally likely without shares."""
        weights = shares or [1.0] * len(options)
        point = self.uniform(0, sum(weights))
        for option, weight in zip(options, weights, strict=True):
            if point < weight:
                return option
            point -= weight
        return next(o for o, w in zip(reversed(options), reversed(weights), strict=True) if w > 0)

    def walk(self, bounds: Range, frames: int) -> Tensor:
        """A random walk, reflected at the bounds: one value per frame, `t`, on the CPU."""
        low, high = bounds
        start, steps = self._rand(1), 2 * self._rand(frames - 1) - 1
        path = torch.cat([start, start + self.drift * steps.cumsum(0)])
        folded = 1 - (1 - path % 2).abs()  # 0 to 1 goes up, 1 to 2 comes back down
        return (low + (high - low) * folded).float().clamp(low, high)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal float32 numbers, on the generator's device."""
        return torch.randn(*shape, generator=self.generator, device=self.generator.device)

    def poisson(self, rate: Tensor) -> Tensor:
        """Counts with these expectations, on the device and in the type of `rate`."""
        moved = rate.to(self.generator.device, torch.float32)
        return torch.poisson(moved, generator=self.generator).to(rate)

    def _rand(self, count: int) -> Tensor:
        device = self.generator.device
        return torch.rand(count, generator=self.generator, device=device, dtype=torch.float64).cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blur:
    """Convolution with one kind of kernel per clip."""

    probability: float = 1.0
    kernels: tuple[tuple[Kernel, float], ...] = PUBLISHED_KERNELS
    """Kinds and their shares."""
    sigma: Range = (0.2, 3.0)
    """Widths along both axes, pixels."""
    beta_generalised: Range = (0.5, 4.0)
    """Exponent of generalised Gaussians; 1 is the Gaussian."""
    beta_plateau: Range = (1.0, 2.0)
    """Exponent of the plateau kernels; larger is flatter."""
    cutoff: Range = (1 / 5, 1.0)
    """Pass band of sinc kernels as a share of Nyquist; at least 1/3 for those below 13 pixels."""
    size: tuple[int, int] = (7, 21)
    """Smallest and largest side of a kernel, pixels, odd."""

    def at(self, strength: float) -> "Blur":
        """The same with narrower kernels and wider pass bands; 0 is next to nothing."""
        low, high = (1 - strength + strength * cut for cut in self.cutoff)
        return replace(self, sigma=_times(self.sigma, strength), cutoff=(low, high))

    def __call__(self, frames: Tensor, sampler: ParameterSampler) -> Tensor:
        if not sampler.chance(self.probability):
            return frames
        kinds, shares = zip(*self.kernels, strict=True)
        kind = sampler.choose(kinds, shares)
        low, high = self.size
        size = low + 2 * int(sampler.uniform(0, (high - low) // 2 + 1))
        return convolve(frames, self._draw(kind, size, frames.shape[1], sampler)).clamp(0, 1)

    def _draw(
        self, kind: Kernel, size: int, frames: int, sampler: ParameterSampler
    ) -> Tensor:  # t k k
        if kind == "sinc":
            low, high = self.cutoff
            least = low if size >= 13 else max(low, min(1 / 3, high))
            return sinc_kernels(size, sampler.walk((least, high), frames))
        first = sampler.walk(self.sigma, frames)
        second = sampler.walk(self.sigma, frames) if kind.endswith("aniso") else first
        angle = sampler.walk((0, math.pi), frames)
        plateau = kind.startswith("plateau")
        beta = torch.ones(frames)
        if kind not in ("iso", "aniso"):
            beta = sampler.walk(self.beta_plateau if plateau else self.beta_generalised, frames)
        distance = elliptic_distance(size, torch.stack([first, second], 1), angle)
        return gaussian_kernels(distance, beta, plateau=plateau)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Enlarge, shrink or keep: one factor for the clip, since footage keeps its size."""

    up: float = 0.2
    """Share of clips that grow."""
    down: float = 0.7
    """Share of clips that shrink."""
    factor: Range = (0.15, 1.5)
    """Smallest and largest, of the source in the first stage, of the result in later ones."""
    modes: tuple[Mode, ...] = MODES
    """Equally likely. No antialiasing, as in cheap scalers: aliasing belongs to real footage."""

    def at(self, strength: float) -> "Resize":
        """The same with factors nearer to 1; 0 keeps the size."""
        low, high = (bound**strength for bound in self.factor)
        return replace(self, factor=(low, high))

    def __call__(self, frames: Tensor, base: tuple[int, int], sampler: ParameterSampler) -> Tensor:
        """To a multiple of the size `base`, at least one pixel a side."""
        low, high = self.factor
        grow, shrink = (1.0, max(1.0, high)), (min(1.0, low), 1.0)
        shares = [self.up, self.down, max(0.0, 1 - self.up - self.down)]
        factor = sampler.uniform(*sampler.choose([grow, shrink, (1.0, 1.0)], shares))
        h, w = (max(1, round(side * factor)) for side in base)
        return self.to(frames, (h, w), sampler)

    def to(self, frames: Tensor, size: tuple[int, int], sampler: ParameterSampler) -> Tensor:
        """To exactly `size`, by one of the modes."""
        return resample(frames, size, sampler.choose(self.modes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Gaussian or photon noise, in colour or the same in all channels; new in every frame."""

    probability: float = 1.0
    poisson: float = 0.5
    """Share of clips with photon noise, whose variance grows with brightness."""
    grey: float = 0.4
    """Share of clips whose channels share the noise."""
    sigma: Range = (1.0, 30.0)
    """Standard deviation of Gaussian noise, in 8-bit steps."""
    scale: Range = (0.05, 3.0)
    """Standard deviation of photon noise, 1 being that of one photon per 8-bit step."""

    def at(self, strength: float) -> "Noise":
        """The same with weaker noise; 0 is none."""
        return replace(self, sigma=_times(self.sigma, strength), scale=_times(self.scale, strength))

    def __call__(self, frames: Tensor, sampler: ParameterSampler) -> Tensor:
        if not sampler.chance(self.probability):
            return frames
        photons, grey = sampler.chance(self.poisson), sampler.chance(self.grey)
        walk = sampler.walk(self.scale if photons else self.sigma, frames.shape[1])
        amount = rearrange(walk, "t -> 1 t 1 1").to(frames) / 255
        if photons:
            rate = 255 * (luma(frames) if grey else frames)
            return (frames + amount * (sampler.poisson(rate) - rate)).clamp(0, 1)
        shape = (1 if grey else len(frames), *frames.shape[1:])
        return (frames + amount * sampler.normal(shape).to(frames)).clamp(0, 1)


def elliptic_distance(size: int, sigmas: Tensor, angle: Tensor) -> Tensor:
    """Squared distance from the centre of a kernel in units of sigma.

    Args:
        size: side of the kernel, odd.
        sigmas: `t 2`, pixels, along the two axes of the ellipse; 0 is taken as a thousandth.
        angle: `t`, radians, of the first axis against the rows.

    Returns:
        `t size size`.
    """
    y, x = _offsets(size)
    cos, sin = (rearrange(f(angle), "t -> t 1 1") for f in (torch.cos, torch.sin))
    axes = torch.stack([x * cos + y * sin, y * cos - x * sin])  # 2 t k k
    widths = rearrange(sigmas.clamp(min=1e-3), "t i -> i t 1 1")
    return (axes / widths).square().sum(0)


def gaussian_kernels(distance: Tensor, beta: Tensor, *, plateau: bool = False) -> Tensor:
    """Kernels that sum to 1, from squared distances `t k k` and exponents `t`.

    exp(-d^beta / 2), or 1 / (1 + d^beta) for plateaus (Real-ESRGAN, section 3.2).
    """
    powers = distance ** rearrange(beta, "t -> t 1 1")
    kernels = 1 / (1 + powers) if plateau else torch.exp(-powers / 2)
    return kernels / kernels.sum((1, 2), keepdim=True)


def sinc_kernels(size: int, cutoff: Tensor) -> Tensor:
    """Circular low-pass filters that ring: `t size size`, each with the sum 1.

    omega J1(omega r) / (2 pi r) (Real-ESRGAN, equation 6), cut to the square.

    Args:
        size: side of the kernel, odd.
        cutoff: `t`, omega / pi, over 0 and up to 1.
    """
    y, x = _offsets(size)
    radius = torch.hypot(y, x)
    omega = rearrange(math.pi * cutoff, "t -> t 1 1")
    rings = omega * torch.special.bessel_j1(omega * radius) / (2 * math.pi * radius)
    kernels = torch.where(radius == 0, omega**2 / (4 * math.pi), rings)
    return kernels / kernels.sum((1, 2), keepdim=True)


def convolve(frames: Tensor, kernels: Tensor) -> Tensor:
    """Filter `c t h w` with one kernel per frame, `t k k`, k odd; borders are repeated."""
    # replicate, because reflection would limit how small a crop can be
    padded = F.pad(frames, (kernels.shape[2] // 2,) * 2 + (kernels.shape[1] // 2,) * 2, "replicate")
    return F.conv2d(padded, kernels[:, None].to(frames), groups=len(kernels))


def resample(frames: Tensor, size: tuple[int, int], mode: Mode) -> Tensor:
    """Resize `c t h w` frames to `(h, w)` without antialiasing; clamped to [0, 1]."""
    if tuple(frames.shape[2:]) == size:
        return frames
    corners = None if mode == "area" else False
    return F.interpolate(frames, size=size, mode=mode, align_corners=corners).clamp(0, 1)


def _offsets(size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of a kernel's pixels from its centre, each `size size`."""
    side = torch.arange(size, dtype=torch.float32) - size // 2
    y, x = torch.meshgrid(side, side, indexing="ij")
    return y, x


def luma(frames: Tensor) -> Tensor:
    """BT.601 luma of RGB frames: `c t h w -> 1 t h w`."""
    weights = torch.tensor(_LUMA).to(frames)
    return torch.einsum("c, c t h w -> t h w", weights, frames)[None]


def _times(bounds: Range, factor: float) -> Range:
    return bounds[0] * factor, bounds[1] * factor
