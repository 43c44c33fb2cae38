"""Flags out of settings: each field is one, its docstring is its help, and the options of all model
families are put together. Imports no torch."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any, Literal, cast, get_type_hints

from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from skipsr import backbones
from skipsr.backbones.options import choices, options_of
from skipsr.cli.spelling import spell


@dataclass(frozen=True, kw_only=True)
class FamilyOptions:
    """What only some families of models can be told."""

    given: Mapping[str, object] = field(default_factory=dict[str, object])

    @classmethod
    def of(cls, **values: object) -> "FamilyOptions":
        """What only some families of models can be told."""
        # what is as without the flag was not given: a family that lacks it need not refuse it
        usual = {option.name: option.default for option in _family_fields()}
        given = {name: value for name, value in values.items() if value != usual[name]}
        return cls(given=given)


def registry() -> ConstructorRegistry:
    """How settings and verbs become flags; made anew for the families that there are."""
    made = ConstructorRegistry()
    made.struct_rule(_struct)
    return made


def _struct(info: StructTypeInfo) -> StructConstructorSpec | None:
    kind = info.type
    if kind is FamilyOptions:
        return StructConstructorSpec(FamilyOptions.of, tuple(_family_fields()))
    if not dataclasses.is_dataclass(kind) or not kind.__module__.startswith("skipsr."):
        return None
    hints, helps = get_type_hints(kind, include_extras=True), _docstrings(kind)
    return StructConstructorSpec(
        kind,
        tuple(
            StructFieldSpec(part.name, hints[part.name], _default(part), helps.get(part.name))
            for part in dataclasses.fields(kind)
        ),
    )


def _default(part: "dataclasses.Field[Any]") -> Any:
    """A nested group has those of its own fields."""
    return MISSING_NONPROP if part.default is dataclasses.MISSING else part.default


def _docstrings(kind: type) -> dict[str, str]:
    """What stands below the fields of a dataclass and its bases, by name, as help."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(parsed, ast.ClassDef)
        for above, below in pairwise(parsed.body):
            match above, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = spell(" ".join(text.split()))
                case _:
                    pass
    return found


def _family_fields() -> Iterable[StructFieldSpec]:
    """A flag for each name of an option, of whatever families have it."""
    found: dict[str, list[StructFieldSpec]] = {}
    for family in backbones.families():
        kind = options_of(family)
        hints, helps = get_type_hints(kind), _docstrings(kind)
        for part in dataclasses.fields(kind):
            values = " or ".join(map(str, choices(hints[part.name])))
            owner = ", ".join(filter(None, (backbones.known_as(family), values)))
            text = f"For {owner}: {helps[part.name]}"
            own = StructFieldSpec(part.name, hints[part.name], part.default, text)
            found.setdefault(part.name, []).append(own)
    return map(_merged, found.values())


def _merged(options: Sequence[StructFieldSpec]) -> StructFieldSpec:
    """Options of one name as one flag; without a default where they have several."""
    first = options[0]
    kind: Any = reduce(or_, (option.type for option in options))
    if all(choices(option.type) for option in options):
        kind = Literal[tuple(value for option in options for value in choices(option.type))]
    text = " ".join(str(option.helptext) for option in options)
    if any(option.default != first.default for option in options):
        return StructFieldSpec(first.name, cast(Any, kind | None), None, text)
    return StructFieldSpec(first.name, kind, first.default, text)
