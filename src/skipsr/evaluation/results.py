"""What a measurement found, and its tables."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from skipsr.evaluation.methods import RECONSTRUCTION
from skipsr.evaluation.report import Cell, Marked, Table, mean_figures
from skipsr.metrics.metric import Better

_COST = {"computed": ".1%", "seconds": ".1f"}  # columns beside the metrics, and their forms
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
    def cell(self) -> Cell:
        """The value with its sign; differences that mean nothing as such."""
        if self.better is None:
            return Marked("± 0", "equal")
        return Marked(f"{self.value:+.3g}", "good" if self.better else "bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """All rows of a run, and what it ran on."""

    record: Mapping[str, Any]  # date, commit, device, versions, settings
    columns: Mapping[str, Better]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # what was left out, and why
    faults: Mapping[str, str] = field(default_factory=dict[str, str])
    """Clips that could not be measured, by name, and why."""

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
        return mean_figures([_figures(row) for row in self.of(method)])

    def uneven(self, column: str) -> bool:
        """Whether methods that have a column have it for other clips than each other, so that their
        means cannot be compared. The autoencoder's ceiling does not count."""
        having: dict[str, set[str]] = {}
        for row in self.rows:
            if column in row.figures and row.method != RECONSTRUCTION:
                having.setdefault(row.method, set()).add(row.clip)
        return any(clips != next(iter(having.values())) for clips in having.values())

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

    def values(self) -> dict[str, Any]:
        """Everything, and what follows from it: means and differences."""
        difference = None
        if pair := self.compared():
            found = {d.column: asdict(d) for d in self.differences(*pair)}
            difference = {"of": pair[0], "minus": pair[1], "columns": found}
        return {
            "columns": self.columns,
            "means": {method: self.means(method) for method in self.methods},
            "difference": difference,
            "notes": self.notes,
            "faults": self.faults,
            "rows": [asdict(row) | {"fps": row.fps} for row in self.rows],
        }


def mean_table(quality: Quality) -> Table:
    """Means of each method, the best marked, and the difference of the two in question.

    None is marked where methods have a metric for different clips; see `uneven_note`. The
    autoencoder's ceiling does not compete.
    """
    means = {method: quality.means(method) for method in quality.methods}
    rivals = [mean for method, mean in means.items() if method != RECONSTRUCTION]

    def cell(method: str, column: str) -> Cell:
        value = means[method].get(column)
        others = [mean[column] for mean in rivals if column in mean]
        if value is None or method == RECONSTRUCTION or len(others) < 2 or quality.uneven(column):
            return value
        best = max(others) if quality.columns[column] == "higher" else min(others)
        return Marked(value, "best") if math.isclose(value, best, rel_tol=1e-4) else value

    rows = [
        {
            "method": method,
            **{column: cell(method, column) for column in quality.columns},
            **{column: mean.get(column) for column in _COST},
        }
        for method, mean in means.items()
    ]
    foot: dict[str, Cell] = {}
    if pair := quality.compared():
        foot = {"method": f"{pair[0]} − {pair[1]}"}
        foot |= {d.column: d.cell for d in quality.differences(*pair)}
    return Table(title="Means", rows=rows, forms=_COST, better=quality.columns, foot=foot)


def uneven_note(quality: Quality) -> list[str]:
    """A sentence on the metrics whose means are not of the same clips, if there are any."""
    named = [column for column in quality.columns if quality.uneven(column)]
    if not named:
        return []
    return [f"Means of {', '.join(named)} are not of the same clips for all methods: none is best."]


def clip_table(quality: Quality) -> Table:
    """Every method on every clip."""
    rows = [
        {
            "clip": row.clip,
            "method": row.method,
            "size": f"{row.width}x{row.height}",
            "frames": row.frames,
            **{column: _figures(row).get(column) for column in (*quality.columns, *_COST)},
        }
        for row in quality.rows
    ]
    return Table(title="Clips", rows=rows, forms=_COST, better=quality.columns)


def stage_table(quality: Quality) -> Table | None:
    """Seconds of every stage, means over clips; models need not have the same stages."""
    timed = {m: [r.seconds for r in quality.of(m) if r.seconds] for m in quality.methods}
    means = {method: mean_figures(times) for method, times in timed.items() if times}
    named = dict.fromkeys(stage for mean in means.values() for stage in mean)
    stages = sorted(named, key=lambda stage: stage in _LAST)
    rows = [
        {"method": method, **{stage: mean.get(stage) for stage in stages}}
        for method, mean in means.items()
    ]
    forms = dict.fromkeys(stages, ".2f")
    return Table(title="Seconds per clip", rows=rows, forms=forms) if rows else None


def _figures(row: Row) -> dict[str, float | None]:
    return {**row.figures, "computed": row.computed, "seconds": row.seconds.get("total")}
