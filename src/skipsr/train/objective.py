"""What one kind of training computes; the loop is common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from skipsr.backbones.contract import Denoiser


@dataclass(frozen=True, slots=True)
class Batch:
    """Training clips and their degraded versions, in [0, 1]."""

    high: Tensor  # b 3 t h w
    base: Tensor  # b 3 t h w, the LR clip upsampled as the upscaler does


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss to minimise, and figures worth logging."""

    total: Tensor
    figures: dict[str, float]


class Objective(Protocol):
    """Chooses what is trained and says how wrong it is."""

    def trained(self, model: Denoiser) -> Sequence[nn.Module]:
        """Modules whose parameters are optimised; all others are frozen."""
        ...

    def losses(self, model: Denoiser, batch: Batch, generator: torch.Generator) -> Losses:
        """Every random choice comes from `generator`, so that a resumed run equals an uninterrupted
        one."""
        ...
