"""Autoencoder training: reconstruct, with a few cells swapped for those of the upsampled clip.

The swap is what routing does to the decoder's input at run time; the target stays the HR clip, so
the decoder learns to read fine detail from latents where they hold it and to lean on the base where
not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import repeat
from torch import Tensor

from skipsr.backbones.trainable import Denoiser
from skipsr.train.masks import smooth_mask
from skipsr.train.objective import Batch, Generators, Losses, Phase, Reads, to_clips
from skipsr.train.pixels import pixel_loss, psnr


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderObjective:
    """L1 + `structure` (1 - SSIM) + `kl` KL; a share `swap` of the clips gets cells of the base."""

    reads: ClassVar[Reads] = "clips"
    structure: float = 0.1
    kl: float = 1e-6
    swap: float = 0.1

    def phases(self, model: Denoiser) -> Sequence[Phase]:
        def losses(batch: Batch) -> Losses:
            batch = to_clips(batch)
            latent, divergence = model.encode_sample(batch.high, batch.generators)
            plain, _ = model.encode_sample(batch.base, batch.generators)
            composed = torch.where(self._kept(latent, batch.generators), latent, plain)
            decoded = model.decode(composed, batch.base)
            loss = pixel_loss(decoded, batch.high, self.structure) + self.kl * divergence
            figures = {
                "psnr": psnr(decoded, batch.high),
                "psnr_base": psnr(batch.base, batch.high),
                "kl": divergence.item(),
            }
            return Losses(loss, figures)

        return [Phase("autoencoder", model.part("autoencoder"), losses)]

    def _kept(self, latent: Tensor, generators: Generators) -> Tensor:
        """bool `b t h w 1` over latent cells."""
        _, t, h, w, _ = latent.shape
        masks: list[Tensor] = []
        for generator in generators:
            swapped = torch.rand((), generator=generator).item() < self.swap
            share = torch.rand((), generator=generator).item() if swapped else 1.0
            masks.append(smooth_mask((t, h // 2, w // 2), share, generator))
        kept = repeat(torch.stack(masks), "b t h w -> b t (h p) (w q) 1", p=2, q=2)
        return kept.to(latent.device)
