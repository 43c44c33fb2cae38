"""Flags out of settings: each field is one, its docstring is its help, and the options of all model
families are put together. Imports no torch."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from skipsr.backbones.merged_options import every_option
from skipsr.cli.spelling import spell
from skipsr.errors import SettingsError
from skipsr.fields import KINDS, Field, fields_of, given
from skipsr.files import check_free, check_there, home_expanded
from skipsr.settings import AUTO, JobSettings, RuntimeSettings, SkipSettings

if TYPE_CHECKING:
    from skipsr.loading import Model


InputPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
OutputPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]


@dataclass(frozen=True, kw_only=True)
class FamilyOptions:
    """Options of single model families."""

    given: Mapping[str, object] = field(default_factory=dict[str, object])

    @classmethod
    def of(cls, **values: object) -> "FamilyOptions":
        """Options of single model families."""
        # what is as without the flag was not given: a family that lacks it need not refuse it
        usual = {option.name: option.default for option in every_option()}
        given = {name: value for name, value in values.items() if value != usual[name]}
        return cls(given=given)


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """What is told to every verb that runs a model on files."""

    model: str = AUTO
    """Model name, see `skipsr models list`; auto is the one in --weights, or skipvsr:nano."""
    job: JobSettings = field(default_factory=JobSettings)
    skip: SkipSettings = field(default_factory=SkipSettings)
    family: FamilyOptions = field(default_factory=FamilyOptions)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def find(self) -> "Model":
        """See `skipsr.loading.find_model`."""
        from skipsr.loading import find_model

        return find_model(self.model, self.runtime, self.family.given)


def check_ends(source: Path, target: Path, job: JobSettings) -> None:
    """Refuse what can be refused before the seconds that torch takes to import."""
    check_there(source)
    from skipsr.pipeline.manifest import may_replace, named_target

    check_free(named_target(target), overwrite=may_replace(target, job))


def refuse_given(job: JobSettings, names: Iterable[str], why: str) -> None:
    """Raises SettingsError for a setting of those named that is not as usual."""
    for name in given(job, names):
        raise SettingsError(f"`{name}` {why}")


def registry() -> ConstructorRegistry:
    """How settings and verbs become flags; made anew for the families that there are."""
    made = ConstructorRegistry()
    made.struct_rule(_struct)
    made.primitive_rule(_value)
    return made


def _struct(info: StructTypeInfo) -> StructConstructorSpec | None:
    kind = info.type
    if kind is FamilyOptions:
        return StructConstructorSpec(FamilyOptions.of, tuple(map(_flag, every_option())))
    if not dataclasses.is_dataclass(kind) or not kind.__module__.startswith("skipsr."):
        return None
    return StructConstructorSpec(kind, tuple(map(_flag, fields_of(kind))))


def _value(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[object] | None:
    """Numbers, texts and paths; one that may be None is so when its flag is left out."""
    kinds = [kind for kind in get_args(info.type) or (info.type,) if kind is not NoneType]
    if str in kinds:  # as a text it says whatever else it can be
        kinds = [str]
    if len(kinds) != 1 or kinds[0] not in KINDS or kinds[0] is bool or info.type_origin is tuple:
        return None
    (kind,) = kinds

    def read(given: list[str]) -> object:
        if kind is Path and not given[0]:  # an unset variable of a shell; it would be this folder
            raise ValueError("a path is empty")
        try:
            return home_expanded(given[0]) if kind is Path else kind(given[0])
        except ValueError:
            raise ValueError(f"{given[0]!r} is not {KINDS[kind]}") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: ["" if value is None else str(value)],
    )


def _flag(setting: Field) -> StructFieldSpec:
    # a nested group has the defaults of its own fields
    default = MISSING_NONPROP if setting.default is dataclasses.MISSING else setting.default
    kind: Any = setting.annotation
    if default is None or default is False or default == ():  # which needs no "(default: None)"
        kind = Annotated[kind, tyro.conf.arg(help_behavior_hint="")]
    return StructFieldSpec(setting.name, kind, default, spell(setting.text) or None)
