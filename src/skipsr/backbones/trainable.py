"""What a network offers training, where its family has it; `Backbone` is in `contract`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from skipsr.skipping.oracle import TAU
from skipsr.skipping.route import Route
from skipsr.weights.folder import WeightFiles

PartName = Literal["autoencoder", "decoder", "transformer", "predictor"]


@runtime_checkable
class Denoiser(Protocol):
    """What training needs from a diffusion family.

    Batches are of equal clips, frames `b 3 t h w` in [0, 1].
    """

    def part(self, name: PartName) -> nn.Module:
        """A part that an objective can train; a predictor that is not there begins untrained.

        The transformer's holds one module with its layers in `blocks`. Called with `(cells, text,
        timestep, geometry)`, it calls each of them with `(video, text, time, layout,
        text_rotation)`, and each its `attn` with `(video, text, layout, text_rotation)`; both
        return video and text.
        """
        ...

    @property
    def predicts(self) -> bool:
        """Whether there is a mask predictor; without one every token is computed."""
        ...

    def encode(self, frames: Tensor) -> Tensor:
        """Latents `b t h w c`, scaled as the transformer reads them; the posterior's mean."""
        ...

    def encode_sample(
        self, frames: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """A sample of the posterior, as `encode` lays it out, and the mean KL divergence per value.

        Each clip has its own generator.
        """
        ...

    def scores(self, latent: Tensor, tau: float = TAU) -> Tensor:
        """The mask predictor's logits `b t h/2 w/2`, for LR latents `b t h w c`.

        They say how likely a token's error exceeds `tau`.
        """
        ...

    def velocity(
        self,
        noisy: Tensor,
        base: Tensor,
        timestep: Tensor,
        route: Route,
        *,
        guidance: float | None = None,
    ) -> Tensor:
        """Velocity of one sample's kept cells, `k 4 c`, from latents `t h w c`.

        Args:
            timestep: in [0, 1000].
            guidance: classifier-free; None for the model's own.
        """
        ...

    def decode(self, latent: Tensor, base: Tensor) -> Tensor:
        """Frames `b 3 t h w`, about [0, 1]; `base` are the upsampled LR frames."""
        ...


@runtime_checkable
class Recurrent(Protocol):
    """What training needs from a recurrent family; frames `b t 3 h w` in [0, 1]."""

    def part(self, name: Literal["all", "flow"]) -> nn.Module:
        """A part that an objective can train."""
        ...

    def flows(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Optical flows `b t-1 2 h w`: from each frame to the next, and from each next one back.

        They are in pixels, across then down.
        """
        ...

    def __call__(self, frames: Tensor) -> Tensor:
        """The enlarged frames, `b t 3 4h 4w` or by another scale of the network."""
        ...


@dataclass(frozen=True, slots=True)
class RoutingTrace:
    """The forward pass of a routed network, with its features and decisions.

    Directions are backward and forward, their frames in order of travel. A place is a patch of a
    clip, all of a clip's in a row.
    """

    frames: Tensor  # enlarged, b t 3 h w
    features: Sequence[Sequence[Sequence[Tensor]]]  # direction, frame, blocks run before: b c h w
    confidences: Tensor  # direction, frame, block, place; 1 for first frames
    executed: Tensor  # the same, bool
    means: Callable[[Tensor], Tensor]  # of a map `b c h w` over each place: `place c`, float32


@runtime_checkable
class RoutedRecurrent(Recurrent, Protocol):
    """A recurrent family with a router per direction, which skips residual blocks."""

    @property
    def aligned_layers(self) -> Sequence[int]:
        """The numbers of blocks after which features are held to the dense network's.

        They rise, and the last is that of all blocks.
        """
        ...

    def routers(self) -> nn.Module:
        """The routers of both directions; they begin untrained if there are none."""
        ...

    def residual_planes(self, backward: Tensor, forward: Tensor) -> Tensor:
        """The residual that states of both directions, `b c h w`, add to the upsampled frame.

        It is given before pixel shuffle: `b k h w`, with the `k` values of an LR pixel as channels.
        """
        ...

    def forward_traced(
        self,
        frames: Tensor,
        threshold: Tensor,
        routers: nn.Module | None = None,
        *,
        tile: int | None = None,
    ) -> RoutingTrace:
        """Run a batch and keep its features and decisions.

        A clip's blocks run where the confidence is above its threshold (`b`), by the network's own
        routers or by others, in tiles of a side or in whole frames.
        """
        ...


@runtime_checkable
class Regional(Recurrent, Protocol):
    """A recurrent family that can be run on masked regions alone."""

    def masked(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Masked forward pass: frames `b t 3 h w` and masks (1 = run) -> enlarged frames.

        Masks are `b t 1 h/f w/f`, where a network folds `f` by `f` pixels first; most do not. The
        result holds where the mask is 1; everything else is left out.
        """
        ...


@dataclass(frozen=True, slots=True)
class Traced:
    """What is held between a network's layers, and a tensor that tells its weights from others."""

    layers: Tensor  # t k h w: all layers' channels
    known_by: Tensor


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A network, and the thresholds that it holds for budgets."""

    network: nn.Module
    thresholds: Tensor  # k 2: budgets, rising, and their thresholds


class Calibrator(Protocol):
    """Finds the thresholds that meet budgets on LR clips `t 3 h w` in [0, 1].

    With `fit` it finds the routers too, in closed form. The clips are read after the weights, so
    that weights that will not do end the job at once.

    Raises:
        WeightsError: when the weights do not fit, or hold nothing that has a threshold.
    """

    def __call__(
        self,
        preset: str,
        files: WeightFiles,
        clips: Iterable[Tensor],
        device: torch.device,
        *,
        fit: bool = False,
    ) -> Calibrated: ...
