"""What the analysis of masks found, as values and as `masks.json` and `masks.md`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from skipsr.evaluation.ranking import Counts
from skipsr.evaluation.record import facts, to_json, to_line, write_aside
from skipsr.evaluation.results import ARROWS, number, table
from skipsr.metrics.metric import Better

_TRUTH, _UNSWAPPED = "the truth", "no swap"


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
class ThresholdPoint:
    """The predictor at one threshold, all tokens."""

    threshold: float
    skipped: float
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The predictor against the oracle, over all tokens of all clips."""

    counts: Counts  # at the threshold of the run
    average_precision: float | None
    thresholds: tuple[ThresholdPoint, ...]


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
    notes: tuple[str, ...] = ()

    def of(self, mask: str) -> list[Swap]:
        return [swap for swap in self.swaps if swap.mask == mask]

    @property
    def masks(self) -> list[str]:
        return list(dict.fromkeys(swap.mask for swap in self.swaps))


def save_masks(study: MaskStudy, folder: Path) -> Path:
    """Write `masks.json` and `masks.md`; returns the first."""
    write_aside(folder / "masks.md", to_markdown(study))
    return write_aside(folder / "masks.json", to_json(as_dict(study)))


def print_line(study: MaskStudy, page: Path) -> str:
    """What the command line prints: the means, the predictor's quality, and where the page is."""
    prediction = study.prediction and prediction_figures(study.prediction)
    found = {mask: means(study, mask) for mask in study.masks}
    return to_line({"page": page, "means": found, "prediction": prediction})


def as_dict(study: MaskStudy) -> dict[str, Any]:
    """Everything, and what follows from it: means over clips."""
    prediction = study.prediction
    return {
        **study.record,
        "tau": study.tau,
        "threshold": study.threshold,
        "columns": study.columns,
        "means": {mask: means(study, mask) for mask in study.masks},
        "prediction": prediction and prediction_figures(prediction),
        "taus": [asdict(point) for point in study.taus],
        "thresholds": [asdict(p) for p in prediction.thresholds] if prediction else [],
        "notes": study.notes,
        "swaps": [asdict(swap) for swap in study.swaps],
    }


def means(study: MaskStudy, mask: str) -> dict[str, Any]:
    """Means over clips of what one kind of mask gave."""
    swaps = study.of(mask)
    found: dict[str, Any] = {"skipped": fmean(swap.skipped for swap in swaps)}
    for part in ("figures", "swap", "ceiling"):
        values = [asdict(swap)[part] for swap in swaps]
        found[part] = {
            column: fmean(v[column] for v in values if column in v)
            for column in study.columns
            if any(column in v for v in values)
        }
    return found


def prediction_figures(prediction: Prediction) -> dict[str, float | None]:
    """The predictor against the oracle; None where a figure is undefined."""
    counts = prediction.counts
    return {
        "skipped": counts.skipped,
        "skippable": counts.skippable,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "average_precision": prediction.average_precision,
    }


def to_markdown(study: MaskStudy) -> str:
    """Tables of means, of the predictor, of both sweeps and of every clip."""
    head = [f"{column} {ARROWS[better]}" for column, better in study.columns.items()]
    lines = [f"# Masks of {study.record['model']} on {study.record['data']}", ""]
    lines += [f"tau {study.tau:g}, threshold {study.threshold:g}", ""]
    lines += table(["mask", "skipped", "compared with", *head], mean_rows(study))
    if study.prediction is not None:
        figures = prediction_figures(study.prediction)
        shown = [f"{value:.4f}" if value is not None else "" for value in figures.values()]
        lines += ["", "Predictor against oracle, all tokens:", ""]
        lines += table(list(figures), [shown])
    lines += ["", "Oracle, by tau:", ""]
    taus = [[f"{p.tau:g}", f"{p.skipped:.1%}", f"{p.swap_psnr:.2f}"] for p in study.taus]
    lines += table(["tau", "skipped", "swap PSNR (dB)"], taus)
    if study.prediction is not None:
        lines += ["", "Predictor, by threshold:", ""]
        lines += table(
            ["threshold", "skipped", "precision", "recall"],
            [
                [
                    f"{p.threshold:g}",
                    *(number(asdict(p), c) for c in ("skipped", "precision", "recall")),
                ]
                for p in study.prediction.thresholds
            ],
        )
    lines += ["", "## Clips", ""]
    lines += table(["clip", "mask", "skipped", "compared with", *head], clip_rows(study))
    lines += ["", "`none` is decode(encode(truth)): the ceiling, and what `no swap` stands for."]
    lines += [
        "",
        *(f"- {note}" for note in study.notes),
        *(f"- {name}: {words}" for name, words in facts(study.record).items()),
    ]
    return "\n".join(lines) + "\n"


def mean_rows(study: MaskStudy) -> list[list[str]]:
    """Cells of the table of means: mask, skipped, what was compared, a figure per column."""
    rows: list[list[str]] = []
    for mask in study.masks:
        found = means(study, mask)
        if not rows:
            rows.append(["none", "0.0%", _TRUTH, *_figures(study, found["ceiling"])])
        skipped = number(found, "skipped")
        rows.append([mask, skipped, _TRUTH, *_figures(study, found["figures"])])
        rows.append([mask, skipped, _UNSWAPPED, *_figures(study, found["swap"])])
    return rows


def clip_rows(study: MaskStudy) -> list[list[str]]:
    """Cells of the table of clips: clip, then as `mean_rows`."""
    rows: list[list[str]] = []
    for swap in study.swaps:
        head = [swap.clip, swap.mask, f"{swap.skipped:.1%}"]
        if swap.mask == study.masks[0]:
            rows.append([swap.clip, "none", "0.0%", _TRUTH, *_figures(study, swap.ceiling)])
        rows.append([*head, _TRUTH, *_figures(study, swap.figures)])
        rows.append([*head, _UNSWAPPED, *_figures(study, swap.swap)])
    return rows


def _figures(study: MaskStudy, values: Mapping[str, float]) -> list[str]:
    return [number(values, column) for column in study.columns]
