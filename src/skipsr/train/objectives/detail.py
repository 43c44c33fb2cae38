"""Adversarial training of a recurrent network: sharper than what errs least on average."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.trainable import Recurrent
from skipsr.train.objective import Batch, Losses, Phase, Reads, to_clips
from skipsr.train.objectives.reconstruct import enlarge
from skipsr.train.patch_discriminator import PatchDiscriminator
from skipsr.train.pixels import charbonnier, psnr, structure_loss

_SURE = 0.25  # margin of logits from which the discriminator has its full weight


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailObjective:
    """Charbonnier and structure loss, and a hinge loss against a `PatchDiscriminator`.

    The adversarial gradient at the frames is scaled to `share` of the norm of the other losses'
    gradient there: VQGAN's adaptive weight (arXiv 2012.09841, equation 7), at the frames instead of
    the last layer. It grows with the margin between the discriminator's logits of true and of made
    frames; without that, its first guesses threw the network far off. Norms and margin are those of
    the batch, so that of several devices each weighs by its own clips.
    """

    reads: ClassVar[Reads] = "clips"
    share: float = 0.7
    structure: float = 0.1
    discriminator_rate: float = 4.0  # learning rate of the discriminator over the model's
    flow_rate: float = 0.25  # of the flow network, as a share of the learning rate

    def phases(self, model: Recurrent) -> Sequence[Phase]:
        discriminator = PatchDiscriminator()
        pair: list[Tensor] = []  # what the model's phase made and its truth, for the other phase

        def refine(batch: Batch) -> Losses:
            result, high = enlarge(model, to_clips(batch))
            pair[:] = [result.detach(), high]
            return self._refine(result, high, discriminator)

        def judge(_batch: Batch) -> Losses:
            fake, real = (discriminator(frames) for frames in pair)
            loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
            return Losses(loss, {"margin": (real - fake).mean()})

        return [
            Phase(
                "model",
                model.part("all"),
                refine,
                rates={"spynet": self.flow_rate},
                static=True,
            ),
            Phase(
                "discriminator",
                discriminator,
                judge,
                auxiliary=[discriminator],
                rate=self.discriminator_rate,
                static=True,
            ),
        ]

    def _refine(self, result: Tensor, high: Tensor, discriminator: PatchDiscriminator) -> Losses:
        faithful = charbonnier(result, high)
        if self.structure:
            faithful = faithful + self.structure * structure_loss(result, high)
        adversarial = -discriminator(result).mean()
        (faithful_gradient,) = torch.autograd.grad(faithful, result, retain_graph=True)
        (adversarial_gradient,) = torch.autograd.grad(adversarial, result)
        with torch.no_grad():
            margin = discriminator(high).mean() + adversarial
            heed = (margin / _SURE).clamp(0, 1)
        scale = self.share * heed * faithful_gradient.norm() / (adversarial_gradient.norm() + 1e-8)
        # a loss with just this gradient, whose value is that of both
        gradient = faithful_gradient + scale * adversarial_gradient
        pull = (result * gradient).sum()
        total = pull - pull.detach() + faithful.detach()
        return Losses(total, {"psnr": psnr(result, high), "heed": heed})
