"""Pieces of HTML that all pages share."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from skipsr.evaluation.record import facts, write_aside

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


def write_page(path: Path, title: str, body: Sequence[str]) -> Path:
    values = {"title": escape(title), "body": "\n".join(part for part in body if part)}
    return write_aside(path, fill("page.html", values))


def header(title: str, record: Mapping[str, Any]) -> str:
    line = " · ".join(escape(str(record[name])) for name in ("date", "device", "dtype"))
    return f'<h1>{escape(title)}</h1>\n<p class="soft">{line}</p>'


def footer(record: Mapping[str, Any]) -> str:
    terms = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in facts(record).items()
    )
    return f"<h2>Run</h2>\n<dl>{terms}</dl>"


def notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="soft">{escape(note)}</p>' for note in notes)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table of text; its first `names` columns are aligned left."""
    kinds = [' class="name"' if index < names else "" for index in range(len(head))]
    top = "".join(f"<th{kind}>{escape(cell)}</th>" for kind, cell in zip(kinds, head, strict=True))
    lines = [
        "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        for row in rows
    ]
    return framed(top, lines)


def framed(head: str, rows: Sequence[str]) -> str:
    body = "".join(row if row.startswith("<tr") else f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><i class="s{index % COLOURS}"></i>{escape(name)}</li>'
        for index, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def chart_figure(caption: str, chart: str) -> str:
    head = f"<figcaption>{escape(caption)}</figcaption>"
    return f'<figure>{head}<div class="wide">{chart}</div></figure>'
