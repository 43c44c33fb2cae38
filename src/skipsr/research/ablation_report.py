"""What the comparison of policies found, and its report: means, a curve per policy, every clip."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from skipsr.evaluation.charts import COLOURS, chart_group, curves
from skipsr.evaluation.report import EvaluationReport, Table, mean_figures
from skipsr.metrics.metric import Better

DENSE = "dense"
_FORMS = {**dict.fromkeys(("wanted", "executed", "FLOPs"), ".1%"), "s / frame": ".4f"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResult:
    """What a run gave on one clip."""

    clip: str
    frames: int
    computed: int  # units that were run
    total: int  # units that the dense model runs
    seconds: float  # in the model's own stages
    figures: Mapping[str, float]  # by column


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRun:
    """A policy with one model's weights at one budget, and what it gave on every clip."""

    weights: str
    policy: str  # "dense" for the model with everything computed
    budget: float  # share of the dense FLOPs that was asked for
    always: float  # share of the dense FLOPs that no run saves
    results: tuple[ClipResult, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.weights}, {self.policy}, {self.budget:g}"

    @property
    def key(self) -> dict[str, str | float]:
        """Which run it is, in tables."""
        return {"weights": self.weights, "policy": self.policy, "budget": self.budget}

    @property
    def wanted(self) -> float:
        """The share of units that spends the budget; below 0 where none does."""
        return (self.budget - self.always) / (1 - self.always)

    @property
    def executed(self) -> float:
        """Share of the units of all clips, of the first frames as well."""
        return sum(r.computed for r in self.results) / sum(r.total for r in self.results)

    @property
    def flops(self) -> float:
        """Share of the dense FLOPs."""
        return self.always + (1 - self.always) * self.executed

    @property
    def seconds(self) -> float:
        """For a frame, in the model's own stages."""
        return sum(r.seconds for r in self.results) / sum(r.frames for r in self.results)

    def means(self) -> dict[str, float]:
        """Mean over clips of every metric."""
        return mean_figures([result.figures for result in self.results])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "wanted": self.wanted,
            "executed": self.executed,
            "flops": self.flops,
            "seconds_per_frame": self.seconds,
            "means": self.means(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationStudy:
    """All policies at all budgets, and what they ran on."""

    record: Mapping[str, Any]
    policies: Mapping[str, str]  # name -> what it goes by; the first is the model's own
    columns: Mapping[str, Better]
    runs: tuple[PolicyRun, ...]
    notes: tuple[str, ...] = ()  # what was left out, and why
    faults: Mapping[str, str] = field(default_factory=dict[str, str])
    """Clips that could not be read, by name, and why."""

    @property
    def clips(self) -> list[str]:
        return [result.clip for result in self.runs[0].results]

    @property
    def model(self) -> str:
        """The weights with which all policies were compared."""
        return self.runs[0].weights

    @property
    def shown(self) -> dict[str, Better]:
        """The metrics that were measured."""
        found = {name for run in self.runs for name in run.means()}
        return {name: better for name, better in self.columns.items() if name in found}

    def curves(self, column: str) -> dict[str, list[tuple[float, float]]]:
        """Executed share in percent and a metric, of every policy and of every variant.

        Each curve ends with its dense network.
        """
        found: dict[str, list[tuple[float, float]]] = {}
        ends: dict[str, tuple[float, float]] = {}
        for run in self.runs:
            if (value := run.means().get(column)) is None:
                continue
            point = 100 * run.executed, value
            if run.policy == DENSE:
                ends[run.weights] = point
                continue
            first = run.weights == self.model
            series = found.setdefault(run.policy if first else run.weights, [])
            series.append(point)
            if run.weights in ends and len(series) == 1:
                series.append(ends[run.weights])
        return {name: sorted(points) for name, points in found.items()}


def ablation_report(study: AblationStudy) -> EvaluationReport:
    """`ablation.json`, `ablation.md` and `ablation.html`."""
    runs = [run.as_dict() for run in study.runs]
    return EvaluationReport(
        name="ablation",
        page="ablation",
        title=f"Policies of {study.model} on {study.record['data']}",
        record=study.record,
        values={
            "policies": study.policies,
            "columns": study.shown,
            "trials": runs,
            "notes": study.notes,
            "faults": study.faults,
        },
        summary={
            "clips": len(study.clips),
            "faults": study.faults,
            "trials": [{n: v for n, v in t.items() if n != "results"} for t in runs],
        },
        parts=[
            "Budgets are shares of the dense FLOPs, and wanted the share of blocks and tiles that "
            "spends them. Every policy is tuned to it on these clips, first frames and all, so "
            "that rows of one budget cost the same; executed is what it came to.",
            _run_table(study),
            Table(rows=[{"policy": name, "goes by": how} for name, how in study.policies.items()]),
            *study.notes,
            lambda: _charts(study),
            _clip_table(study),
        ],
    )


def _run_table(study: AblationStudy) -> Table:
    """Shares of blocks and FLOPs, mean metrics and seconds of each run."""
    rows = [
        {
            **run.key,
            "wanted": run.wanted,
            "executed": run.executed,
            "FLOPs": run.flops,
            **{column: run.means().get(column) for column in study.shown},
            "s / frame": run.seconds,
        }
        for run in study.runs
    ]
    return Table(rows=rows, forms=_FORMS, better=study.shown)


def _clip_table(study: AblationStudy) -> Table:
    """The figures of each run on each clip, clip by clip."""
    rows = [
        {
            "clip": result.clip,
            "frames": result.frames,
            **run.key,
            "executed": result.computed / result.total,
            **{column: result.figures.get(column) for column in study.shown},
            "seconds": result.seconds,
        }
        for clip in dict.fromkeys(r.clip for run in study.runs for r in run.results)
        for run in study.runs
        for result in run.results
        if result.clip == clip
    ]
    return Table(title="Clips", rows=rows, forms=_FORMS, better=study.shown)


def _charts(study: AblationStudy) -> str:
    """For each metric the model's own choice beside the others, a few at a time."""
    parts = ["<h2>Quality by share of blocks executed</h2>"]
    found = {column: study.curves(column) for column in study.shown}
    own, *_ = study.policies
    names = dict.fromkeys(name for each in found.values() for name in each if name != own)
    together = COLOURS - 1
    for first in range(0, len(names), together):
        shown = [own, *list(names)[first : first + together]]
        charts: list[tuple[str, str]] = []
        for column, better in study.shown.items():
            series = {name: found[column][name] for name in shown if name in found[column]}
            colours = [shown.index(name) for name in series]
            unit = f"{column} ({better} is better)"
            chart = curves(series, "blocks executed (%)", unit, colours=colours)
            charts.append((column, chart))
        parts.append(chart_group(shown, charts))
    return "".join(parts)
