"""Adversarial post-training of a one-step model, as SeedVR2 was trained (arXiv 2506.05301)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.trainable import Denoiser
from skipsr.nn.diffusion import T
from skipsr.train.discriminator import Discriminator, DiscriminatorOutput
from skipsr.train.masks import MaskShares
from skipsr.train.objective import Batch, Losses, Phase, Reads
from skipsr.train.objectives.samples import LatentSample, draw_samples, one_step


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialObjective:
    """Relativistic pairing loss, L1 of latents, feature matching; approximated R1 and R2.

    The discriminator compares the one-step latent of a clip with the HR latent of the same clip:
    softplus(D(fake) - D(real)) for itself, the reverse for the model. R1 and R2 are the squared
    change of a logit when noise of deviation `sigma` joins its latent.
    """

    reads: ClassVar[Reads] = "latents"
    masks: MaskShares = MaskShares()
    depths: tuple[float, ...] = (16 / 36, 26 / 36, 1.0)
    latent: float = 1.0
    matching: float = 1.0
    pairing: float = 1.0
    penalty: float = 1000.0
    sigma: float = 0.01
    condition_noise: float = 0.0  # see `draw_samples`

    def phases(self, model: Denoiser) -> Sequence[Phase]:
        self.masks.announce(model.predicts)
        discriminator = Discriminator(model, self.depths)
        return [
            Phase(
                "model",
                model.part("transformer"),
                lambda batch: self._model(model, discriminator, batch),
            ),
            Phase(
                "discriminator",
                discriminator,
                lambda batch: self._discriminator(model, discriminator, batch),
                auxiliary=[discriminator],
            ),
        ]

    def _model(self, model: Denoiser, discriminator: Discriminator, batch: Batch) -> Losses:
        samples = draw_samples(model, batch, self.masks, condition_noise=self.condition_noise)
        pairing, matching, errors = (list[Tensor]() for _ in range(3))
        for sample in samples:
            fake = one_step(model, sample)
            time = _drawn_time(sample)
            output = discriminator(fake, sample.condition, time, sample.route)
            real = sample.kept(sample.latent)
            with torch.no_grad():
                truth: DiscriminatorOutput = discriminator(
                    real, sample.condition, time, sample.route
                )
            pairing.append(F.softplus(truth.logit - output.logit))
            matching.append(_distance(output.features, truth.features))
            errors.append(F.l1_loss(fake, real))
        parts = {
            "pairing": torch.stack(pairing).mean(),
            "matching": torch.stack(matching).mean(),
            "latent": torch.stack(errors).mean(),
        }
        weights = {"pairing": self.pairing, "matching": self.matching, "latent": self.latent}
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return Losses(total, {name: part.item() for name, part in parts.items()})

    def _discriminator(self, model: Denoiser, discriminator: Discriminator, batch: Batch) -> Losses:
        samples = draw_samples(model, batch, self.masks, condition_noise=self.condition_noise)
        losses, margins, penalties = (list[Tensor]() for _ in range(3))
        for sample in samples:
            time = _drawn_time(sample)
            with torch.no_grad():
                fake = one_step(model, sample)
            pair = {"real": sample.kept(sample.latent), "fake": fake}
            logits: dict[str, Tensor] = {}
            penalty = torch.zeros((), device=fake.device)
            for name, cells in pair.items():
                noise = torch.randn(cells.shape, generator=sample.generator).to(cells)
                logits[name] = discriminator(cells, sample.condition, time, sample.route).logit
                moved = cells + self.sigma * noise
                near = discriminator(moved, sample.condition, time, sample.route).logit
                penalty = penalty + (logits[name] - near).square()
            margin = logits["real"] - logits["fake"]
            losses.append(F.softplus(-margin) + self.penalty * penalty)
            margins.append(margin)
            penalties.append(penalty)
        figures = {
            "margin": torch.stack(margins).mean().item(),
            "penalty": torch.stack(penalties).mean().item(),
        }
        return Losses(torch.stack(losses).mean(), figures)


def _drawn_time(sample: LatentSample) -> Tensor:
    return torch.rand((), generator=sample.generator).to(sample.time) * T


def _distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Mean L1 of normalised features over the depths."""
    parts = [
        F.l1_loss(F.layer_norm(x.float(), x.shape[-1:]), F.layer_norm(y.float(), y.shape[-1:]))
        for x, y in zip(a, b, strict=True)
    ]
    return torch.stack(parts).mean()
