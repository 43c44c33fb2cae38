"""Model families: a folder each, and the folder's name is the registry.

Folders in the folders that `SKIPSR_BACKBONES` lists are families as well, of the package
`skipsr.backbones` like its own.

Only the family that is asked for is imported: its `backbone` module to run it, its `options`
module, without torch, to name its options.
"""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from skipsr.errors import SettingsError

if TYPE_CHECKING:
    from skipsr.backbones.contract import Backbone

SHORT_NAMES = {"nano": "seedvr2:nano"}
_PUBLIC = {  # go by their method's name, not their network's
    f"basicvsr:{preset}": f"skipvsr:{preset}" for preset in ("nano", "nano-x2", "small", "small-x2")
}
_ALIASES = {name.partition(":")[0]: own.partition(":")[0] for own, name in _PUBLIC.items()}
# absolute, as a worker may stand elsewhere
_OWN = [
    str(Path(p).absolute()) for p in os.environ.get("SKIPSR_BACKBONES", "").split(os.pathsep) if p
]
__path__ += _OWN


def families() -> list[str]:
    """Names of all families: the folders of this package, and of those of one's own.

    Raises:
        SettingsError: when one of one's own has a name that is taken.
    """
    found: dict[str, bool] = {}  # whether it is a folder
    for folder in __path__:
        for module in iter_modules([folder]):
            if module.ispkg and module.name in found:  # the other would be run in its place
                raise SettingsError(
                    f"{Path(folder) / module.name}, a folder in SKIPSR_BACKBONES, has a name "
                    "that is taken: rename it"
                )
            found.setdefault(module.name, module.ispkg)
    return sorted(name for name, is_folder in found.items() if is_folder)


def get(name: str) -> "Backbone":
    """The family of that name, or of that other name (`skipvsr` is `basicvsr`).

    Raises:
        SettingsError: when there is none.
    """
    folder = folder_name(name)
    if folder not in families():
        raise SettingsError(f"unknown model family {name!r}; there is {', '.join(families())}")
    return import_module(f"skipsr.backbones.{folder}.backbone").BACKBONE


def folder_name(name: str) -> str:
    """The folder of the family that goes by that name, or by that other name."""
    return _ALIASES.get(name, name)


def family(model: str) -> "tuple[Backbone, str]":
    """Backbone and preset of a model name, `family:preset` or one of the short names.

    Raises:
        SettingsError: naming the models there are.
    """
    name, _, preset = SHORT_NAMES.get(model, model).partition(":")
    if folder_name(name) in families() and preset in (backbone := get(name)).presets:
        return backbone, preset
    known = ", ".join(own for _, _, own in offered())
    raise SettingsError(f"unknown model {model!r}; there are {known}")


def offered() -> "Iterator[tuple[Backbone, str, str]]":
    """Backbone, preset and public name of every model that can be asked for.

    Networks for other scales come with theirs; `tiny` is for tests, and has no weights.
    """
    for name in families():
        backbone = get(name)
        for preset in backbone.presets:
            if preset != "tiny" and backbone.owner(preset) == preset:
                yield backbone, preset, public_name(name, preset)


def full_name(model: str) -> str:
    """The public name of a model that was asked for by this name or another.

    What is kept for a model is found by it.
    """
    name, _, preset = SHORT_NAMES.get(model, model).partition(":")
    return public_name(folder_name(name), preset)


def public_name(family: str, preset: str) -> str:
    """What users call a preset of a family, such as `skipvsr:nano` or `seedvr2:3b`."""
    own = f"{family}:{preset}"
    return _PUBLIC.get(own, own)


def known_as(family: str) -> str:
    """A family's name, with the other one that its models go by: `basicvsr (skipvsr)`."""
    others = [name for name, own in _ALIASES.items() if own == family]
    return f"{family} ({', '.join(others)})" if others else family
