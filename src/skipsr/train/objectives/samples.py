"""What the transformer's objectives share: one clip ready for it, and its errors on kept tokens."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.trainable import Denoiser
from skipsr.nn.diffusion import T, add_noise, shift_timestep, step, velocity_between
from skipsr.skipping.oracle import TAU
from skipsr.skipping.route import Route, to_cells
from skipsr.train.masks import MaskShares, mixed_masks
from skipsr.train.objective import Batch, draw_normal, draw_uniform, to_latents


@dataclass(frozen=True, slots=True)
class LatentSample:
    """One clip of a batch, ready for the transformer; latents `t h w c`, float32."""

    latent: Tensor  # of the HR clip
    base: Tensor  # of the upsampled LR clip
    condition: Tensor  # the base as the transformer is told it
    noise: Tensor
    time: Tensor  # scalar in [0, 1000], logit-normal
    route: Route
    generator: torch.Generator

    def kept(self, latent: Tensor) -> Tensor:
        """The kept cells of `t h w c`, as `k 4 c`."""
        return self.route.pack(to_cells(latent))

    def at(self, time: Tensor) -> Tensor:
        """The point at `time` on the way from the HR latent to the noise."""
        return add_noise(self.latent, self.noise, time)


def draw_samples(
    model: Denoiser,
    batch: Batch,
    shares: MaskShares,
    *,
    shifted: bool = False,
    condition_noise: float = 0.0,
) -> list[LatentSample]:
    """Encode a batch (without gradients) and draw noise, times and masks for it.

    Args:
        shifted: whether times move with the size of the clips, see `shift_timestep`.
        condition_noise: up to what share of the way to noise the condition is moved, 0 to 1; drawn
            evenly for each clip, and then shifted.
    """
    latents = to_latents(model, batch)
    _, t, h, w, _ = latents.high.shape
    noise = draw_normal(latents.high, latents.generators)
    times = draw_normal(latents.high[:, 0, 0, 0, 0], latents.generators).sigmoid() * T
    if shifted:
        times = shift_timestep(times, (t, h, w))

    def predicted(i: int) -> Tensor:
        if not model.predicts:
            return latents.errors[i] > TAU  # the oracle's
        return model.scores(latents.base[i : i + 1])[0] > 0

    with torch.no_grad():
        masks = mixed_masks(latents.errors, predicted, shares, latents.generators)
    routes = [Route(mask) for mask in masks]
    condition = latents.base
    if condition_noise:
        levels = draw_uniform(latents.generators, condition.device) * condition_noise * T
        levels = rearrange(shift_timestep(levels, (t, h, w)), "b -> b 1 1 1 1")
        condition = add_noise(condition, draw_normal(condition, latents.generators), levels)
    parts = (latents.high, latents.base, condition, noise, times, routes, latents.generators)
    return [LatentSample(*part) for part in zip(*parts, strict=True)]


def velocity_error(model: Denoiser, sample: LatentSample, guidance: float = 1.0) -> Tensor:
    """MSE of the predicted velocity on the kept tokens, at the sample's time."""
    noisy, time = sample.at(sample.time), sample.time
    velocity = model.velocity(noisy, sample.condition, time, sample.route, guidance=guidance)
    target = velocity_between(sample.latent, sample.noise, 0.0, T)
    return F.mse_loss(velocity.float(), sample.kept(target))


def one_step(model: Denoiser, sample: LatentSample) -> Tensor:
    """The kept cells' latent in one step from noise, `k 4 c`, float32."""
    time = torch.full_like(sample.time, T)
    velocity = model.velocity(sample.noise, sample.condition, time, sample.route)
    return step(sample.kept(sample.noise), velocity.float(), T, 0.0)
