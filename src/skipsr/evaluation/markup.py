"""Pieces of HTML that pages share."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

COLOURS = 5  # of the palette in the style sheet, .s0 to .s4


def data_uri(data: bytes, kind: str) -> str:
    """The bytes of a file as an address; `kind` is its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template of this folder with `{{name}}` replaced; values are HTML."""
    text = files("skipsr.evaluation").joinpath(template).read_text(encoding="utf-8")
    parts = text.split("{{")
    found = (part.split("}}", 1) for part in parts[1:])
    return parts[0] + "".join(values[name] + rest for name, rest in found)


def chart_group(names: Sequence[str], charts: Sequence[tuple[str, str]]) -> str:
    """Charts with their captions, and a legend of the series."""
    items = "".join(
        f'<li><i class="s{index % COLOURS}"></i>{escape(name)}</li>'
        for index, name in enumerate(names)
    )
    legend = f'<ul class="legend">{items}</ul>' if names else ""
    figures = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<div class="wide">{chart}</div></figure>'
        for caption, chart in charts
    )
    return f'{legend}<div class="charts">{figures}</div>'
