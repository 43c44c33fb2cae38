"""Model families: a folder each, and the folder's name is the registry. Only the asked one is
imported."""

from importlib import import_module
from pathlib import Path

from skipsr.backbones.contract import Backbone
from skipsr.errors import SettingsError

SHORT_NAMES = {"nano": "seedvr2:nano"}


def families() -> list[str]:
    """Names of all families."""
    return sorted(p.parent.name for p in Path(__file__).parent.glob("*/__init__.py"))


def get(name: str) -> Backbone:
    """The family of that name.

    Raises:
        SettingsError: when there is none.
    """
    if name not in families():
        raise SettingsError(f"unknown model family {name!r}; there is {', '.join(families())}")
    backbone = import_module(f"skipsr.backbones.{name}").BACKBONE
    assert isinstance(backbone, Backbone)
    return backbone


def family(model: str) -> tuple[Backbone, str]:
    """Backbone and preset of a model name, `family:preset` or one of the short names.

    Raises:
        SettingsError: naming the models there are.
    """
    name, _, preset = SHORT_NAMES.get(model, model).partition(":")
    if name in families() and preset in (backbone := get(name)).presets:
        return backbone, preset
    known = [*SHORT_NAMES, *(f"{f}:{p}" for f in families() for p in get(f).presets)]
    raise SettingsError(f"unknown model {model!r}; there are {', '.join(known)}")
