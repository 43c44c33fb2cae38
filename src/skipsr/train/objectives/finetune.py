"""The transformer: velocity on the kept tokens (many steps), or the latent and its pixels at once
(one step)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.backbones.contract import Denoiser
from skipsr.skipping.route import Route, from_cells, to_cells
from skipsr.train.masks import mixed_masks
from skipsr.train.objective import Batch, Losses
from skipsr.train.pixels import pixel_loss, psnr

_T = 1000.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of a batch, ready for the transformer; latents `t h w c`, float32."""

    latent: Tensor  # of the HR clip
    base: Tensor  # of the upsampled LR clip
    noise: Tensor
    time: Tensor  # scalar in [0, 1000], logit-normal
    route: Route


def draw_samples(model: Denoiser, batch: Batch, generator: torch.Generator) -> list[Sample]:
    """Encode a batch (without gradients) and draw noise, times and masks for it."""
    with torch.no_grad():
        latent, base = model.encode(batch.high).float(), model.encode(batch.base).float()
    noise = torch.randn(latent.shape, generator=generator).to(latent.device)
    times = torch.randn(len(latent), generator=generator).sigmoid().to(latent.device) * _T
    routes = [Route(mask) for mask in mixed_masks(batch.high, generator)]
    return [Sample(*parts) for parts in zip(latent, base, noise, times, routes, strict=True)]


def velocity_error(model: Denoiser, sample: Sample) -> Tensor:
    """MSE of the predicted velocity on the kept tokens, at the sample's time."""
    noisy = torch.lerp(sample.latent, sample.noise, sample.time / _T)
    velocity = model.velocity(noisy, sample.base, sample.time, sample.route)
    target = sample.route.pack(to_cells(sample.noise - sample.latent))
    return F.mse_loss(velocity.float(), target)


@dataclass(frozen=True, slots=True, kw_only=True)
class VelocityObjective:
    """MSE to `noise - latent` on the kept tokens, conditioned on the LR latent; logit-normal
    times."""

    def trained(self, model: Denoiser) -> Sequence[nn.Module]:
        return [model.part("transformer")]

    def losses(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Losses:
        samples = draw_samples(model, batch, generator)
        loss = torch.stack([velocity_error(model, sample) for sample in samples]).mean()
        plain = torch.stack([F.mse_loss(s.base, s.latent) for s in samples]).mean()
        return Losses(loss, {"mse": loss.item(), "mse_base": plain.item()})


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStepObjective:
    """Direct regression from pure noise: latent error on the kept tokens plus the error of the
    decoded
    pixels, composed as at run time. The decoder is trained along, the encoder is not; a little of
    the
    velocity loss keeps many-step sampling alive."""

    latent: float = 0.1
    structure: float = 0.1
    velocity: float = 0.02

    def trained(self, model: Denoiser) -> Sequence[nn.Module]:
        return [model.part("transformer"), model.part("decoder")]

    def losses(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Losses:
        samples = draw_samples(model, batch, generator)
        refined = [self._refine(model, sample) for sample in samples]
        composed = [
            from_cells(s.route.scatter(cells, to_cells(s.base)))
            for s, cells in zip(samples, refined, strict=True)
        ]
        decoded = model.decode(torch.stack(composed), batch.base)
        errors = [
            F.l1_loss(cells, s.route.pack(to_cells(s.latent)))
            for s, cells in zip(samples, refined, strict=True)
        ]
        latent_error = torch.stack(errors).mean()
        kept_velocity = torch.stack([velocity_error(model, sample) for sample in samples]).mean()
        loss = (
            pixel_loss(decoded, batch.high, self.structure)
            + self.latent * latent_error
            + self.velocity * kept_velocity
        )
        figures = {
            "psnr": psnr(decoded, batch.high),
            "psnr_base": psnr(batch.base, batch.high),
            "latent_l1": latent_error.item(),
            "latent_l1_base": sum(F.l1_loss(s.base, s.latent).item() for s in samples)
            / len(samples),
            "velocity_mse": kept_velocity.item(),
        }
        return Losses(loss, figures)

    def _refine(self, model: Denoiser, sample: Sample) -> Tensor:
        """The kept cells' latent in one step from noise, `k 4 c`."""
        time = torch.full_like(sample.time, _T)
        velocity = model.velocity(sample.noise, sample.base, time, sample.route)
        return sample.route.pack(to_cells(sample.noise)) - velocity.float()
