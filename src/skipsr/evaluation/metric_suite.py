"""Choosing metrics, and measuring with those that can run here."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from skipsr.errors import SettingsError, SkipsrError
from skipsr.metrics import METRICS, Metric
from skipsr.metrics.metric import Better


@dataclass(slots=True)
class MetricSuite:
    """Metrics that are measured together.

    Where one cannot run, its columns are left out and the reason is noted once.
    """

    metrics: Sequence[Metric]
    notes: list[str] = field(default_factory=list[str])

    @property
    def columns(self) -> dict[str, Better]:
        return {name: better for metric in self.metrics for name, better in metric.columns.items()}

    def measure(self, frames: Tensor, truth: Tensor | None) -> dict[str, float]:
        """All columns; those that need a truth only where there is one.

        Args:
            frames: `t 3 h w` in [0, 1].
            truth: the same shape, or None.
        """
        figures: dict[str, float] = {}
        for metric in self.metrics:
            if metric.needs_truth and truth is None:
                continue
            try:
                figures |= metric.measure(frames, truth)
            except SkipsrError as error:
                self.note(metric.name, error)
        return figures

    def note(self, name: str, error: SkipsrError) -> None:
        """Remember once why something is missing."""
        note = f"{name} is left out: {error}"
        if note not in self.notes:
            self.notes.append(note)


def choose_metrics(names: Sequence[str]) -> list[Metric]:
    """The metrics of these names, or those measured by default.

    Raises:
        SettingsError: for an unknown name.
    """
    for name in names:
        if name not in METRICS:
            raise SettingsError(f"`metrics` {name} is unknown; there are {', '.join(METRICS)}")
    return [METRICS[name] for name in names] or [m for m in METRICS.values() if m.default]


def choose_full_reference(names: Sequence[str]) -> list[Metric]:
    """The metrics of these names that compare with a truth, or fidelity.

    Raises:
        SettingsError: for an unknown name, or a metric that compares with nothing.
    """
    chosen = choose_metrics(names or ("fidelity",))
    for metric in chosen:
        if not metric.needs_truth:
            raise SettingsError(
                f"masks are compared with the truth, which {metric.name} does not look at: "
                "leave it out of `metrics`"
            )
    return chosen
