"""The options of all families together, for surfaces that do not know yet which model it will be.

Imports no torch.
"""

import dataclasses
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, Literal

from skipsr import backbones
from skipsr.backbones.options import options_of
from skipsr.fields import Field, fields_of


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
