"""What one kind of training computes; the loop is common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from skipsr.backbones.trainable import Denoiser
from skipsr.skipping.oracle import patch_errors

ModelT = TypeVar("ModelT", contravariant=True)
Generators = tuple[torch.Generator, ...]
"""One for each clip: its randomness, on whichever device it is trained."""


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """Training clips and their degraded versions, in [0, 1]."""

    high: Tensor  # b 3 t h w
    base: Tensor  # b 3 t h w, the LR clip as the model reads it, see `Backbone.training_input`
    generators: Generators


@dataclass(frozen=True, slots=True)
class LatentBatch:
    """The same clips, encoded by the frozen autoencoder: all that most objectives need."""

    high: Tensor  # b t h w c, float32
    base: Tensor  # b t h w c
    errors: Tensor  # b t h/2 w/2: what plain upsampling leaves of each token, `patch_errors`
    generators: Generators


Batch = ClipBatch | LatentBatch


def map_tensors(batch: Batch, do: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with `do` done to each of its tensors."""
    if isinstance(batch, ClipBatch):
        return ClipBatch(do(batch.high), do(batch.base), batch.generators)
    return LatentBatch(do(batch.high), do(batch.base), do(batch.errors), batch.generators)


Reads = Literal["clips", "latents"]


def to_latents(model: Denoiser, batch: Batch) -> LatentBatch:
    """Encode a batch without gradients, unless that was done before."""
    if isinstance(batch, LatentBatch):
        return batch
    with torch.no_grad():
        high, base = model.encode(batch.high).float(), model.encode(batch.base).float()
        return LatentBatch(high, base, patch_errors(batch.high), batch.generators)


def to_clips(batch: Batch) -> ClipBatch:
    """The batch as pixels.

    Raises:
        TypeError: for latents, from which there is no way back; `Objective.reads` tells beforehand.
    """
    if isinstance(batch, LatentBatch):
        raise TypeError("this objective needs clips, not latents")
    return batch


def draw_normal(like: Tensor, generators: Generators) -> Tensor:
    """Standard normal noise shaped like `b ...`, each sample from its own generator; float32."""
    noise = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
    return torch.stack(noise).to(like.device)


def draw_uniform(generators: Generators, device: torch.device | str = "cpu") -> Tensor:
    """A number in [0, 1) for each sample, `b`."""
    return torch.stack([torch.rand((), generator=generator) for generator in generators]).to(device)


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss to minimise, and figures worth logging, scalars."""

    total: Tensor
    figures: Mapping[str, float | Tensor]


@dataclass(frozen=True, slots=True)
class Phase:
    """Parameters that one optimiser updates, and their loss.

    The phases of an objective take turns on every batch.
    """

    name: str
    trained: nn.Module
    losses: Callable[[Batch], Losses]
    auxiliary: Sequence[nn.Module] = ()
    """Teachers and discriminators: not part of the model, saved with the run."""
    rate: float = 1.0  # of the settings' learning rate
    rates: Mapping[str, float] = field(default_factory=dict[str, float])
    """For parameters whose names begin so, a share of that rate."""
    static: bool = False
    """The losses follow from the batch's tensors alone: no generator, and nothing read back, so
    that a step can be recorded and replayed."""


class Objective(Protocol[ModelT]):
    """Chooses what is trained and gives its losses, for models of one protocol."""

    reads: ClassVar[Reads]
    """Whether latents suffice; then they can be computed once and kept (`LatentSource`)."""

    def phases(self, model: ModelT) -> Sequence[Phase]:
        """The phases of a step, around `model`, which starts each stage as it is then.

        The first phase trains the model itself; its weights are the ones averaged and exported.
        Every random choice of a loss comes from the batch's `generators`, so that a resumed run
        equals an uninterrupted one, and many devices equal one.
        """
        ...
