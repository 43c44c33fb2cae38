"""From a model's name to an upscaler that runs."""

from dataclasses import dataclass
from pathlib import Path

from skipsr import backbones
from skipsr.backbones.contract import Upscaler
from skipsr.devices import resolve
from skipsr.errors import WeightsError
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.weights.identify import Match, identify, read_inventory


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
        ModelInfo(f"{family}:{preset}", preset in backbone.bundled)
        for family in backbones.families()
        for backbone in [backbones.get(family)]
        for preset in backbone.presets
        if preset != "tiny"  # for tests; it has no weights
    ]
    return sorted(models, key=lambda m: (not m.bundled, m.name))


def load_upscaler(
    name: str = "nano",
    skip: SkipSettings | None = None,
    runtime: RuntimeSettings | None = None,
) -> Upscaler:
    """Load a model.

    Args:
        name: `family:preset` or a short name; see `list_models`.
        skip: which tokens are computed.
        runtime: device, precision, steps, and the folder of files for models that are not bundled.

    Raises:
        SettingsError: for an unknown model or a device that is not there.
        WeightsError: when its files are missing or do not fit.
    """
    skip, runtime = skip or SkipSettings(), runtime or RuntimeSettings()
    backbone, preset = backbones.family(name)
    source = runtime.weights or backbone.bundled.get(preset)
    if source is None:
        raise WeightsError(
            f"{name} is not bundled: give --weights FOLDER with its published files "
            "(transformer, autoencoder, pos_emb)"
        )
    if not source.exists():
        raise WeightsError(f"{source}: no such file or folder")
    device, dtype = resolve(runtime)
    return backbone.load(preset, source, device, dtype, skip, runtime.steps)


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
