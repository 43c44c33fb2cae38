"""What a model family offers the rest of the package; its loaded models are `Upscaler`s.

What training needs of its networks is in `trainable`.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from skipsr.backbones.options import Options
from skipsr.backbones.trainable import Calibrator, Traced
from skipsr.clip import Clip
from skipsr.limits import Limits, MemoryPlan
from skipsr.memory import keep_freed
from skipsr.settings import SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.weights.digest import network_digest
from skipsr.weights.folder import WeightFiles
from skipsr.weights.identify import FileKind, Shape
from skipsr.weights.place import Placement
from skipsr.weights.published import PublishedFile


@dataclass(frozen=True, slots=True)
class Upscaled:
    """A larger clip, and what was computed for it."""

    clip: Clip
    compute_map: ComputeMap

    @property
    def computed(self) -> float:
        """Share of the model's units computed, 0 to 1."""
        return self.compute_map.fraction


@dataclass(frozen=True, slots=True)
class Identity:
    """All that an upscaler's results depend on, beside the clip, its size and the seed.

    Weights are hashed when it is called, which takes seconds for gigabytes.
    """

    name: str
    networks: tuple[nn.Module, ...]
    told: Mapping[str, Any]  # settings that say how it runs

    def __call__(self) -> dict[str, Any]:
        """In values that can be compared and be written as JSON."""
        weights = " ".join(map(network_digest, self.networks))
        return {"model": self.name, **self.told, "weights": weights}


class Upscaler(Protocol):
    """A loaded model, ready to run. `Clip` in, `Clip` out."""

    identity: Callable[[], Mapping[str, Any]]
    """See `Identity`; whoever loads the model sets what it was told."""

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

    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        """What `upscale` would compute; a recurrent model has to run its trunk to know."""
        ...

    def upsample(self, clip: Clip, size: tuple[int, int]) -> Clip:
        """The base, which is what skipped cells show: the clip upsampled without the model."""
        ...


@runtime_checkable
class Plannable(Protocol):
    """An upscaler that can run its windows in several ways."""

    def arrange(self, plan: MemoryPlan | None) -> None:
        """Run windows as planned from now on; None: by what is free then."""
        ...


def arrange(upscaler: Upscaler, plan: MemoryPlan | None) -> None:
    """Run windows as planned, or without a plan that an earlier job had, if the upscaler can be
    told."""
    if isinstance(upscaler, Plannable):
        upscaler.arrange(plan)


@contextmanager
def arranged(upscaler: Upscaler, plan: MemoryPlan | None) -> Generator[None]:
    """Windows are run as planned, and meanwhile, on a processor with room, what is freed is kept;
    see `keep_freed`."""
    arrange(upscaler, plan)
    on_cpu = upscaler.device.partition(":")[0] == "cpu"
    with keep_freed(on_cpu and plan is not None and plan.roomy):
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A family of models: its presets, networks and files."""

    presets: Mapping[str, Any]  # frozen configs; "tiny" builds and runs on a CPU in under a second
    siblings: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Preset -> those of the same model's networks for other scales, which are loaded with it where
    there are files of them; users ask for the one name, and the size chooses (`Limits.towards`)."""
    same_files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Preset -> another whose files it takes, and by whose name they are known."""
    bundled: Mapping[str, Path]  # preset -> file shipped in the package
    published: Mapping[str, tuple[PublishedFile, ...]] = field(
        default_factory=dict[str, tuple[PublishedFile, ...]]
    )  # preset -> files that can be fetched
    limits: "LimitsFactory"
    build: Callable[[Any], nn.Module]  # pure: no files, works under torch.device("meta")
    training_input: Callable[[Tensor, tuple[int, int]], Tensor]
    """From LR frames `t 3 h w` and the HR size to the frames that the model reads."""
    kinds: Callable[[], Iterable[FileKind]]  # the files this family knows
    normalise: Callable[[Mapping[str, Shape]], dict[str, Shape]]
    """Puts a file's inventory under our names."""
    networks: Callable[[str, WeightFiles], Any]
    """From a preset and its files to networks as they are in them, on the CPU."""
    optional: tuple[str, ...]
    """Attributes of the networks that are None where the files hold nothing for them; training
    begins them when it is asked to train them."""
    exact: tuple[str, ...] = ()  # parameters whose names begin so are run in float32
    options: type[Options]  # of its own, beside the settings of all
    upscaler: "UpscalerFactory"
    place: Callable[[Any, Placement, MemoryPlan], None] | None = None
    """Puts networks where a plan says; None: all of them on the device."""
    calibrate: Calibrator | None = None  # None: a budget needs no threshold found beforehand
    trace: Callable[[Upscaler, Tensor], Traced] | None = None
    """What is held between the layers of a model of its that skips, of LR frames `t 3 h w`."""
    mmap_threshold: int = 4 * 2**20
    """Bytes from which a block of memory is best mapped alone, see `skipsr.memory`; by peak memory
    and time, measured in DESIGN.md."""

    def group(self, preset: str) -> tuple[str, ...]:
        """The presets of a model: the one that it is named by, then its siblings."""
        return (preset, *self.siblings.get(preset, ()))

    def limits_together(
        self, presets: Iterable[str], device: str, itemsize: int, stored: int | None = None
    ) -> Limits:
        """Limits of a model with networks of these presets, its own first; see `LimitsFactory`."""
        configs = (self.presets[preset] for preset in presets)
        first, *others = (self.limits(config, device, itemsize, stored) for config in configs)
        return replace(first, others=tuple(others))

    def owner(self, preset: str) -> str:
        """The preset that a model is named by which this one belongs to."""
        owners = (own for own, others in self.siblings.items() if preset in others)
        return next(owners, preset)


class LimitsFactory(Protocol):
    """Limits of a config on a device (`cuda:0`, which need not be there) with `itemsize` bytes a
    number; `stored` are those of a network's file that stays quantised, None for others."""

    def __call__(
        self, config: Any, device: str = "cpu", itemsize: int = 4, stored: int | None = None, /
    ) -> Limits: ...


class UpscalerFactory(Protocol):
    """Makes upscalers of a model's networks, as settings say.

    With `skip.dense` everything is computed, whatever the options leave out.

    Args:
        options: of the family's own class.

    Raises:
        SettingsError: for what the preset cannot do, before any weights are read.
    """

    def __call__(
        self, name: str, skip: SkipSettings, options: Any
    ) -> Callable[[Any], Upscaler]: ...
