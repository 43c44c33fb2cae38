"""Tables of options for the pages, made of the settings themselves when the site is built."""

import dataclasses
import re
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin

import tyro

from skipsr.backbones.merged_options import every_option
from skipsr.cli.spelling import flag, spell
from skipsr.fields import Field, choices, fields_of

_PLACE = re.compile(r"<!-- options: (?P<what>[\w.]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Every `<!-- options: skipsr.settings.JobSettings -->` as that class's table of flags;
    `families` stands for the options of all model families."""
    return _PLACE.sub(lambda place: table(settings(place["what"])), markdown)


def settings(what: str) -> tuple[Field, ...]:
    """The fields that a place in a page names."""
    if what == "families":
        return every_option()
    module, _, name = what.rpartition(".")
    return fields_of(getattr(import_module(module), name))


def table(fields: tuple[Field, ...]) -> str:
    """Flag, values, default, text; what is given by its place has no flag."""
    lines = ["| flag | values | default | |", "|---|---|---|---|"]
    for field in fields:
        if tyro.conf.Positional in get_args(field.annotation):
            continue
        text = spell(field.text, form="`{}`")
        cells = (f"`{flag(field.name)}`", values(field), default(field), text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def values(field: Field) -> str:
    """What can be given."""
    return " or ".join(_kinds(field.annotation))


def _kinds(annotation: object) -> list[str]:
    inner = get_args(annotation)
    if listed := choices(annotation):
        return [", ".join(f"`{choice}`" for choice in listed)]
    if get_origin(annotation) is Annotated:
        return _kinds(inner[0])
    if get_origin(annotation) is tuple:
        return [f"{kind}s" for kind in _kinds(inner[0])]
    if inner:
        return [kind for part in inner if part is not type(None) for kind in _kinds(part)]
    names: dict[object, str] = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "given or not",
    }
    return [names.get(annotation, "path")]


def default(field: Field) -> str:
    """What stands where nothing is given; empty where the text tells it."""
    untold = field.default is None or field.default is False or field.default in ("", ())
    return "" if untold or field.default is dataclasses.MISSING else f"`{field.default}`"
