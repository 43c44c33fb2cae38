"""What the analysis of masks found, and its report: cost of swaps, the predictor, both sweeps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from skipsr.evaluation.charts import chart_group, curves
from skipsr.evaluation.ranking import Counts
from skipsr.evaluation.report import Cell, EvaluationReport, Number, Table, mean_figures
from skipsr.metrics.metric import Better

_FORMS = {"skipped": ".1%"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One mask on one clip."""

    clip: str
    mask: str  # "oracle" or "predictor"
    skipped: float  # share of tokens
    figures: Mapping[str, float]  # decoded swap against the truth
    swap: Mapping[str, float]  # against the unswapped reconstruction: the swap alone
    ceiling: Mapping[str, float]  # the unswapped reconstruction against the truth


@dataclass(frozen=True, slots=True, kw_only=True)
class TauPoint:
    """The oracle mask at one tau, all clips."""

    tau: float
    skipped: float  # share of all tokens
    swap_psnr: float  # RGB, dB, mean over clips


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The predictor against the oracle, over all tokens of all clips."""

    counts: Counts  # at the threshold of the run
    average_precision: float | None
    thresholds: Mapping[float, Counts]  # at each of a sweep

    @property
    def figures(self) -> dict[str, Number]:
        """At the threshold of the run; None where a figure is undefined."""
        names = ("skipped", "skippable", "precision", "recall", "f1")
        found = {name: getattr(self.counts, name) for name in names}
        return {**found, "average_precision": self.average_precision}

    @property
    def sweep(self) -> list[dict[str, Number]]:
        """What each threshold of the sweep gives."""
        return [
            {"threshold": at, "skipped": c.skipped, "precision": c.precision, "recall": c.recall}
            for at, c in self.thresholds.items()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskStudy:
    """All that is known of a model's masks on a folder of clips."""

    record: Mapping[str, Any]
    tau: float
    threshold: float
    columns: Mapping[str, Better]
    swaps: tuple[Swap, ...]
    taus: tuple[TauPoint, ...]
    prediction: Prediction | None  # None for a model without a predictor
    notes: tuple[str, ...] = ()  # what was left out, and why
    faults: Mapping[str, str] = field(default_factory=dict[str, str])
    """Clips that could not be read, by name, and why."""

    @property
    def clips(self) -> list[str]:
        return list(dict.fromkeys(swap.clip for swap in self.swaps))

    def of(self, mask: str) -> list[Swap]:
        return [swap for swap in self.swaps if swap.mask == mask]

    @property
    def masks(self) -> list[str]:
        return list(dict.fromkeys(swap.mask for swap in self.swaps))


def mask_report(study: MaskStudy) -> EvaluationReport:
    """`masks.json`, `masks.md` and `masks.html`."""
    found, prediction = {mask: means(study, mask) for mask in study.masks}, study.prediction
    figures = prediction and prediction.figures
    return EvaluationReport(
        name="masks",
        page="masks",
        title=f"Masks of {study.record['model']} on {study.record['data']}",
        record=study.record,
        values={
            "tau": study.tau,
            "threshold": study.threshold,
            "columns": study.columns,
            "means": found,
            "prediction": figures,
            "taus": [asdict(point) for point in study.taus],
            "thresholds": prediction.sweep if prediction else [],
            "notes": study.notes,
            "faults": study.faults,
            "swaps": [asdict(swap) for swap in study.swaps],
        },
        summary={
            "clips": len(study.clips),
            "faults": study.faults,
            "means": found,
            "prediction": figures,
        },
        parts=[
            f"Skippable are tokens whose error is at most tau = {study.tau:g}; the predictor keeps "
            f"a token from a probability of {study.threshold:g} on. No mask is "
            "decode(encode(truth)), the autoencoder's own ceiling; compared with no swap, a mask "
            "shows the cost of its swap alone.",
            _swap_table(study),
            _prediction_table(prediction) if prediction else "This model has no mask predictor.",
            *study.notes,
            lambda: _charts(study),
            Table(
                title="Oracle, by tau",
                rows=[
                    {"tau": p.tau, "skipped": p.skipped, "swap PSNR (dB)": p.swap_psnr}
                    for p in study.taus
                ],
                forms=_FORMS,
            ),
            *([_threshold_table(prediction)] if prediction else []),
            _clip_table(study),
        ],
    )


def means(study: MaskStudy, mask: str) -> dict[str, Any]:
    """Means over clips of what one kind of mask gave."""
    swaps = study.of(mask)
    return {
        "skipped": fmean(swap.skipped for swap in swaps),
        "figures": mean_figures([swap.figures for swap in swaps]),
        "swap": mean_figures([swap.swap for swap in swaps]),
        "ceiling": mean_figures([swap.ceiling for swap in swaps]),
    }


def _prediction_table(prediction: Prediction) -> Table:
    figures = {name.replace("_", " "): value for name, value in prediction.figures.items()}
    return Table(title="Predictor against oracle, all tokens", rows=[figures])


def _threshold_table(prediction: Prediction) -> Table:
    return Table(title="Predictor, by threshold", rows=prediction.sweep, forms=_FORMS)


def _swap_table(study: MaskStudy) -> Table:
    rows = [row for mask in study.masks for row in _rows(study, mask, means(study, mask))]
    title = "Skipped cells of the truth's latent replaced by the plain ones"
    return Table(title=title, rows=rows, forms=_FORMS, better=study.columns)


def _clip_table(study: MaskStudy) -> Table:
    rows = [
        {"clip": swap.clip, **row}
        for swap in study.swaps
        for row in _rows(study, swap.mask, asdict(swap))
    ]
    return Table(title="Clips", rows=rows, forms=_FORMS, better=study.columns)


def _rows(study: MaskStudy, mask: str, found: Mapping[str, Any]) -> list[dict[str, Cell]]:
    """What one mask gave, on one clip or as means; before the first mask what none gives."""
    none = [("none", 0.0, "the truth", "ceiling")] if mask == study.masks[0] else []
    skipped = found["skipped"]
    shown = [*none, (mask, skipped, "the truth", "figures"), (mask, skipped, "no swap", "swap")]
    return [
        {
            "mask": name,
            "skipped": share,
            "compared with": like,
            **{column: found[part].get(column) for column in study.columns},
        }
        for name, share, like, part in shown
    ]


def _charts(study: MaskStudy) -> str:
    skipped = [(point.tau, 100 * point.skipped) for point in study.taus]
    swap = [(point.tau, point.swap_psnr) for point in study.taus]
    cost = [(100 * point.skipped, point.swap_psnr) for point in study.taus]
    share, psnr = "skipped (%)", "swap PSNR (dB)"
    charts = [
        ("Oracle: share skipped", curves({"oracle": skipped}, "tau", share, log=True)),
        ("Oracle: PSNR of the swap alone", curves({"oracle": swap}, "tau", psnr, log=True)),
        ("Oracle: what skipping costs", curves({"oracle": cost}, share, psnr)),
    ]
    names = ("oracle", "skipped", "precision", "recall")
    if study.prediction is None:
        return f"<h2>Sweeps</h2>{chart_group(names[:1], charts)}"
    sweep = study.prediction.thresholds.items()
    series = {name: [(at, getattr(counts, name)) for at, counts in sweep] for name in names[1:]}
    chart = curves(series, "threshold", "share", colours=(1, 2, 3))
    charts.append(("Predictor, by threshold", chart))
    return f"<h2>Sweeps</h2>{chart_group(names, charts)}"
