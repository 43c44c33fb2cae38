"""The form of the page, made of a few settings, and the settings made of its answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skipsr.backbones import folder_name
from skipsr.backbones.options import Options, make_options, options_of
from skipsr.errors import SettingsError
from skipsr.fields import fields_of
from skipsr.settings import JobSettings, SkipSettings

_LARGEST = 1_000_000  # of a number; what each option takes is for its settings to say
PREVIEW_CODECS = ("h264", "av1")  # hardly a browser plays neither


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a field's control offers, in the field's own unit."""

    least: float
    most: float
    step: float
    usual: float  # where it stands at first; leaving it there leaves the choice to the model
    ends: tuple[str, str] = ("", "")  # what they mean, where that is no number


CONTROLS = {
    "scale": Range(least=1, most=8, step=0.5, usual=4),
    "height": Range(least=64, most=4320, step=2, usual=1080),
    "detail": Range(least=0, most=1, step=0.05, usual=0.5, ends=("faithful", "crisp")),
    "quality": Range(least=0, most=1, step=0.05, usual=0.5, ends=("fastest", "everything")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedModel:
    """A model that the page can ask for."""

    name: str  # "family:preset"

    @property
    def options(self) -> type[Options]:
        """What only its family can be told."""
        return options_of(folder_name(self.name.partition(":")[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a page asked for, checked."""

    model: OfferedModel
    job: JobSettings = field(default_factory=JobSettings)
    skip: SkipSettings = field(default_factory=SkipSettings)
    options: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def given(self) -> dict[str, object]:
        """What was asked, by name, without what is left to the model."""
        return {"model": self.model.name, **_given(self.job), **_given(self.skip), **self.options}

    @property
    def told(self) -> dict[str, object]:
        """The same for a worker, by the settings that it belongs to."""
        parts = {"job": _given(self.job), "skip": _given(self.skip), "options": dict(self.options)}
        return {"model": self.model.name, **parts}


def controls(models: Sequence[OfferedModel]) -> list[dict[str, Any]]:
    """The form's number fields, in order: name, text, range, and the models that they are for."""
    known = {one.name: one for kind in (JobSettings, SkipSettings) for one in fields_of(kind)}
    own = {one.name: one for model in models for one in fields_of(model.options)}
    known |= own
    return [
        {
            "name": name,
            "text": known[name].text,
            **dataclasses.asdict(offered),
            "models": [m.name for m in models if name not in own or _has(m.options, name)],
        }
        for name, offered in CONTROLS.items()
    ]


def read_form(answers: Mapping[str, object], models: Sequence[OfferedModel]) -> Asked:
    """What a page's answers mean.

    Args:
        answers: values by name; what is left out is left to the model.

    Raises:
        SettingsError: for names that are not offered, and values that cannot be.
    """
    numbers = dict(answers)
    name = numbers.pop("model", models[0].name)
    model = next((one for one in models if one.name == name), None)
    if model is None:
        raise SettingsError(f"there is no such `model` here: choose {_any_of(models)}")
    parts: dict[type[Options], dict[str, Any]] = {JobSettings: {}, SkipSettings: {}}
    options: dict[str, object] = {}
    for key, value in numbers.items():
        if key not in CONTROLS:
            raise SettingsError(f"{key[:40]!r} is not among the options of this page")
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST:
            raise SettingsError(f"`{key}` has to be a number of at most {_LARGEST:,}")
        if key == "height" and not isinstance(value, int):
            raise SettingsError(f"`{key}` is a whole number of pixels, not {value:g}")
        home = next((kind for kind in parts if _has(kind, key)), None)
        (options if home is None else parts[home])[key] = value
    make_options(model.options, options, model.name)
    return Asked(
        model=model,
        job=JobSettings(segment=0, **parts[JobSettings]),  # a result no later run goes on with
        skip=SkipSettings(**parts[SkipSettings]),
        options=options,
    )


def _has(kind: type[Options], name: str) -> bool:
    return name in kind.__dataclass_fields__


def _given(settings: JobSettings | SkipSettings) -> dict[str, object]:
    values = {name: getattr(settings, name, None) for name in CONTROLS}
    return {name: value for name, value in values.items() if value is not None}


def _any_of(models: Sequence[OfferedModel]) -> str:
    return " or ".join(model.name for model in models)
