"""What a measurement found, as values and as `results.json` and `results.md`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from skipsr.evaluation.record import facts, to_json, to_line, write_aside
from skipsr.metrics.metric import Better

ARROWS: Mapping[Better, str] = {"higher": "↑", "lower": "↓"}
_LAST = ("write", "total")  # columns of seconds after those of the models' own stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method on one clip."""

    clip: str
    method: str
    width: int
    height: int
    frames: int
    figures: Mapping[str, float]  # by column
    psnr_frames: tuple[float, ...] = ()  # PSNR-Y of every frame, dB; empty without truth
    computed: float | None = None  # share of the model's units; None for a method without
    seconds: Mapping[str, float]  # per stage, and "total"; empty for plain upsampling

    @property
    def fps(self) -> float | None:
        """Frames per second of the whole job."""
        total = self.seconds.get("total")
        return self.frames / total if total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How two methods compare on one metric, over the clips that both have it for."""

    column: str
    value: float  # mean of the first method minus mean of the second
    better: bool | None  # whether the first is better; None when equal to four digits
    clips: int

    @property
    def words(self) -> str:
        """The value with its sign; differences that mean nothing as such."""
        return "± 0" if self.better is None else f"{self.value:+.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """All rows of a run, and what it ran on."""

    record: Mapping[str, Any]  # date, commit, device, versions, settings
    columns: Mapping[str, Better]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # what was left out, and why

    @property
    def methods(self) -> list[str]:
        """In the order in which they ran."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def clips(self) -> list[str]:
        return list(dict.fromkeys(row.clip for row in self.rows))

    def of(self, method: str) -> list[Row]:
        return [row for row in self.rows if row.method == method]

    def means(self, method: str) -> dict[str, float]:
        """Mean over clips of every column, of the computed share and of the seconds in all."""
        rows = self.of(method)
        found = {
            column: [row.figures[column] for row in rows if column in row.figures]
            for column in self.columns
        }
        found["computed"] = [row.computed for row in rows if row.computed is not None]
        found["seconds"] = [row.seconds["total"] for row in rows if "total" in row.seconds]
        return {column: fmean(values) for column, values in found.items() if values}

    def differences(self, first: str, second: str) -> list[Difference]:
        """`first` minus `second`, for each column that both have on some clip."""
        others = {row.clip: row.figures for row in self.of(second)}
        found: list[Difference] = []
        for column, better in self.columns.items():
            pairs = [
                (row.figures[column], others[row.clip][column])
                for row in self.of(first)
                if column in row.figures and column in others.get(row.clip, {})
            ]
            if pairs:
                mine, theirs = (fmean(values) for values in zip(*pairs, strict=True))
                equal = math.isclose(mine, theirs, rel_tol=1e-4)
                wins = None if equal else (mine > theirs) == (better == "higher")
                found.append(
                    Difference(column=column, value=mine - theirs, better=wins, clips=len(pairs))
                )
        return found

    def compared(self) -> tuple[str, str] | None:
        """The two methods of the difference: the model, and what it was run against."""
        models = [method for method in self.methods if any(r.seconds for r in self.of(method))]
        others = [*models[1:], *(m for m in self.methods if m not in models)]
        return (models[0], others[0]) if models and others else None


def save_quality(quality: Quality, folder: Path) -> Path:
    """Write `results.json` and `results.md`; returns the first."""
    write_aside(folder / "results.md", to_markdown(quality))
    return write_aside(folder / "results.json", to_json(as_dict(quality)))


def print_line(quality: Quality, page: Path) -> str:
    """What the command line prints: the means, and where the page is."""
    means = {method: quality.means(method) for method in quality.methods}
    return to_line({"page": page, "clips": len(quality.clips), "means": means})


def as_dict(quality: Quality) -> dict[str, Any]:
    """Everything, and what follows from it: means and differences."""
    pair = quality.compared()
    return {
        **quality.record,
        "columns": quality.columns,
        "means": {method: quality.means(method) for method in quality.methods},
        "difference": pair
        and {
            "of": pair[0],
            "minus": pair[1],
            "columns": {d.column: asdict(d) for d in quality.differences(*pair)},
        },
        "notes": quality.notes,
        "rows": [asdict(row) | {"fps": row.fps} for row in quality.rows],
    }


def to_markdown(quality: Quality) -> str:
    """A table of means and a table of every clip."""
    figures = list(quality.columns)
    head = [f"{column} {ARROWS[better]}" for column, better in quality.columns.items()]
    means = [(method, quality.means(method)) for method in quality.methods]
    lines = [f"# {quality.record['model']} on {quality.record['data']}", ""]
    lines += table(
        ["method", *head, "computed", "seconds"],
        [
            [name, *(number(mean, c) for c in (*figures, "computed", "seconds"))]
            for name, mean in means
        ],
    )
    if pair := quality.compared():
        found = {d.column: d for d in quality.differences(*pair)}
        words = {True: "better", False: "worse", None: "equal"}
        lines += ["", f"{pair[0]} minus {pair[1]}:", ""]
        lines += table(
            ["", *figures],
            [
                ["difference", *(found[c].words if c in found else "" for c in figures)],
                ["", *(words[found[c].better] if c in found else "" for c in figures)],
            ],
        )
    lines += ["", "## Clips", ""]
    lines += table(
        ["clip", "size", "frames", "method", *head, "computed", "seconds"],
        [_cells(row, figures) for row in quality.rows],
    )
    lines += [
        *_stages(quality),
        "",
        *(f"- {note}" for note in quality.notes),
        *(f"- {name}: {words}" for name, words in facts(quality.record).items()),
    ]
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    shown = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in shown]


def number(values: Mapping[str, float | None], column: str) -> str:
    """A figure as a table shows it; empty where there is none."""
    value = values.get(column)
    if value is None:
        return ""
    if column in ("computed", "skipped"):
        return f"{value:.1%}"
    if column == "seconds":
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4g}"


def _cells(row: Row, figures: Sequence[str]) -> list[str]:
    values = {**row.figures, "computed": row.computed, "seconds": row.seconds.get("total")}
    head = [row.clip, f"{row.width}x{row.height}", str(row.frames), row.method]
    return [*head, *(number(values, column) for column in (*figures, "computed", "seconds"))]


def _stages(quality: Quality) -> list[str]:
    """Seconds of every stage, means over clips; models need not have the same stages."""
    timed = {
        method: times
        for method in quality.methods
        if (times := [row.seconds for row in quality.of(method) if row.seconds])
    }
    if not timed:
        return []
    named = dict.fromkeys(stage for times in timed.values() for stage in times[0])
    ends = [stage for stage in _LAST if stage in named]
    stages = [*(stage for stage in named if stage not in ends), *ends]
    rows = [
        [method, *(f"{fmean(t[s] for t in times):.2f}" if s in times[0] else "" for s in stages)]
        for method, times in timed.items()
    ]
    return ["", "## Seconds per clip", "", *table(["method", *stages], rows)]
