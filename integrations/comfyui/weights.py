"""Published weights in ComfyUI's model folders, known by their tensors."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import folder_paths

from skipsr.errors import SettingsError, WeightsError
from skipsr.loading import Model, identify_file, open_weights
from skipsr.weights.load import SUFFIXES

NONE, AUTO = "none", "auto"
_OWN = "seedvr2"
_FOLDERS = (_OWN, "diffusion_models", "vae")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A weight file of a known kind.

    Attributes:
        label: its name in the model folder and what it is, as nodes list it.
        network: whether it is a model's network, else a part that networks share.
    """

    path: Path
    label: str
    kind: str
    network: bool


def register() -> None:
    """Have ComfyUI look into `models/seedvr2`, and where others keep these files."""
    for name in (_OWN, _OWN.upper()):
        folder_paths.add_model_folder_path(_OWN, str(Path(folder_paths.models_dir) / name))


def networks() -> list[Found]:
    """Files with a network, of all model folders."""
    return [file for file in _all() if file.network]


def autoencoders() -> list[Found]:
    """Files with an autoencoder alone."""
    return [file for file in _all() if not file.network and "autoencoder" in file.kind]


def pick(files: list[Found], label: str, setting: str) -> Found:
    """The file of that label.

    Raises:
        SettingsError: when it is not there any more.
    """
    for file in files:
        if file.label == label:
            return file
    raise SettingsError(f"`{setting}`: {label} is not in the model folders any more")


def with_parts(model: Model, network: Found, autoencoder: Found | None) -> Model:
    """The model with the parts that its network needs, wherever they lie.

    Of several files of a kind that is taken which was chosen, else what lies beside the network,
    else the first, in the order of the folders.
    """
    chosen = [] if autoencoder is None else [autoencoder]
    beside = [file for file in _all() if file.path.parent == network.path.parent]
    parts: dict[str, Found] = {}
    for file in (*chosen, *beside, *_all()):
        if not file.network:
            parts.setdefault(file.kind, file)
    known = tuple(held for file in parts.values() for held in open_weights(file.path).known)
    # no file is the named one: that would have the parts looked for beside it alone
    files = replace(model.files, named=None, known=(*model.files.known, *known))
    return replace(model, files=files)


def _all() -> tuple[Found, ...]:
    """Every known file, once, in the order of the folders and of names."""
    found: dict[Path, Found] = {}
    for name, path, own in _paths():
        if path is None:
            continue
        status = Path(path).stat()
        file = _identify(name, Path(path), status.st_mtime_ns, status.st_size, own)
        if file is not None:
            found.setdefault(file.path.resolve(), file)
    return tuple(found.values())


def _paths() -> Iterator[tuple[str, str | None, bool]]:
    """Names and paths of weight files, and whether they lie in our folder."""
    kinds = [kind for kind in folder_paths.folder_names_and_paths if kind.lower() in _FOLDERS]
    for kind in sorted(kinds, key=lambda kind: _FOLDERS.index(kind.lower())):
        for name in folder_paths.get_filename_list(kind):
            if Path(name).suffix in SUFFIXES:
                yield name, folder_paths.get_full_path(kind, name), kind.lower() == _OWN
    # other nodes for these models bring the conditioning in their own folders
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        for path in sorted(Path(folder).glob("*/*_emb.pt")):
            yield path.name, str(path), False


@lru_cache(maxsize=1024)
def _identify(name: str, path: Path, _changed: int, _size: int, own: bool) -> Found | None:
    """What a file is; once for each version of it, since ComfyUI asks for lists again and again."""
    try:
        match = identify_file(path)
    except WeightsError as error:
        match, why = None, str(error)
    else:
        why = "nothing that skipsr knows" if match is None else match.describe()
    if match is None or not match.exact:
        if own:  # elsewhere files are mostly of other models
            log.warning("%s is left out: %s", path, why)
        return None
    family = match.kind.partition(" ")[0]
    return Found(path, f"{name} ({match.title})", match.kind, ":" in family)
