"""Flags out of settings: each field is one, its docstring is its help, and the options of all model
families are put together. Imports no torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from skipsr.backbones.merged_options import every_option
from skipsr.cli.spelling import spell
from skipsr.fields import Field, fields_of


@dataclass(frozen=True, kw_only=True)
class FamilyOptions:
    """What only some families of models can be told."""

    given: Mapping[str, object] = field(default_factory=dict[str, object])

    @classmethod
    def of(cls, **values: object) -> "FamilyOptions":
        """What only some families of models can be told."""
        # what is as without the flag was not given: a family that lacks it need not refuse it
        usual = {option.name: option.default for option in every_option()}
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
        return StructConstructorSpec(FamilyOptions.of, tuple(map(_flag, every_option())))
    if not dataclasses.is_dataclass(kind) or not kind.__module__.startswith("skipsr."):
        return None
    return StructConstructorSpec(kind, tuple(map(_flag, fields_of(kind))))


def _flag(setting: Field) -> StructFieldSpec:
    # a nested group has the defaults of its own fields
    default = MISSING_NONPROP if setting.default is dataclasses.MISSING else setting.default
    text = spell(setting.text) or None
    return StructFieldSpec(setting.name, setting.annotation, default, text)
