"""What a backbone offers the rest of the package. The pipeline knows an `Upscaler`, training a
`Denoiser`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from skipsr.clip import Clip
from skipsr.settings import SkipSettings
from skipsr.skipping.oracle import TAU
from skipsr.skipping.route import Route
from skipsr.skipping.work import Work
from skipsr.timeline import Limits
from skipsr.weights.folder import WeightFiles
from skipsr.weights.identify import Kind, Shape


@dataclass(frozen=True, slots=True)
class Upscaled:
    """A larger clip, and what was computed for it."""

    clip: Clip
    work: Work

    @property
    def computed(self) -> float:
        """Share of the model's units computed, 0 to 1."""
        return self.work.fraction


class Upscaler(Protocol):
    """A loaded model, ready to run. `Clip` in, `Clip` out."""

    @property
    def name(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def asked(self) -> Mapping[str, float]:
        """How much was asked for, by the name of the setting, such as `{"quality": 0.5}`."""
        ...

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        """Enlarge `clip` to `size` = `(height, width)`; the same seed gives the same result."""
        ...

    def work(self, clip: Clip, size: tuple[int, int]) -> Work:
        """What `upscale` would compute; a recurrent model has to run its trunk to know."""
        ...

    def enlarge(self, clip: Clip, size: tuple[int, int]) -> Clip:
        """The plainly upsampled clip, which is what skipped cells show."""
        ...


PartName = Literal["autoencoder", "decoder", "transformer", "predictor"]


@runtime_checkable
class Denoiser(Protocol):
    """What training needs from a diffusion family; batches of equal clips, frames `b 3 t h w` in
    [0, 1]."""

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
        self, frames: Tensor, draws: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """A draw from the posterior, as `encode` lays it out, each clip from its own generator, and
        the mean KL divergence per latent value."""
        ...

    def scores(self, latent: Tensor, tau: float = TAU) -> Tensor:
        """The mask predictor's logits `b t h/2 w/2` that a token's error exceeds `tau`, for LR
        latents `b t h w c`."""
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
        """Velocity of one sample's kept cells, `k 4 c`, from `t h w c` latents and a time in [0,
        1000]; with the guidance the model is sampled with, or with another."""
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
        """Flows `b t-1 2 h w` from each frame to the next, and from each next one back."""
        ...

    def __call__(self, frames: Tensor) -> Tensor:
        """The enlarged frames `b t 3 4h 4w`."""
        ...


@dataclass(frozen=True, slots=True)
class Observed:
    """What a gated network did with a batch whose clips are cut into patches; directions are
    backward and forward, their frames in order of travel. A place is a patch of a clip, all of a
    clip's in a row."""

    frames: Tensor  # b t 3 4h 4w
    features: Sequence[Sequence[Sequence[Tensor]]]  # direction, frame, blocks run before: b c h w
    confidences: Tensor  # direction, frame, block, place; 1 for first frames
    executed: Tensor  # the same, bool
    means: Callable[[Tensor], Tensor]  # of a map `b c h w` over each place: `place c`, float32


@runtime_checkable
class Gated(Recurrent, Protocol):
    """A recurrent family whose blocks can be skipped."""

    @property
    def aligned(self) -> Sequence[int]:
        """After how many blocks a network with skipping is held to one without; rising, the last
        after all."""
        ...

    def routers(self) -> nn.Module:
        """The confidence estimators; they begin untrained if there are none."""
        ...

    def correction(self, backward: Tensor, forward: Tensor) -> Tensor:
        """What states of both directions, `b c h w`, add to the plainly enlarged frame: `b k h w`,
        all pixels of the result that belong to an LR pixel as its channels."""
        ...

    def observe(
        self,
        frames: Tensor,
        threshold: Tensor,
        routers: nn.Module | None = None,
        *,
        tile: int | None = None,
    ) -> Observed:
        """Run a batch, each clip's blocks where the confidence is above its threshold (`b`); with
        the network's own routers or another one's, in tiles of a side or in whole frames."""
        ...


@runtime_checkable
class Regional(Recurrent, Protocol):
    """A recurrent family that can be run for a part of the picture alone."""

    def masked(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Frames `b t 3 4h 4w` of frames `b t 3 h w` and masks `b t 1 h w` (1 = run), as they are
        where everything else is left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A family of models: its presets, networks and files."""

    presets: Mapping[str, Any]  # frozen configs; "tiny" builds and runs on a CPU in under a second
    bundled: Mapping[str, Path]  # preset -> file shipped in the package
    limits: Callable[[Any], Limits]  # of a config
    build: Callable[[Any], nn.Module]  # pure: no files, works under torch.device("meta")
    training_input: Callable[
        [Tensor, tuple[int, int]], Tensor
    ]  # LR frames `t 3 h w` and the HR size -> the frames that the model reads
    kinds: Callable[[], Iterable[Kind]]  # the files this family knows
    normalise: Callable[
        [Mapping[str, Shape]], dict[str, Shape]
    ]  # a file's inventory under our names
    networks: Callable[
        [str, WeightFiles], Any
    ]  # preset and its files -> networks as they are in them, on the CPU
    optional: tuple[str, ...]
    """Attributes of the networks that are None where the files hold nothing for them; training
    begins them when it is asked to train them."""
    exact: tuple[str, ...] = ()  # parameters whose names begin so are run in float32
    upscaler: "Finisher"
    calibrate: "Calibrator | None" = None  # None: a budget needs no threshold found beforehand
    mapped_from: int = 4 * 2**20
    """Bytes from which a block of memory is best mapped alone, see `skipsr.memory`; by peak memory
    and time, measured in DESIGN.md."""


class Finisher(Protocol):
    """Makes upscalers of a model's networks, as settings say.

    Raises:
        SettingsError: for settings of another family, before any weights are read.
    """

    def __call__(
        self, name: str, skip: SkipSettings, steps: int | None, guidance: float | None
    ) -> Callable[[Any], Upscaler]: ...


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A network, and the thresholds that it holds for budgets."""

    network: nn.Module
    thresholds: Tensor  # k 2: budgets, rising, and their thresholds


class Calibrator(Protocol):
    """Finds the thresholds that meet budgets on LR clips `t 3 h w` in [0, 1]; with `fit` also the
    routers, in closed form.

    The clips are read after the weights, so that weights that will not do end the job at once.

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
