"""The report of a run: tables, comparisons of middle frames, charts."""

from collections.abc import Sequence
from html import escape

from skipsr.evaluation.charts import chart_group, curves, dots
from skipsr.evaluation.gallery import Crop, FrameComparison, Gallery
from skipsr.evaluation.report import EvaluationReport, data_uri
from skipsr.evaluation.results import Quality, clip_table, mean_table, stage_table, uneven_note

_OPEN = 20  # charts of more clips start closed


def quality_report(quality: Quality, gallery: Gallery) -> EvaluationReport:
    """`results.json`, `results.md` and `index.html`."""
    values, timed = quality.values(), stage_table(quality)
    return EvaluationReport(
        name="results",
        page="index",
        title=f"{quality.record['model']} on {quality.record['data']}",
        record=quality.record,
        values=values,
        summary={
            "clips": len(quality.clips),
            "faults": quality.faults,
            "means": values["means"],
        },
        parts=[
            mean_table(quality),
            *uneven_note(quality),
            *quality.notes,
            lambda: _comparisons(gallery),
            lambda: _charts(quality),
            clip_table(quality),
            *([timed] if timed else []),
        ],
    )


def _comparisons(gallery: Gallery) -> str:
    comparisons = gallery.comparisons
    if not comparisons:
        return ""
    hint = (
        "The middle frame of each clip. Drag in the crop or use the slider; zoomed pictures "
        "scroll together. What was skipped is tinted blue."
    )
    if gallery.left_out:
        hint += f" {gallery.left_out} more clips are left out to keep this file small."
    head = f'<h2>Pictures</h2>\n<p class="soft">{hint}</p>'
    return "\n".join([head, *map(_comparison, comparisons)])


def _comparison(comparison: FrameComparison) -> str:
    names = [crop.method for crop in comparison.crops]
    left = min(1, len(names) - 1)  # the model; bicubic comes first
    right = len(names) - 1 if len(names) > 2 else 0  # the truth, where there is one
    masked = any(crop.skipped for crop in comparison.crops)
    mask = '<label><input type="checkbox" data-tool="mask">skipped</label>' if masked else ""
    panes = "".join(
        f'<div class="pane {side}" tabindex="0" role="group" aria-label="{side} crop">'
        '<div class="tag"><span></span></div><div class="sheet"></div></div>'
        for side in ("right", "left")
    )
    return f"""<figure class="compare" aria-label="{escape(comparison.clip)}">
<h3>{escape(comparison.clip)} <span class="soft">frame {comparison.frame}</span></h3>
<div class="tools">
<label>left {_select("left", names, left)}</label>
<label>right {_select("right", names, right)}</label>
<label>layout <select data-tool="layout"><option value="wipe">wipe</option>\
<option value="side">side by side</option></select></label>
<label>zoom <select data-tool="zoom"><option value="fit">fit</option>\
<option value="1">1×</option><option value="2">2×</option><option value="4">4×</option>\
<option value="8">8×</option></select></label>
{mask}
<label class="slide">wipe <input type="range" min="0" max="100" step="0.1" value="50" \
data-tool="cut"></label>
</div>
<div class="view" data-width="{comparison.width}">{panes}<div class="edge"></div></div>
{"".join(_source(comparison, crop) for crop in comparison.crops)}
</figure>"""


def _select(tool: str, names: Sequence[str], chosen: int) -> str:
    options = "".join(
        f'<option value="{index}"{" selected" if index == chosen else ""}>{escape(name)}</option>'
        for index, name in enumerate(names)
    )
    return f'<select data-tool="{tool}">{options}</select>'


def _source(comparison: FrameComparison, crop: Crop) -> str:
    mask = (
        f'<svg viewBox="{crop.box}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{crop.skipped}"/></svg>'
        if crop.skipped
        else ""
    )
    address = data_uri(crop.webp, "image/webp")
    size = f'width="{comparison.width}" height="{comparison.height}"'
    alt = escape(f"{comparison.clip}, {crop.method}")
    return f'<template><img src="{address}" {size} alt="{alt}">{mask}</template>\n'


def _charts(quality: Quality) -> str:
    """A chart of dots for each metric, and the PSNR of every frame of each clip."""
    clips, methods = quality.clips, quality.methods
    figures = {(row.clip, row.method): row.figures for row in quality.rows}
    charts: list[tuple[str, str]] = []
    for column, better in quality.columns.items():
        series = {m: [figures.get((clip, m), {}).get(column) for clip in clips] for m in methods}
        charts.append((column, dots(clips, series, f"{column} ({better} is better)")))
    opened = " open" if len(clips) <= _OPEN else ""
    groups = {
        "Metrics, clip by clip": chart_group(methods, charts),
        "PSNR of every frame": _frames(quality),
    }
    return "<h2>Charts</h2>" + "".join(
        f"<details{opened}><summary>{summary}</summary>{group}</details>"
        for summary, group in groups.items()
        if group
    )


def _frames(quality: Quality) -> str:
    """PSNR-Y along each clip, for clips of several frames that have a truth."""
    charts: list[tuple[str, str]] = []
    for clip in quality.clips:
        series = {
            row.method: [(float(index), value) for index, value in enumerate(row.psnr_frames)]
            for row in quality.rows
            if row.clip == clip and len(row.psnr_frames) > 1
        }
        if series:
            places = [quality.methods.index(method) for method in series]
            charts.append((clip, curves(series, "frame", "PSNR-Y (dB)", colours=places)))
    return chart_group(quality.methods, charts) if charts else ""
