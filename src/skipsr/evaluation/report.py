"""What is written of a run: its tables, words and charts once, for Markdown and for a page."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from skipsr.evaluation.record import facts, to_json, to_line, write_aside
from skipsr.metrics.metric import Better

Number = float | None
_ARROWS: Mapping[Better, str] = {"higher": "↑", "lower": "↓"}
_MARKS = {"best": "**{}**", "good": "{} better", "bad": "{} worse"}  # in Markdown


@dataclass(frozen=True, slots=True)
class Marked:
    """A value that stands out: the best of its column, or a difference."""

    value: str | float
    kind: Literal["best", "good", "bad", "equal"]


@dataclass(frozen=True, slots=True)
class Column:
    """What its cells are called and how its numbers are shown."""

    name: str
    form: str = ""  # as `format` takes it; by default about four digits
    better: Better | None = None

    @property
    def head(self) -> str:
        return f"{self.name} {_ARROWS[self.better]}" if self.better else self.name

    def show(self, value: str | Number) -> str:
        """A cell's text; empty where there is nothing."""
        if value is None or isinstance(value, str):
            return value or ""
        return format(value, self.form or (".2f" if abs(value) >= 10 else ".4g"))


Cell = str | Number | Marked


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns and rows of text, numbers, None and what stands out."""

    title: str = ""
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    foot: Sequence[Cell] = ()  # one row more, set apart; empty for none

    def markdown(self) -> list[str]:
        """Its lines, the title first."""
        rows = [*self.rows, self.foot] if self.foot else self.rows
        cells = [[_MARKS.get(kind, "{}").format(text) for text, kind in self._of(r)] for r in rows]
        lines = [[column.head for column in self.columns], ["---"] * len(self.columns), *cells]
        table = ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]
        return [f"## {self.title}", "", *table] if self.title else table

    def html(self) -> str:
        kinds = [kind for _, kind in self._of(self.rows[0])] if self.rows else []
        names = [kind == "name" for kind in kinds] or [False] * len(self.columns)
        heads = zip(self.columns, names, strict=True)
        head = "".join(_tag("th", "name" if name else "", c.head) for c, name in heads)
        body = "".join(self._row(row) for row in self.rows)
        foot = f"<tfoot>{self._row(self.foot)}</tfoot>" if self.foot else ""
        title = f"<h2>{escape(self.title)}</h2>\n" if self.title else ""
        return (
            f'{title}<div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody>{foot}</table></div>"
        )

    def _row(self, row: Sequence[Cell]) -> str:
        return f"<tr>{''.join(_tag('td', kind, text) for text, kind in self._of(row))}</tr>"

    def _of(self, row: Sequence[Cell]) -> list[tuple[str, str]]:
        """Text and kind of each cell; those of words are names."""
        return [
            (column.show(cell.value), cell.kind)
            if isinstance(cell, Marked)
            else (column.show(cell), "name" if isinstance(cell, str) else "")
            for column, cell in zip(self.columns, row, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
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
        write_aside(folder / f"{self.name}.md", self.markdown())
        write_aside(folder / f"{self.name}.json", to_json(self.json()))
        return write_aside(folder / f"{self.page}.html", self.html())

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


def metric_columns(columns: Mapping[str, Better]) -> list[Column]:
    """Of metrics by name."""
    return [Column(name, better=better) for name, better in columns.items()]


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
