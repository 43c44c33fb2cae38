"""The models there are, and their published files."""

from dataclasses import dataclass
from pathlib import Path

from skipsr import backbones
from skipsr.backbones.contract import Backbone
from skipsr.errors import SettingsError
from skipsr.weights.fetch import Watch, fetch
from skipsr.weights.published import folder_of, is_fetched


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that can be asked for."""

    name: str  # "family:preset"
    bundled: bool  # usable at once; otherwise its files must be fetched or given
    download: int = 0  # bytes that `fetch_model` brings; 0 where it knows of no files
    fetched: Path | None = None  # the folder with those files, once they are there


def list_models() -> list[ModelInfo]:
    """All models, those that need no files first.

    >>> list_models()[0].name
    'seedvr2:nano'
    """
    models = [model_info(*model) for model in backbones.offered()]
    return sorted(models, key=lambda m: (not m.bundled, m.name))


def model_info(backbone: Backbone, preset: str, name: str) -> ModelInfo:
    """What is known of a preset of a family, by its full name."""
    files = backbone.published.get(preset, ())
    folder = folder_of(name) if files and is_fetched(files, folder_of(name)) else None
    bundled = any(each in backbone.bundled for each in backbone.group(preset))
    return ModelInfo(name, bundled, sum(file.size for file in files), folder)


def fetch_model(name: str, to: Path | str | None = None, watch: Watch | None = None) -> Path:
    """Bring the published files of a model, so that it is found without `weights`.

    What is there already is checked and kept; a fetch that broke off goes on where it stopped.

    Args:
        name: such as `seedvr2:3b`.
        to: another folder than skipsr's own, to be given as `weights` then.
        watch: called as bytes arrive.

    Returns:
        The folder with the files.

    Raises:
        SettingsError: for an unknown model, or one whose files are not known.
        WeightsError: when a file cannot be had, or is not the known one.
    """
    backbone, preset = backbones.family(name)
    name = backbones.full_name(name)
    if preset in backbone.bundled:
        raise SettingsError(f"{name} is bundled: it runs without being fetched")
    if preset not in backbone.published:
        known = ", ".join(model.name for model in list_models() if model.download)
        raise SettingsError(f"{name} has no published files that are known; there are {known}")
    folder = folder_of(name) if to is None else Path(to)
    fetch(backbone.published[preset], folder, watch)
    return folder
