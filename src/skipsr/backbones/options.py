"""Options of single families, beside the settings that all share. Imports no torch."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Any, ClassVar, Literal, Protocol, get_type_hints

from skipsr import backbones
from skipsr.errors import SettingsError
from skipsr.fields import Field, choices, fields_of


class Options(Protocol):
    """A frozen dataclass with a default for every field: `OPTIONS` in a family's `options.py`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def options_of(folder: str) -> type[Options]:
    """The class of a family's options, by the name of its folder."""
    return import_module(f"skipsr.backbones.{folder}.options").OPTIONS


def every_option() -> tuple[Field, ...]:
    """The options of all families, those of one name as one; their texts say whose they are."""
    found: dict[str, list[Field]] = {}
    for family in backbones.families():
        for option in fields_of(options_of(family)):
            values = " or ".join(map(str, option.choices))
            owner = ", ".join(filter(None, (backbones.known_as(family), values)))
            own = dataclasses.replace(option, text=f"For {owner}: {option.text}")
            found.setdefault(option.name, []).append(own)
    return tuple(map(_merged, found.values()))


def _merged(options: Sequence[Field]) -> Field:
    """Options of one name as one; without a default where they have several."""
    first = options[0]
    kind: Any = reduce(or_, (option.annotation for option in options))
    if all(option.choices for option in options):
        kind = Literal[tuple(value for option in options for value in option.choices)]
    default = first.default
    if any(option.default != default for option in options):
        kind, default = kind | None, None
    text = " ".join(option.text for option in options)
    return Field(name=first.name, annotation=kind, default=default, text=text)


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
