"""What cameras, decks and players do to a clip: the filters of `Footage`.

Shapes are `c t h w`, c = 3, with values in [0, 1]. Numbers "per frame" are `t`.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.data.filters import (
    ParameterSampler,
    convolve,
    elliptic_distance,
    gaussian_kernels,
    luma,
)

_GAINS = (1.3, 1.0, 1.5)  # of red, green and blue, as white balance in common light sets them


def soften(frames: Tensor, sigma: Tensor) -> Tensor:
    """A round Gaussian blur, `sigma` pixels wide per frame."""
    reach = max(1, math.ceil(3 * sigma.max().item()))
    distance = elliptic_distance(
        2 * reach + 1, sigma[:, None].expand(-1, 2), torch.zeros_like(sigma)
    )
    return convolve(frames, gaussian_kernels(distance, torch.ones_like(sigma)))


def motion_kernels(length: Tensor, angle: Tensor) -> Tensor:
    """Lines that sum to 1, `t k k`: what a camera smears while the shutter is open.

    Args:
        length: pixels, per frame; 1 or less smears nothing but what lies between pixels.
        angle: radians against the rows, per frame.
    """
    reach = max(1, math.ceil(length.max().item() / 2))
    side = torch.arange(-reach, reach + 1, dtype=torch.float32)
    y, x = torch.meshgrid(side, side, indexing="ij")
    cos, sin = (rearrange(f(angle), "t -> t 1 1") for f in (torch.cos, torch.sin))
    half = rearrange(length, "t -> t 1 1") / 2
    along = (half + 0.5 - (x * cos + y * sin).abs()).clamp(0, 1)
    across = (1 - (y * cos - x * sin).abs()).clamp(0, 1)
    kernels = along * across
    return kernels / kernels.sum((1, 2), keepdim=True)


def sensor_noise(
    frames: Tensor,
    shot: Tensor,
    read: Tensor,
    sampler: ParameterSampler,
    *,
    grain: float,
    grey: bool,
) -> Tensor:
    """Photon and read noise of a sensor, added in light (values squared), new in every frame.

    Args:
        frames: `c t h w`.
        shot: standard deviation of photon noise at white, in light, per frame.
        read: that of the sensor's own, everywhere the same, per frame.
        sampler: source of the noise.
        grain: width of the grains, pixels; 0 for independent pixels.
        grey: whether the channels share the noise, as film's grains do.
    """
    noise = sampler.normal((1 if grey else len(frames), *frames.shape[1:]))
    if grain > 0:
        coarse = soften(noise, torch.full((frames.shape[1],), grain))
        noise = coarse / coarse.std().clamp(min=1e-6)
    if not grey:
        noise = noise * rearrange(torch.tensor(_GAINS), "c -> c 1 1 1")
    shot, read = (rearrange(x, "t -> 1 t 1 1").to(frames) for x in (shot, read))
    light = frames.square()
    spread = (shot.square() * light + read.square()).sqrt()
    return (light + spread * noise.to(frames)).clamp(0, 1).sqrt()


def denoise(frames: Tensor, keep: float, sigma: float) -> Tensor:
    """A cheap denoiser: each frame leans on the one before where little moves, then blurs a bit.

    Args:
        frames: `c t h w`.
        keep: greatest share of the frame before, 0 to 1.
        sigma: width of the blur, pixels.
    """
    found = [frames[:, 0]]
    for frame in frames.unbind(1)[1:]:
        gap = (frame - found[-1]).abs().mean(0, keepdim=True)
        found.append(torch.lerp(frame, found[-1], keep * torch.exp(-gap / 0.05)))
    return soften(torch.stack(found, 1), torch.full((len(found),), sigma))


def sharpen(frames: Tensor, amount: Tensor, sigma: Tensor) -> Tensor:
    """Unsharp masking with its halos: what a blur of `sigma` takes, added `amount` times."""
    lost = frames - soften(frames, sigma)
    return (frames + rearrange(amount, "t -> 1 t 1 1").to(frames) * lost).clamp(0, 1)


def interlace(frames: Tensor, *, odd: bool, blend: bool) -> Tensor:
    """Every other line from the frame after, as if two fields were woven into one frame.

    Args:
        frames: `c t h w`; the last one stays.
        odd: whether it is the odd lines.
        blend: average the fields, as simple deinterlacers do, instead of weaving them.
    """
    after = torch.cat([frames[:, 1:], frames[:, -1:]], 1)
    if blend:
        return (frames + after) / 2
    woven = frames.clone()
    woven[:, :, int(odd) :: 2] = after[:, :, int(odd) :: 2]
    return woven


def repeat_frames(frames: Tensor, repeated: Tensor) -> Tensor:
    """Frames marked in `repeated`, `t`, show the one before again; the first never does."""
    places = torch.arange(frames.shape[1])
    places[1:][repeated[1:]] = 0
    return frames[:, places.cummax(0).values.to(frames.device)]


def bleed_chroma(frames: Tensor, sigma: Tensor, shift: Tensor, step: int) -> Tensor:
    """Colour blurred and shifted along the rows, and sampled more coarsely; luma stays.

    Args:
        frames: `c t h w`.
        sigma: width of the blur, pixels, per frame.
        shift: pixels to the right, per frame.
        step: pixels that share one sample of colour, along both sides.
    """
    reach = max(1, math.ceil((3 * sigma + shift.abs()).max().item()))
    place = torch.arange(-reach, reach + 1, dtype=torch.float32)
    distance = (place - rearrange(-shift, "t -> t 1")) / rearrange(sigma.clamp(min=0.3), "t -> t 1")
    kernels = torch.exp(-distance.square() / 2)
    kernels = rearrange(kernels / kernels.sum(1, keepdim=True), "t k -> t 1 k")
    light = luma(frames)
    colour = convolve(frames - light, kernels)
    h, w = frames.shape[2:]
    if step > 1:
        coarse = F.interpolate(colour, (-(-h // step), -(-w // step)), mode="area")
        colour = F.interpolate(coarse, (h, w), mode="bilinear", align_corners=False)
    return (light + colour).clamp(0, 1)
