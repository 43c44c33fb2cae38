"""From a model's name to an upscaler that runs."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skipsr import backbones
from skipsr.backbones.by_scale import ByScale
from skipsr.backbones.contract import Backbone, Identity, Upscaler
from skipsr.backbones.options import Options, make_options
from skipsr.catalog import model_info
from skipsr.devices import resolve, undisturbed
from skipsr.errors import SettingsError, WeightsError
from skipsr.limits import Limits, MemoryPlan
from skipsr.memory import set_mmap_threshold
from skipsr.settings import AUTO, DType, RuntimeSettings, SkipSettings
from skipsr.skipping.need import NeedPredictor
from skipsr.weights.folder import WeightFile, WeightFiles
from skipsr.weights.identify import FileKind, Inventory, Match, identify
from skipsr.weights.load import inventory
from skipsr.weights.meta import on_meta
from skipsr.weights.place import Placement
from skipsr.weights.quantized import dequantize_layers

BUNDLED = "skipvsr:nano"  # what `auto` takes without weights
_SLOW = 1_000_000_000  # parameters from which a network without a GPU is a matter of hours
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was asked for, and its files, of which the headers were read."""

    name: str
    backbone: Backbone
    preset: str
    files: WeightFiles
    runtime: RuntimeSettings
    options: Options

    @property
    def presets(self) -> Mapping[str, str]:
        """Presets of its networks that there are files of, and their names.

        The model's own comes first, then those for other scales; its own where there are none.
        """
        found = {each: self._called(each) for each, files in self._networks.items() if files}
        return found or {self.preset: self.name}

    @property
    def limits(self) -> Limits:
        """What it can take; `limits.scales` says which networks there are."""
        device, dtype = resolve(self.runtime)
        return self.limits_on(str(device), dtype.itemsize)

    def limits_on(self, device: str, itemsize: int) -> Limits:
        """The same on a device that need not be there, with numbers of so many bytes."""
        return self.backbone.limits_together(self.presets, device, itemsize, self._stored)

    def check(self) -> None:
        """Raises:
        WeightsError: when no network of it is among its files.
        """
        if not any(self._networks.values()):
            self.files.network(self.name)  # which says what is there

    def _called(self, preset: str) -> str:
        return backbones.full_name(f"{self.name.partition(':')[0]}:{preset}")

    @property
    def _networks(self) -> dict[str, list[WeightFile]]:
        """Presets of its networks and the files of each."""
        same = self.backbone.same_files
        names = {p: self._called(same.get(p, p)) for p in self.backbone.group(self.preset)}
        networks = [(backbones.full_name(f.model), f) for f in self.files.known if f.model]
        return {p: [file for own, file in networks if own == name] for p, name in names.items()}

    @property
    def _stored(self) -> int | None:
        """Bytes of the network's file where that stays quantised."""
        file = next((file for files in self._networks.values() for file in files), None)
        return None if file is None or not file.shapes.form else file.path.stat().st_size

    @undisturbed(inference=False)
    def load(self, skip: SkipSettings | None = None, memory: MemoryPlan | None = None) -> Upscaler:
        """Read the tensors, put them where they are to run, and make an upscaler of them.

        Args:
            memory: how windows are to be run, and so where weights are to be; by default all are on
                the device.

        Raises:
            SettingsError: for what the model cannot do, or a device that is not there.
            WeightsError: when files are missing or do not fit.
        """
        set_mmap_threshold(self.backbone.mmap_threshold)
        device, dtype = resolve(self.runtime)
        place = Placement(device=device, dtype=dtype, exact=self.backbone.exact)
        finish = {
            each: self.backbone.upscaler(name, skip or SkipSettings(), self.options)
            for each, name in self.presets.items()
        }
        made: dict[int | None, Callable[[], Upscaler]] = {}
        every: list[nn.Module] = []
        for each in finish:
            networks = self.backbone.networks(each, self.files)
            if memory is None or self.backbone.place is None:
                place.put(networks)
            else:
                self.backbone.place(networks, place, memory)
            every.append(networks)
            scale = self.backbone.limits(self.backbone.presets[each]).scale
            made[scale] = partial(finish[each], networks)
        limits = self.limits
        upscaler = made.pop(limits.scale)()
        if upscaler.name != self.name or made:
            upscaler = ByScale(self.name, limits, upscaler, made)
        told = asdict(skip or SkipSettings()) | asdict(self.options)
        identity = Identity(self.name, tuple(every), told)
        # networks for other scales become what options ask for when they are used first
        upscaler.identity = partial(dict[str, Any], identity()) if made else identity
        return upscaler


def planned_limits(
    name: str, device: str, dtype: DType, weights: Path | None = None
) -> tuple[str, Limits]:
    """A model's full name and its limits on a device; neither files nor device need be there.

    Args:
        weights: files whose headers say which model that is and how its numbers are stored; without
            them, it is planned with numbers of `dtype`.

    Raises:
        SettingsError: for an unknown model or device.
        WeightsError: for files that cannot be read, or are no such model.
    """
    if device.partition(":")[0] not in ("cuda", "cpu"):
        raise SettingsError(f"`device` {device} is nothing to plan for: give cuda or cpu")
    card = device.partition(":")[0] != "cpu"
    usual = torch.bfloat16 if card else torch.float32
    itemsize = (usual if dtype == "auto" else getattr(torch, dtype)).itemsize
    if weights is not None:
        model = _find(name, RuntimeSettings(weights=weights), None)
        model.check()
        return model.name, model.limits_on(device, itemsize)
    name = BUNDLED if name == AUTO else name
    backbone, preset = backbones.family(name)
    limits = backbone.limits_together(backbone.group(preset), device, itemsize)
    return backbones.full_name(name), limits


def find_model(
    name: str = AUTO,
    runtime: RuntimeSettings | None = None,
    options: Options | Mapping[str, object] | None = None,
) -> Model:
    """The model of that name; `auto` is the one that the weights are, or `BUNDLED` without any.

    Of a model with networks for several scales those are taken that there are files of.

    It says so in the log when `auto` finds a large network, and no GPU to run it on.

    Args:
        options: of the model's family, or some of them by name.

    Raises:
        SettingsError: for an unknown model, options that its family lacks, or a device that is not
            there.
        WeightsError: when its files are missing or cannot be read, or are several models or none.
    """
    runtime = runtime or RuntimeSettings()
    model = _find(name, runtime, options)
    if name == AUTO and runtime.weights is not None:
        _warn_of_time(model)
    return model


def _find(
    name: str, runtime: RuntimeSettings, options: Options | Mapping[str, object] | None
) -> Model:
    """As `find_model`, for whatever device."""
    files = None
    if name == AUTO and runtime.weights is not None:
        files = open_weights(runtime.weights)
        name = _model_in(files)
    name = BUNDLED if name == AUTO else name
    backbone, preset = backbones.family(name)
    name = backbones.full_name(name)
    own = make_options(backbone.options, options, name)
    if files is None:
        source = _source(backbone, preset, name) if runtime.weights is None else runtime.weights
        files = open_weights(source, backbone)
    return Model(name, backbone, preset, files, runtime, own)


def load_upscaler(
    name: str = AUTO,
    skip: SkipSettings | None = None,
    runtime: RuntimeSettings | None = None,
    options: Options | Mapping[str, object] | None = None,
) -> Upscaler:
    """Load a model.

    Where there are files of its networks for several scales, all are loaded, and the sizes of clip
    and result choose; `limits.scales` of the upscaler says which there are.

    Args:
        name: `family:preset`, a short name, or `auto`; see `list_models` and `find_model`.
        skip: how much is computed.
        runtime: device, precision, and the files of models that are not bundled: a folder, or the
            file with the network, beside which its other parts are looked for. Without it, files
            are those that `fetch_model` brought.
        options: what the model's family alone can be told: its options, such as
            `skipsr.backbones.seedvr2.options.SeedVR2Options`, or some of them by name, such as
            `{"steps": 20}`.

    Raises:
        SettingsError: for an unknown model, options that its family lacks, or a device that is not
            there.
        WeightsError: when its files are missing or do not fit.
    """
    return find_model(name, runtime, options).load(skip)


def load_networks(name: str, source: Path | None) -> nn.Module:
    """The networks of a model to go on training, in float32, on the CPU.

    Parts that no file holds are left out. Without files the networks are untrained, and only what
    the model cannot be without.

    Raises:
        SettingsError: for an unknown model.
        WeightsError: when files are missing or do not fit.
    """
    backbone, preset = backbones.family(name)
    if source is not None:
        networks = backbone.networks(preset, open_weights(source, backbone))
        dequantize_layers(networks)
        return networks.float()
    networks = backbone.build(backbone.presets[preset])
    for part in backbone.optional:
        setattr(networks, part, None)
    return networks


def open_weights(source: Path | Sequence[Path], expected: Backbone | None = None) -> WeightFiles:
    """The headers of a file, a folder or some files; the `expected` family is asked first what
    each is.

    Raises:
        WeightsError: when there is nothing, or a file given by name cannot be read.
    """
    kind_of = partial(_identify, expected=expected)
    if isinstance(source, Path):
        return WeightFiles.open(source, kind_of)
    return WeightFiles.of(source, kind_of)


def _source(backbone: Backbone, preset: str, name: str) -> Path | Sequence[Path]:
    """A model's files where none were given: bundled, or fetched."""
    bundled = [backbone.bundled[p] for p in backbone.group(preset) if p in backbone.bundled]
    if bundled:
        return bundled
    info = model_info(backbone, preset, name)
    if info.fetched:
        return info.fetched
    give = "give `weights` with its published files, their folder or the one that holds the network"
    if info.download:
        gigabytes = f"{info.download / 1e9:.1f} GB"
        give = f"fetch its files ({gigabytes}) with: skipsr models fetch {name}; or {give}"
    raise WeightsError(f"{name} is not bundled: {give}")


def identify_file(path: Path) -> Match | None:
    """What a weight file is, from its header alone; None when it is nothing we know.

    Raises:
        WeightsError: when it is no readable weight file.
    """
    return WeightFile.open(path, _identify).match


@cache
def _need_kind() -> FileKind:
    with on_meta():
        return FileKind("need predictor", inventory(NeedPredictor()))


def _identify(found: Inventory, expected: Backbone | None = None) -> Match | None:
    """The first exact match of all there are, or the nearest one."""
    matches = [identify(found, [_need_kind()])]
    families = map(backbones.get, backbones.families())
    for backbone in (*([expected] if expected else ()), *families):
        matches.append(identify(backbone.normalise(found), backbone.kinds()))
        if matches[-1] is not None and matches[-1].exact:
            return matches[-1]
    return min((m for m in matches if m), key=lambda m: m.differences, default=None)


def _owner(model: str) -> str:
    """The public name of the model that a `family:preset` belongs to."""
    family, preset = model.split(":")
    return backbones.public_name(family, backbones.get(family).owner(preset))


def _model_in(files: WeightFiles) -> str:
    """The one model whose network is among these files, or its networks for several scales."""
    found = list(dict.fromkeys(_owner(file.model) for file in files.known if file.model))
    if len(found) > 1:
        raise WeightsError(
            f"{files.folder} holds {' and '.join(found)}: give `model` with one of them"
        )
    if not found and files.named:
        raise WeightsError(f"{files.named.path} is no model's network: {files.named.describe()}")
    if not found:
        raise files.lack("network of a model that is known")
    return found[0]


def _warn_of_time(model: Model) -> None:
    """Say so where a large network was found, and no GPU to run it on."""
    files = [file for file in model.files.known if file.model]
    size = sum(math.prod(shape) for shape in files[-1].shapes.values())
    if size >= _SLOW and resolve(model.runtime)[0].type == "cpu":
        log.warning(
            "%s has %.1f billion parameters and there is no GPU: this will be slow; without "
            "`weights` %s is taken",
            model.name, size / 1e9, BUNDLED,
        )  # fmt: skip
