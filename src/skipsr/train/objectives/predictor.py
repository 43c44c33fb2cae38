"""The mask predictor: the paper's, for one tau, and one for every tau."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.trainable import Denoiser
from skipsr.skipping.oracle import TAU
from skipsr.train.objective import (
    Batch,
    Generators,
    LatentBatch,
    Losses,
    Phase,
    Reads,
    draw_uniform,
    to_latents,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorObjective:
    """Binary cross-entropy against the oracle mask of the HR clip.

    The latents are those of the frozen autoencoder on the degraded, upsampled clip. With `usual` 1
    this is the paper's: every clip is asked about `TAU`. A predictor that regresses the log error
    (`MaskPredictor(any_tau=True)`) is asked about taus drawn over `taus` too: summed over
    thresholds, cross-entropy is a proper score of the whole distribution of the error, so its
    location learns where the log error lies and its spread how far off that may be.
    """

    reads: ClassVar[Reads] = "latents"
    usual: float = 1.0
    taus: tuple[float, float] = (1e-5, 4e-3)

    def phases(self, model: Denoiser) -> Sequence[Phase]:
        def losses(batch: Batch) -> Losses:
            return self._losses(model, to_latents(model, batch))

        return [Phase("predictor", model.part("predictor"), losses)]

    def _losses(self, model: Denoiser, latents: LatentBatch) -> Losses:
        terms: list[Tensor] = []
        for i, tau in enumerate(self._taus(latents.generators)):
            logits = model.scores(latents.base[i : i + 1], tau).float()
            wanted = (latents.errors[i : i + 1] > tau).float()
            terms.append(F.binary_cross_entropy_with_logits(logits, wanted))
        loss = torch.stack(terms).mean()
        with torch.no_grad():
            logits = model.scores(latents.base).float()
        figures = classification(logits, latents.errors > TAU)
        return Losses(loss, {"bce": loss.item(), **figures})

    def _taus(self, generators: Generators) -> list[float]:
        usual, place = (draw_uniform(generators).tolist() for _ in range(2))
        low, high = (math.log(tau) for tau in self.taus)
        return [
            TAU if u < self.usual else math.exp(low + p * (high - low))
            for u, p in zip(usual, place, strict=True)
        ]


def classification(logits: Tensor, keep: Tensor) -> dict[str, float]:
    """Class balance, found and true, and F1 of the tokens to keep."""
    found = logits > 0
    hits = (found & keep).sum().item()
    return {
        "skipped": 1 - found.float().mean().item(),
        "skipped_oracle": 1 - keep.float().mean().item(),
        "f1": 2 * hits / max(1, (found.sum() + keep.sum()).item()),
    }
