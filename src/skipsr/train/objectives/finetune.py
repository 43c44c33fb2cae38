"""Fine-tuning of the transformer on the kept tokens.

By velocity, for many steps; or by the latent and its pixels at once, for one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.backbones.trainable import Denoiser
from skipsr.train.masks import MaskShares
from skipsr.train.objective import Batch, Losses, Phase, Reads, draw_uniform, to_clips, to_latents
from skipsr.train.objectives.samples import LatentSample, draw_samples, one_step, velocity_error
from skipsr.train.pixels import pixel_loss, psnr


@dataclass(frozen=True, slots=True, kw_only=True)
class VelocityObjective:
    """MSE to `noise - latent` on the kept tokens, conditioned on the LR latent.

    Times are logit-normal. A share `dropped` of the clips gets the negative text in place of the
    positive one, so that the side that guidance leads away from is trained too.
    """

    reads: ClassVar[Reads] = "latents"
    masks: MaskShares = MaskShares()
    shifted: bool = False  # this and the next: see `draw_samples`
    condition_noise: float = 0.0
    dropped: float = 0.0

    def phases(self, model: Denoiser) -> Sequence[Phase]:
        self.masks.announce(model.predicts)

        def losses(batch: Batch) -> Losses:
            samples = draw_samples(
                model,
                batch,
                self.masks,
                shifted=self.shifted,
                condition_noise=self.condition_noise,
            )
            errors = [velocity_error(model, sample, self._guidance(sample)) for sample in samples]
            loss = torch.stack(errors).mean()
            plain = torch.stack([F.mse_loss(s.base, s.latent) for s in samples]).mean()
            return Losses(loss, {"mse": loss.item(), "mse_base": plain.item()})

        return [Phase("transformer", model.part("transformer"), losses)]

    def _guidance(self, sample: LatentSample) -> float:
        """1 for the positive text alone, 0 for the negative."""
        if not self.dropped:
            return 1.0
        return float(torch.rand((), generator=sample.generator).item() >= self.dropped)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStepObjective:
    """Direct regression from pure noise: error of the latent on kept tokens, and of the pixels.

    Pixels are composed as at run time. The decoder is trained along, the encoder is not. A share
    `reconstruct` of the clips is decoded from the HR latent, so that the decoder stays an inverse
    of the encoder; a little of the velocity loss keeps many-step sampling alive.
    """

    reads: ClassVar[Reads] = "clips"
    masks: MaskShares = MaskShares()
    latent: float = 0.03
    structure: float = 0.1
    velocity: float = 0.02
    reconstruct: float = 0.25

    def phases(self, model: Denoiser) -> Sequence[Phase]:
        self.masks.announce(model.predicts)
        trained = nn.ModuleList([model.part("transformer"), model.part("decoder")])
        return [Phase("transformer", trained, lambda batch: self._losses(model, batch))]

    def _losses(self, model: Denoiser, batch: Batch) -> Losses:
        clips = to_clips(batch)
        latents = to_latents(model, clips)
        samples = draw_samples(model, latents, self.masks)
        from_truth = draw_uniform(clips.generators) < self.reconstruct
        refined = [one_step(model, sample) for sample in samples]
        composed = [
            s.latent if truth else s.route.compose(cells, s.base)
            for s, cells, truth in zip(samples, refined, from_truth, strict=True)
        ]
        decoded = model.decode(torch.stack(composed), clips.base)
        latent_error = torch.stack([_l1(c, s) for c, s in zip(refined, samples, strict=True)])
        loss = pixel_loss(decoded, clips.high, self.structure) + self.latent * latent_error.mean()
        figures = _figures(decoded, clips.base, clips.high, from_truth)
        figures["latent_l1"] = latent_error.mean().item()
        plain = [F.l1_loss(s.kept(s.base), s.kept(s.latent)).item() for s in samples]
        figures["latent_l1_base"] = sum(plain) / len(plain)
        if self.velocity:
            errors = torch.stack([velocity_error(model, sample) for sample in samples]).mean()
            loss = loss + self.velocity * errors
            figures["velocity_mse"] = errors.item()
        return Losses(loss, figures)


def _l1(cells: Tensor, sample: LatentSample) -> Tensor:
    return F.l1_loss(cells, sample.kept(sample.latent))


def _figures(decoded: Tensor, base: Tensor, high: Tensor, truth: Tensor) -> dict[str, float]:
    """Gain over the base in dB, of clips decoded from refined latents and from the truth's."""
    gains = [float(psnr(d, h) - psnr(b, h)) for d, b, h in zip(decoded, base, high, strict=True)]
    figures: dict[str, float] = {}
    for name, wanted in (("gain", False), ("gain_truth", True)):
        chosen = [gain for gain, t in zip(gains, truth.tolist(), strict=True) if t == wanted]
        if chosen:
            figures[name] = sum(chosen) / len(chosen)
    return figures
