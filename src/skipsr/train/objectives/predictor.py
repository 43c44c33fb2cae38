"""The mask predictor: binary cross-entropy against the oracle mask of the HR clip (spec/skipsr
section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from skipsr.backbones.contract import Denoiser
from skipsr.skipping.oracle import TAU, oracle_keep
from skipsr.train.objective import Batch, Losses


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorObjective:
    """The latents are those of the frozen autoencoder on the degraded, upsampled clip."""

    tau: float = TAU

    def trained(self, model: Denoiser) -> Sequence[nn.Module]:
        return [model.part("predictor")]

    def losses(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Losses:
        with torch.no_grad():
            latent = model.encode(batch.base).float()
        keep = oracle_keep(batch.high, self.tau)
        logits = model.scores(latent).float()
        loss = F.binary_cross_entropy_with_logits(logits, keep.float())
        found = logits > 0
        hits = (found & keep).sum().item()
        figures = {
            "bce": loss.item(),
            "skipped": 1 - found.float().mean().item(),
            "skipped_oracle": 1 - keep.float().mean().item(),
            "f1": 2 * hits / max(1, (found.sum() + keep.sum()).item()),
        }
        return Losses(loss, figures)
