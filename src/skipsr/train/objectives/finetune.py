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


@dataclass(frozen=True, slots=True, kw_only=True)
class VelocityObjective:
    """MSE to `noise - latent` on the kept tokens, conditioned on the LR latent; logit-normal
    times."""

    def trained(self, model: Denoiser) -> Sequence[nn.Module]:
        return [model.part("transformer")]

    def losses(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Losses:
        with torch.no_grad():
            latent, base = model.encode(batch.high).float(), model.encode(batch.base).float()
        noise = torch.randn(latent.shape, generator=generator).to(latent.device)
        times = torch.randn(len(latent), generator=generator).sigmoid() * _T
        errors: list[Tensor] = []
        for i, mask in enumerate(mixed_masks(batch.high, generator)):
            route = Route(mask)
            noisy = torch.lerp(latent[i], noise[i], times[i].to(latent.device) / _T)
            velocity = model.velocity(noisy, base[i], times[i].to(latent.device), route)
            target = route.pack(to_cells(noise[i] - latent[i]))
            errors.append(F.mse_loss(velocity.float(), target))
        loss = torch.stack(errors).mean()
        plain = F.mse_loss(base, latent).item()
        return Losses(loss, {"mse": loss.item(), "mse_base": plain})


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStepObjective:
    """Direct regression from pure noise: latent error on the kept tokens plus the error of the
    decoded
    pixels, composed as at run time. The decoder is trained along, the encoder is not."""

    latent: float = 0.1
    structure: float = 0.1

    def trained(self, model: Denoiser) -> Sequence[nn.Module]:
        return [model.part("transformer"), model.part("decoder")]

    def losses(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Losses:
        with torch.no_grad():
            latent, base = model.encode(batch.high).float(), model.encode(batch.base).float()
        noise = torch.randn(latent.shape, generator=generator).to(latent.device)
        time = torch.tensor(_T, device=latent.device)
        errors: list[Tensor] = []
        composed: list[Tensor] = []
        for i, mask in enumerate(mixed_masks(batch.high, generator)):
            route = Route(mask)
            refined = route.pack(to_cells(noise[i])) - model.velocity(
                noise[i], base[i], time, route
            )
            errors.append(F.l1_loss(refined.float(), route.pack(to_cells(latent[i]))))
            composed.append(from_cells(route.scatter(refined, to_cells(base[i]))))
        decoded = model.decode(torch.stack(composed), batch.base)
        latent_loss = torch.stack(errors).mean()
        loss = pixel_loss(decoded, batch.high, self.structure) + self.latent * latent_loss
        figures = {
            "psnr": psnr(decoded, batch.high),
            "psnr_base": psnr(batch.base, batch.high),
            "latent_l1": latent_loss.item(),
            "latent_l1_base": F.l1_loss(base, latent).item(),
        }
        return Losses(loss, figures)
