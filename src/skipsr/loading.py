"""From a model's name to an upscaler that runs."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from skipsr import backbones
from skipsr.backbones.contract import Upscaler
from skipsr.devices import resolve
from skipsr.errors import WeightsError
from skipsr.settings import AUTO, RuntimeSettings, SkipSettings
from skipsr.weights.identify import Match, identify, read_inventory

BUNDLED = "skipvsr:nano"  # what `auto` takes without weights
_SLOW = 1_000_000_000  # parameters from which a network without a GPU is a matter of hours
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that can be asked for."""

    name: str  # "family:preset"
    bundled: bool  # usable at once; otherwise its files must be given


def list_models() -> list[ModelInfo]:
    """All models, those that need no files first.

    >>> list_models()[0]
    ModelInfo(name='seedvr2:nano', bundled=True)
    """
    models = [
        ModelInfo(backbones.public_name(family, preset), preset in backbone.bundled)
        for family in backbones.families()
        for backbone in [backbones.get(family)]
        for preset in backbone.presets
        if preset != "tiny"  # for tests; it has no weights
    ]
    return sorted(models, key=lambda m: (not m.bundled, m.name))


def choose_model(runtime: RuntimeSettings) -> str:
    """The model that `auto` stands for: with weights the one that they are, else `BUNDLED`.

    It says so in the log when a large network has no GPU to run on.

    Raises:
        SettingsError: for a device that is not there.
        WeightsError: when the weights are no model, are several, or cannot be read.
    """
    source = runtime.weights
    if source is None:
        return BUNDLED
    files = _weight_files(source)
    found: dict[str, Path] = {}
    for path in files:
        match = identify_file(path)
        if match is None or not match.exact or not (name := _model_of(match)):
            continue
        if name in found:
            raise WeightsError(
                f"{source}: {found[name].name} and {path.name} are both {name}; keep one"
            )
        found[name] = path
    if not found:
        raise WeightsError(
            f"{source} holds no model that is known; `skipsr models identify FILE` says what each "
            "file is"
        )
    if len(found) > 1:
        raise WeightsError(f"{source} holds {' and '.join(found)}: give --model with one of them")
    (name,) = found
    _warn_if_slow(name, found[name], runtime)
    return name


def model_name(name: str, runtime: RuntimeSettings) -> str:
    """`name`, or what it stands for when it is `auto`; see `choose_model`."""
    return choose_model(runtime) if name == AUTO else name


def load_upscaler(
    name: str = AUTO,
    skip: SkipSettings | None = None,
    runtime: RuntimeSettings | None = None,
) -> Upscaler:
    """Load a model.

    Args:
        name: `family:preset`, a short name, or `auto`; see `list_models` and `choose_model`.
        skip: how much is computed.
        runtime: device, precision, steps, and the folder of files for models that are not bundled.

    Raises:
        SettingsError: for an unknown model or a device that is not there.
        WeightsError: when its files are missing or do not fit.
    """
    skip, runtime = skip or SkipSettings(), runtime or RuntimeSettings()
    name = model_name(name, runtime)
    backbone, preset = backbones.family(name)
    source = runtime.weights or backbone.bundled.get(preset)
    if source is None:
        raise WeightsError(f"{name} is not bundled: give --weights FOLDER with its published files")
    if not source.exists():
        raise WeightsError(f"{source}: no such file or folder")
    device, dtype = resolve(runtime)
    return backbone.load(preset, source, device, dtype, skip, runtime.steps, runtime.guidance)


def identify_file(path: Path) -> Match | None:
    """What a weight file is, from its header alone; None when it is nothing we know.

    Raises:
        WeightsError: when it is no readable weight file.
    """
    found = read_inventory(path)
    matches = [
        match
        for family in backbones.families()
        for backbone in [backbones.get(family)]
        if (match := identify(backbone.normalise(found), backbone.kinds())) is not None
    ]
    return min(matches, key=lambda m: m.differences, default=None)


def _weight_files(source: Path) -> list[Path]:
    if not source.exists():
        raise WeightsError(f"{source}: no such file or folder")
    if not source.is_dir():
        return [source]
    return sorted(p for p in source.iterdir() if p.suffix in (".safetensors", ".pth", ".pt"))


def _model_of(match: Match) -> str | None:
    """The model whose network a file is; None for parts of several, such as an autoencoder."""
    name = match.kind.partition(" ")[0]
    family, colon, preset = name.partition(":")
    return backbones.public_name(family, preset) if colon else None


def _warn_if_slow(name: str, path: Path, runtime: RuntimeSettings) -> None:
    size = sum(math.prod(shape) for shape in read_inventory(path).values())
    if size >= _SLOW and resolve(runtime)[0].type == "cpu":
        log.warning(
            "%s has %.1f billion parameters and there is no GPU: this will be slow; without "
            "--weights %s is taken",
            name, size / 1e9, BUNDLED,
        )  # fmt: skip
