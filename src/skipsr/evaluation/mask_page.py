"""The page of a mask analysis: what swaps cost, how good the predictor is, both sweeps."""

from pathlib import Path

from skipsr.evaluation.charts import curves
from skipsr.evaluation.markup import (
    chart_figure,
    footer,
    header,
    legend,
    notes,
    table,
    write_page,
)
from skipsr.evaluation.mask_results import (
    MaskStudy,
    clip_rows,
    mean_rows,
    prediction_figures,
)
from skipsr.evaluation.results import ARROWS


def save_masks_page(study: MaskStudy, folder: Path) -> Path:
    """Write `masks.html`: tables and curves."""
    title = f"Masks of {study.record['model']} on {study.record['data']}"
    head = [f"{column} {ARROWS[better]}" for column, better in study.columns.items()]
    body = [
        header(title, study.record),
        f"<p>Skippable are tokens whose error is at most tau = {study.tau:g}; the predictor keeps "
        f"a token from a probability of {study.threshold:g} on. No mask is the autoencoder's own "
        "ceiling; compared with no swap, a mask shows the cost of its swap alone.</p>",
        "<h2>Skipped cells of the truth's latent replaced by the plain ones</h2>",
        table(["mask", "skipped", "compared with", *head], mean_rows(study), names=3),
        _prediction(study),
        notes(study.notes),
        _mask_charts(study),
        "<h2>Clips</h2>",
        table(["clip", "mask", "skipped", "compared with", *head], clip_rows(study), names=4),
        footer(study.record),
    ]
    return write_page(folder / "masks.html", title, body)


def _prediction(study: MaskStudy) -> str:
    if study.prediction is None:
        return '<p class="soft">This model has no mask predictor.</p>'
    figures = prediction_figures(study.prediction)
    cells = ["" if value is None else f"{value:.4f}" for value in figures.values()]
    head = [name.replace("_", " ") for name in figures]
    return "<h2>Predictor against oracle, all tokens</h2>\n" + table(head, [cells], names=0)


def _mask_charts(study: MaskStudy) -> str:
    skipped = [(point.tau, 100 * point.skipped) for point in study.taus]
    swap = [(point.tau, point.swap_psnr) for point in study.taus]
    cost = [(100 * point.skipped, point.swap_psnr) for point in study.taus]
    charts = [
        chart_figure(
            "Oracle: share skipped", curves({"oracle": skipped}, "tau", "skipped (%)", log=True)
        ),
        chart_figure(
            "Oracle: PSNR of the swap alone",
            curves({"oracle": swap}, "tau", "swap PSNR (dB)", log=True),
        ),
        chart_figure(
            "Oracle: what skipping costs", curves({"oracle": cost}, "skipped (%)", "swap PSNR (dB)")
        ),
    ]
    names = ["oracle"]
    if study.prediction is not None:
        points = study.prediction.thresholds
        series = {
            "skipped": [(p.threshold, p.skipped) for p in points],
            "precision": [(p.threshold, p.precision) for p in points if p.precision is not None],
            "recall": [(p.threshold, p.recall) for p in points if p.recall is not None],
        }
        series = {name: values for name, values in series.items() if values}
        names += list(series)
        colours = [names.index(name) for name in series]
        chart = curves(series, "threshold", "share", colours=colours)
        charts.append(chart_figure("Predictor, by threshold", chart))
    return f'<h2>Sweeps</h2>{legend(names)}<div class="charts">{"".join(charts)}</div>'
