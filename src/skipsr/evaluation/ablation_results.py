"""What the comparison of policies found, as values and as `ablation.json` and `ablation.md`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from skipsr.evaluation.record import facts, to_json, to_line, write_aside
from skipsr.evaluation.results import ARROWS, number, table
from skipsr.metrics.metric import Better

DENSE = "dense"
HEAD = ("weights", "policy", "budget", "wanted", "executed", "FLOPs")
"""Names of the first columns of the tables; those of the metrics and the seconds follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One trial on one clip."""

    clip: str
    frames: int
    computed: int  # units that were run
    total: int  # units that the dense model runs
    seconds: float  # in the model's own stages
    figures: Mapping[str, float]  # by column

    @property
    def words(self) -> str:
        figures = "  ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        return f"executed {self.computed / self.total:.1%}  {figures}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A policy with one model's weights at one budget, and what it gave on every clip."""

    weights: str
    policy: str  # "dense" for the model with everything computed
    budget: float  # share of the dense FLOPs that was asked for
    always: float  # share of the dense FLOPs that no run saves
    results: tuple[Measured, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.weights}, {self.policy}, {self.budget:g}"

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
        columns = dict.fromkeys(name for result in self.results for name in result.figures)
        return {
            column: fmean(r.figures[column] for r in self.results if column in r.figures)
            for column in columns
        }

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
    """All trials of a run, and what it ran on."""

    record: Mapping[str, Any]
    policies: Mapping[str, str]  # name -> what it goes by; the first is the model's own
    columns: Mapping[str, Better]
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()  # what was left out, and why

    @property
    def model(self) -> str:
        """The weights with which all policies were compared."""
        return self.trials[0].weights

    @property
    def shown(self) -> dict[str, Better]:
        """The metrics that were measured."""
        found = {name for trial in self.trials for name in trial.means()}
        return {name: better for name, better in self.columns.items() if name in found}

    def curves(self, column: str) -> dict[str, list[tuple[float, float]]]:
        """Executed share in percent and a metric, of every policy and of every variant; each ends
        with its dense network."""
        found: dict[str, list[tuple[float, float]]] = {}
        ends: dict[str, tuple[float, float]] = {}
        for trial in self.trials:
            if (value := trial.means().get(column)) is None:
                continue
            point = 100 * trial.executed, value
            if trial.policy == DENSE:
                ends[trial.weights] = point
                continue
            first = trial.weights == self.model
            series = found.setdefault(trial.policy if first else trial.weights, [])
            series.append(point)
            if trial.weights in ends and len(series) == 1:
                series.append(ends[trial.weights])
        return {name: sorted(points) for name, points in found.items()}


def save_ablation(study: AblationStudy, folder: Path) -> Path:
    """Write `ablation.json` and `ablation.md`; returns the first."""
    write_aside(folder / "ablation.md", to_markdown(study))
    return write_aside(folder / "ablation.json", to_json(as_dict(study)))


def print_line(study: AblationStudy, page: Path) -> str:
    """What the command line prints: the trials without their clips, and where the page is."""
    trials = [trial.as_dict() for trial in study.trials]
    for trial in trials:
        del trial["results"]
    return to_line({"page": page, "trials": trials})


def as_dict(study: AblationStudy) -> dict[str, Any]:
    """Everything, and what follows from it: shares and means over clips."""
    return {
        **study.record,
        "policies": study.policies,
        "columns": study.shown,
        "trials": [trial.as_dict() for trial in study.trials],
        "notes": study.notes,
    }


def to_markdown(study: AblationStudy) -> str:
    """A table of means, one of every clip, and what the policies are."""
    lines = [f"# Policies of {study.model} on {study.record['data']}", ""]
    lines += table(head(study), mean_rows(study))
    lines += ["", *(f"- {name}: {words}" for name, words in study.policies.items())]
    lines += ["", "## Clips", ""]
    lines += table(clip_head(study), clip_rows(study))
    lines += [
        "",
        *(f"- {note}" for note in study.notes),
        *(f"- {name}: {words}" for name, words in facts(study.record).items()),
    ]
    return "\n".join(lines) + "\n"


def head(study: AblationStudy) -> list[str]:
    """Names of the columns of `mean_rows`."""
    return [*HEAD, *_metrics(study), "s / frame"]


def mean_rows(study: AblationStudy) -> list[list[str]]:
    """Cells of the table of means: what was run, shares of blocks and FLOPs, metrics, seconds."""
    rows: list[list[str]] = []
    for trial in study.trials:
        means = trial.means()
        rows.append(
            [
                trial.weights,
                trial.policy,
                f"{trial.budget:g}",
                f"{trial.wanted:.1%}",
                f"{trial.executed:.1%}",
                f"{trial.flops:.1%}",
                *(number(means, column) for column in study.shown),
                f"{trial.seconds:.4f}",
            ]
        )
    return rows


def clip_head(study: AblationStudy) -> list[str]:
    """Names of the columns of `clip_rows`."""
    first = ("clip", "frames", "weights", "policy", "budget", "executed")
    return [*first, *_metrics(study), "seconds"]


def clip_rows(study: AblationStudy) -> list[list[str]]:
    """Cells of the table of clips, clip by clip."""
    clips = dict.fromkeys(result.clip for trial in study.trials for result in trial.results)
    return [
        [
            clip,
            str(result.frames),
            trial.weights,
            trial.policy,
            f"{trial.budget:g}",
            f"{result.computed / result.total:.1%}",
            *(number(result.figures, column) for column in study.shown),
            f"{result.seconds:.2f}",
        ]
        for clip in clips
        for trial in study.trials
        for result in trial.results
        if result.clip == clip
    ]


def _metrics(study: AblationStudy) -> list[str]:
    return [f"{column} {ARROWS[better]}" for column, better in study.shown.items()]
