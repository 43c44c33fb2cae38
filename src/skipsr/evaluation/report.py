"""What is written of a run: its tables, words and charts once, for Markdown and for a page."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from skipsr.evaluation.record import facts, to_json, to_line, write_text
from skipsr.metrics.metric import Better

Number = float | None
_ARROWS: Mapping[Better, str] = {"higher": "↑", "lower": "↓"}
_MARKS = {"best": "**{}**", "good": "{} better", "bad": "{} worse"}  # in Markdown


@dataclass(frozen=True, slots=True)
class Marked:
    """A value that stands out: the best of its column, or a difference."""

    value: str | float
    kind: Literal["best", "good", "bad", "equal"]


Cell = str | Number | Marked
Rows = Sequence[Mapping[str, Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells by column, a mapping for each row; the first row names all columns."""

    title: str = ""
    rows: Rows
    forms: Mapping[str, str] = field(default_factory=dict[str, str])
    """Format specifications of columns of numbers; by default about four digits."""
    better: Mapping[str, Better] = field(default_factory=dict[str, Better])
    """Of columns that are metrics: whether higher or lower is better."""
    foot: Mapping[str, Cell] = field(default_factory=dict[str, Cell])
    """One row more, set apart; empty for none."""

    @property
    def heads(self) -> list[str]:
        arrows = {name: f" {_ARROWS[better]}" for name, better in self.better.items()}
        return [name + arrows.get(name, "") for name in self.rows[0]]

    def markdown(self) -> list[str]:
        """Its lines, the title first."""
        rows = [*self.rows, self.foot] if self.foot else self.rows
        cells = [[_MARKS.get(kind, "{}").format(text) for text, kind in self._of(r)] for r in rows]
        lines = [self.heads, ["---"] * len(self.heads), *cells]
        table = ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]
        return [f"## {self.title}", "", *table] if self.title else table

    def html(self) -> str:
        kinds = ["name" if kind == "name" else "" for _, kind in self._of(self.rows[0])]
        head = "".join(_tag("th", *of) for of in zip(kinds, self.heads, strict=True))
        body = "".join(self._row(row) for row in self.rows)
        foot = f"<tfoot>{self._row(self.foot)}</tfoot>" if self.foot else ""
        title = f"<h2>{escape(self.title)}</h2>\n" if self.title else ""
        return (
            f'{title}<div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody>{foot}</table></div>"
        )

    def _row(self, row: Mapping[str, Cell]) -> str:
        return f"<tr>{''.join(_tag('td', kind, text) for text, kind in self._of(row))}</tr>"

    def _of(self, row: Mapping[str, Cell]) -> list[tuple[str, str]]:
        """Text and kind of each cell; those of words are names."""
        found: list[tuple[str, str]] = []
        for name in self.rows[0]:
            cell, form = row.get(name), self.forms.get(name, "")
            if isinstance(cell, Marked):
                found.append((_show(cell.value, form), cell.kind))
            else:
                found.append((_show(cell, form), "name" if isinstance(cell, str) else ""))
        return found


def _show(value: str | Number, form: str) -> str:
    """A cell's text; empty where there is nothing."""
    if value is None or isinstance(value, (str, int)):
        return "" if value is None else str(value)
    return format(value, form or (".2f" if abs(value) >= 10 else ".4g"))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """All that is written of a run: `name.json`, `name.md` and a page."""

    name: str  # of the files
    page: str  # of the page's
    title: str
    record: Mapping[str, Any]  # what it ran on, see `describe_run`
    values: Mapping[str, Any]  # everything that was found
    summary: Mapping[str, Any]  # the part of it that is printed
    parts: Sequence[str | Table | Callable[[], str]]  # paragraphs; what makes HTML, for the page

    def save(self, folder: Path) -> Path:
        """Write all three; returns the page."""
        write_text(folder / f"{self.name}.md", self.markdown())
        write_text(folder / f"{self.name}.json", to_json(self.json()))
        return write_text(folder / f"{self.page}.html", self.html())

    def line(self, page: Path) -> str:
        """What the command line prints."""
        return to_line({"page": page, **self.summary})

    def json(self) -> dict[str, Any]:
        return {**self.record, **self.values}

    def markdown(self) -> str:
        lines = [f"# {self.title}"]
        for part in self.parts:
            if not callable(part):
                lines += ["", *(part.markdown() if isinstance(part, Table) else [part])]
        terms = [f"- {name}: {words}" for name, words in facts(self.record).items()]
        return "\n".join([*lines, "", *terms]) + "\n"

    def html(self) -> str:
        """A page that needs nothing else."""
        line = " · ".join(escape(str(self.record[name])) for name in ("date", "device", "dtype"))
        body = [f"<h1>{escape(self.title)}</h1>", _tag("p", "soft", line)]
        for part in self.parts:
            if isinstance(part, str):
                body.append(_tag("p", "soft", part))
            else:
                body.append(part.html() if isinstance(part, Table) else part())
        terms = (
            _tag("dt", "", name) + _tag("dd", "", words)
            for name, words in facts(self.record).items()
        )
        body.append(f"<h2>Run</h2>\n<dl>{''.join(terms)}</dl>")
        values = {"title": escape(self.title), "body": "\n".join(body)}
        return fill(files("skipsr.evaluation") / "page.html", values)


def in_words(figures: Mapping[str, float]) -> str:
    """Figures on a line, for a terminal."""
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def mean_figures(rows: Sequence[Mapping[str, Number]]) -> dict[str, float]:
    """Mean of every column, over the rows that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for column, value in row.items():
            if value is not None:
                found.setdefault(column, []).append(value)
    return {column: fmean(values) for column, values in found.items()}


def data_uri(data: bytes, kind: str) -> str:
    """The bytes of a file as an address; `kind` is its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def fill(template: Traversable, values: Mapping[str, str]) -> str:
    """A file's text with `{{name}}` replaced; values are HTML."""
    first, *parts = template.read_text(encoding="utf-8").split("{{")
    found = (part.split("}}", 1) for part in parts)
    return first + "".join(values[name] + rest for name, rest in found)


def _tag(name: str, kind: str, text: str) -> str:
    opened = f'{name} class="{kind}"' if kind else name
    return f"<{opened}>{escape(text)}</{name}>"
