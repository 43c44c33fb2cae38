"""The page of a comparison of policies: means, a curve for each policy, every clip."""

from pathlib import Path

from skipsr.evaluation.ablation_results import (
    AblationStudy,
    clip_head,
    clip_rows,
    head,
    mean_rows,
)
from skipsr.evaluation.charts import curves
from skipsr.evaluation.markup import (
    COLOURS,
    chart_figure,
    footer,
    header,
    legend,
    notes,
    table,
    write_page,
)


def save_ablation_page(study: AblationStudy, folder: Path) -> Path:
    """Write `ablation.html`: tables and curves."""
    title = f"Policies of {study.model} on {study.record['data']}"
    body = [
        header(title, study.record),
        "<p>Budgets are shares of the dense FLOPs, and wanted the share of blocks and tiles that "
        "spends them. Every policy is tuned to it on these clips, first frames and all, so that "
        "rows of one budget cost the same; executed is what it came to.</p>",
        table(head(study), mean_rows(study), names=2),
        table(["policy", "goes by"], [list(pair) for pair in study.policies.items()], names=2),
        notes(study.notes),
        _charts(study),
        "<h2>Clips</h2>",
        table(clip_head(study), clip_rows(study), names=1),
        footer(study.record),
    ]
    return write_page(folder / "ablation.html", title, body)


def _charts(study: AblationStudy) -> str:
    """For each metric the model's own choice beside the others, a few at a time."""
    parts = ["<h2>Quality by share of blocks executed</h2>"]
    own, *_ = study.policies
    names = [name for name in _series(study) if name != own]
    together = COLOURS - 1
    for first in range(0, len(names), together):
        shown = [own, *names[first : first + together]]
        charts: list[str] = []
        for column, better in study.shown.items():
            found = study.curves(column)
            series = {name: found[name] for name in shown if name in found}
            colours = [shown.index(name) for name in series]
            unit = f"{column} ({better} is better)"
            chart = curves(series, "blocks executed (%)", unit, colours=colours)
            charts.append(chart_figure(column, chart))
        parts.append(f'{legend(shown)}<div class="charts">{"".join(charts)}</div>')
    return "".join(parts)


def _series(study: AblationStudy) -> list[str]:
    """Names of all curves; not every metric need have each."""
    return list(dict.fromkeys(name for column in study.shown for name in study.curves(column)))
