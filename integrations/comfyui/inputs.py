"""Inputs of nodes out of skipsr's settings, and settings out of what inputs hold."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from comfy_api.v0_0_2 import io

from skipsr.fields import Field

UNSET = -1  # what a number holds that is left to its default, since a widget is never empty
_SHOWN: Mapping[str, float] = {"scale": 4.0, "quality": 0.5}  # what no value stands for
_WIDGETS: Mapping[str, tuple[float, float, float]] = {  # least, most and step, for sliders to fit;
    "scale": (0.1, 16.0, 0.1),  # what is allowed is for the settings to say
    "quality": (0.0, 1.0, 0.05),
    "speed": (UNSET, 100.0, 0.1),
    "tau": (UNSET, 1.0, 0.00001),
    "threshold": (UNSET, 1.0, 0.01),
    "budget": (UNSET, 1.0, 0.01),
    "detail": (UNSET, 1.0, 0.05),
    "guidance": (UNSET, 20.0, 0.1),
    "height": (UNSET, 16384, 1),
    "short_side": (UNSET, 16384, 1),
    "long_side": (UNSET, 16384, 1),
    "seed": (0, 2**64 - 1, 1),
    "crf": (UNSET, 63, 1),
}


def spell(text: str) -> str:
    """Settings, in backticks, as the inputs are called."""
    return re.sub(r"`([^`]*)`", r"'\1'", text)


def inputs_of(
    fields: Iterable[Field],
    first: tuple[str, ...] = (),
    only: Mapping[str, list[str]] | None = None,
) -> list[io.Input]:
    """An input for each setting; those named in `first` in that order, the others for experts.

    Args:
        only: the choices to offer of a setting, where not all of them can be had.

    Raises:
        TypeError: for a setting of a type that no widget holds.
    """
    by_name = {field.name: field for field in fields}
    order = [*first, *(name for name in by_name if name not in first)]
    made = [_input(by_name[name], (only or {}).get(name)) for name in order]
    for one in made[len(first) :]:
        one.optional = True
        one.extra_dict["advanced"] = True  # newer frontends fold these away
    return made


def given(fields: Collection[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from what is taken without them, by name."""
    found = {
        field.name: values[field.name]
        for field in fields
        if field.name in values and values[field.name] != _shown(field)
    }
    paths = {field.name for field in fields if Path in _kinds(field)}
    return {name: Path(value) if name in paths else value for name, value in found.items()}


def _shown(field: Field) -> Any:
    """What the widget of a setting holds at first."""
    if field.default is None or field.default is MISSING:
        empty = "" if _kinds(field) & {str, Path} else UNSET
        return _SHOWN.get(field.name, empty)
    return field.default


def _kinds(field: Field) -> set[Any]:
    """The types of a setting, but for None."""
    parts = get_args(field.annotation)
    kinds = {field.annotation} if get_origin(field.annotation) is Literal or not parts else {*parts}
    return kinds - {NoneType}


def _input(field: Field, only: list[str] | None) -> io.Input:
    shown, kinds = _shown(field), _kinds(field)
    about: dict[str, Any] = {"tooltip": spell(field.text), "default": shown}
    if shown in (UNSET, "") and field.default is None:
        about["tooltip"] += f" ({shown or 'empty'}: by default)"
    if field.choices or only:
        options = only or [str(choice) for choice in field.choices]
        return io.Combo.Input(field.name, options=options, **about)
    if kinds == {bool}:
        return io.Boolean.Input(field.name, **about)
    if kinds == {int}:
        least, most, step = _WIDGETS.get(field.name, (min(0, shown), 2**31, 1))
        # without it the frontend draws a new seed after every run
        about["control_after_generate"] = False
        return io.Int.Input(field.name, min=least, max=most, step=step, **about)
    if kinds <= {int, float}:
        least, most, step = _WIDGETS.get(field.name, (min(0.0, shown), 1e6, 0.01))
        about["default"] = float(shown)
        return io.Float.Input(field.name, min=least, max=most, step=step, **about)
    if kinds <= {str, Path}:
        return io.String.Input(field.name, **about)
    raise TypeError(f"`{field.name}` is {field.annotation}: no widget holds that")
