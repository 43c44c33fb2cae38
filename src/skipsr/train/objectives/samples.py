"""What the transformer's objectives share: one clip ready for it, and its errors on kept tokens."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.contract import Denoiser
from skipsr.skipping.oracle import TAU
from skipsr.skipping.route import Route, to_cells
from skipsr.train.masks import MaskShares, mixed_masks
from skipsr.train.objective import Batch, draw_normal, to_latents

T = 1000.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of a batch, ready for the transformer; latents `t h w c`, float32."""

    latent: Tensor  # of the HR clip
    base: Tensor  # of the upsampled LR clip
    noise: Tensor
    time: Tensor  # scalar in [0, 1000], logit-normal
    route: Route
    draw: torch.Generator

    def kept(self, latent: Tensor) -> Tensor:
        """The kept cells of `t h w c`, as `k 4 c`."""
        return self.route.pack(to_cells(latent))

    def at(self, time: Tensor) -> Tensor:
        """The point at `time` on the way from the HR latent to the noise."""
        return torch.lerp(self.latent, self.noise, time / T)


def draw_samples(model: Denoiser, batch: Batch, shares: MaskShares) -> list[Sample]:
    """Encode a batch (without gradients) and draw noise, times and masks for it."""
    latents = to_latents(model, batch)
    noise = draw_normal(latents.high, latents.draws)
    times = draw_normal(latents.high[:, 0, 0, 0, 0], latents.draws).sigmoid() * T

    def predicted(i: int) -> Tensor:
        if not model.predicts:
            return latents.errors[i] > TAU  # the truth in the place of who would tell it
        return model.scores(latents.base[i : i + 1])[0] > 0

    with torch.no_grad():
        masks = mixed_masks(latents.errors, predicted, shares, latents.draws)
    routes = [Route(mask) for mask in masks]
    parts = zip(latents.high, latents.base, noise, times, routes, latents.draws, strict=True)
    return [Sample(*part) for part in parts]


def velocity_error(model: Denoiser, sample: Sample) -> Tensor:
    """MSE of the predicted velocity on the kept tokens, at the sample's time."""
    velocity = model.velocity(sample.at(sample.time), sample.base, sample.time, sample.route)
    return F.mse_loss(velocity.float(), sample.kept(sample.noise - sample.latent))


def one_step(model: Denoiser, sample: Sample) -> Tensor:
    """The kept cells' latent in one step from noise, `k 4 c`, float32."""
    time = torch.full_like(sample.time, T)
    velocity = model.velocity(sample.noise, sample.base, time, sample.route)
    return sample.kept(sample.noise) - velocity.float()
