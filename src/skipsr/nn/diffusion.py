"""Diffusion as in SeedVR: straight paths between latent and noise, velocity, Euler steps.

`x_t = (1 - t/T) x_0 + (t/T) x_T` with T = 1000, and the network predicts `v = x_T - x_0`.
Latents may have any shape whose last axis is the channels.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

T = 1000.0


def timesteps(steps: int) -> Tensor:
    """`steps` sampling times from 1000 down, evenly spaced, the last one above zero; float32.

    Exactly `steps` of them: the reference gets one more, near zero, for a few counts such as 49.
    """
    return (torch.arange(steps, 0, -1, dtype=torch.float64) / steps * T).float()


def shift_timestep(timestep: Tensor, latent_grid: tuple[int, int, int]) -> Tensor:
    """Timesteps moved towards the noise, the more the larger the clip.

    So are the times at which a model learns and the level of the condition's noise, but not those
    at which it is sampled.

    Args:
        timestep: of any shape, in [0, 1000].
        latent_grid: latent `(t, h, w)`, of 8x8 pixels and, after the first, 4 frames each.
    """
    frames, height, width = (latent_grid[0] - 1) * 4 + 1, 8 * latent_grid[1], 8 * latent_grid[2]
    if frames == 1:
        shift = _line(height * width, (256 * 256, 1.0), (1024 * 1024, 3.2))
    else:
        shift = _line(frames * height * width, (256 * 256 * 37, 1.0), (1280 * 720 * 145, 5.0))
    u = timestep / T
    return T * shift * u / (1 + (shift - 1) * u)


def _line(x: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    slope = (b[1] - a[1]) / (b[0] - a[0])
    return a[1] + slope * (x - a[0])


def add_noise(latent: Tensor, noise: Tensor, timestep: Tensor | float) -> Tensor:
    """The point at `timestep` on the way from `latent` to `noise`."""
    return torch.lerp(latent, noise, torch.as_tensor(timestep / T).to(latent))


def step(x: Tensor, velocity: Tensor, now: Tensor | float, then: Tensor | float) -> Tensor:
    """Euler step from time `now` to time `then`; `then = 0` gives the predicted latent."""
    return x + velocity * ((then - now) / T)


def velocity_between(
    start: Tensor, end: Tensor, now: Tensor | float, then: Tensor | float
) -> Tensor:
    """The velocity whose `step` from time `now` to time `then` leads from `start` to `end`."""
    return (end - start) * (T / (then - now))


def guide(positive: Tensor, negative: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """Classifier-free guidance.

    With `rescale`, the result's deviation over the channels of each latent pixel is drawn back
    towards that of the positive prediction.
    """
    guided = negative + scale * (positive - negative)
    if rescale:
        ratio = positive.std(-1, keepdim=True) / guided.std(-1, keepdim=True)
        guided = guided * (rescale * ratio + 1 - rescale)
    return guided


def condition(latent: Tensor) -> Tensor:
    """What the network is told about the LR clip: its latent (`... c`) and a channel of ones."""
    return torch.cat((latent, torch.ones_like(latent[..., :1])), -1)


def sample(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Integrate from `noise` to the latent in `steps` calls of `velocity(x, timestep)`."""
    times = [*timesteps(steps), torch.zeros((), dtype=torch.float32)]
    x = noise
    for now, then in pairwise(times):
        x = step(x, velocity(x, now), now, then)
    return x
