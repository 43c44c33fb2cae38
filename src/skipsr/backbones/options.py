"""Options of single families, beside the settings that all share. Imports no torch."""

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Protocol, get_type_hints

from skipsr.errors import SettingsError
from skipsr.fields import choices


class Options(Protocol):
    """A frozen dataclass with a default for every field: `OPTIONS` in a family's `options.py`.

    It refuses what cannot work when it is made, beginning with `settings.check_kinds`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]


def options_of(folder: str) -> type[Options]:
    """The class of a family's options, by the name of its folder."""
    return import_module(f"skipsr.backbones.{folder}.options").OPTIONS


def make_options(
    own: type[Options], given: Options | Mapping[str, object] | None, model: str
) -> Options:
    """A family's options, of an object or of what is given by name.

    Raises:
        SettingsError: for names and values that are not of the class `own`, or out of range.
    """
    if given is None or isinstance(given, Mapping):
        given = given or {}
    else:
        given = dataclasses.asdict(given)
    hints = get_type_hints(own)
    for name, value in given.items():
        if name not in hints:
            known = ", ".join(f"`{known}`" for known in hints) or "none"
            raise SettingsError(f"`{name}` is not for {model}: its family's options are {known}")
        listed = choices(hints[name])
        if listed and value not in listed:
            known = " or ".join(map(str, listed))
            raise SettingsError(f"`{name}` {value} is not for {model}: give {known}")
    return own(**given)
