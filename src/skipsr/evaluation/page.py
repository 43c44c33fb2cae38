"""The page of a run: one HTML file that needs nothing else, to be opened or passed on."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from skipsr.evaluation.charts import curves, dots
from skipsr.evaluation.markup import (
    chart_figure,
    data_uri,
    footer,
    framed,
    header,
    legend,
    notes,
    table,
    write_page,
)
from skipsr.evaluation.methods import RECONSTRUCTION
from skipsr.evaluation.pictures import Album, Picture, Plate
from skipsr.evaluation.results import ARROWS, Quality, number

_OPEN = 20  # charts of more clips start closed


def save_page(quality: Quality, album: Album, folder: Path) -> Path:
    """Write `index.html`: tables, comparisons of middle frames, charts."""
    title = f"{quality.record['model']} on {quality.record['data']}"
    body = [
        header(title, quality.record),
        "<h2>Means</h2>",
        _means(quality),
        notes(quality.notes),
        _comparisons(album),
        _charts(quality),
        "<h2>Clips</h2>",
        _clips(quality),
        footer(quality.record),
    ]
    return write_page(folder / "index.html", title, body)


def _means(quality: Quality) -> str:
    columns = [*quality.columns, "computed", "seconds"]
    arrows = [ARROWS[better] for better in quality.columns.values()]
    words = zip(columns, [*arrows, "", ""], strict=True)
    head = '<th class="name">method</th>' + "".join(
        f"<th>{escape(name)} {arrow}</th>" for name, arrow in words
    )
    means = {method: quality.means(method) for method in quality.methods}
    best = _best(quality)
    rows: list[str] = []
    for method, mean in means.items():
        cells = (
            f'<td class="best">{number(mean, column)}</td>'
            if method in best.get(column, ())
            else f"<td>{number(mean, column)}</td>"
            for column in columns
        )
        rows.append(f'<td class="name">{escape(method)}</td>{"".join(cells)}')
    if pair := quality.compared():
        rows.append(_difference(quality, *pair))
    return framed(head, rows)


def _best(quality: Quality) -> dict[str, list[str]]:
    """The best methods of each metric; the autoencoder's ceiling does not compete."""
    means = {m: quality.means(m) for m in quality.methods if m != RECONSTRUCTION}
    best: dict[str, list[str]] = {}
    for column, better in quality.columns.items():
        found = {method: mean[column] for method, mean in means.items() if column in mean}
        if len(found) > 1:
            top = (max if better == "higher" else min)(found.values())
            best[column] = [m for m, v in found.items() if math.isclose(v, top, rel_tol=1e-4)]
    return best


def _difference(quality: Quality, first: str, second: str) -> str:
    found = {d.column: d for d in quality.differences(first, second)}
    kinds = {True: "good", False: "bad", None: ""}
    cells = "".join(
        f'<td class="{kinds[found[c].better]}">{found[c].words}</td>' if c in found else "<td></td>"
        for c in quality.columns
    )
    name = escape(f"{first} − {second}")
    return f'<tr class="gap"><td class="name">{name}</td>{cells}<td></td><td></td></tr>'


def _clips(quality: Quality) -> str:
    columns = [*quality.columns, "computed", "seconds"]
    rows: list[list[str]] = []
    for row in quality.rows:
        values = {**row.figures, "computed": row.computed, "seconds": row.seconds.get("total")}
        head = [row.clip, row.method, f"{row.width}×{row.height}", str(row.frames)]
        rows.append([*head, *(number(values, column) for column in columns)])
    return table(["clip", "method", "size", "frames", *columns], rows, names=2)


def _comparisons(album: Album) -> str:
    plates = album.plates
    if not plates:
        return ""
    hint = (
        "The middle frame of each clip. Drag in the picture or use the slider; zoomed pictures "
        "scroll together. What was skipped is tinted blue."
    )
    if album.left_out:
        hint += f" {album.left_out} more clips are left out to keep this file small."
    return "\n".join(["<h2>Pictures</h2>", notes([hint]), *map(_comparison, plates)])


def _comparison(plate: Plate) -> str:
    names = [picture.method for picture in plate.pictures]
    left = min(1, len(names) - 1)  # the model; bicubic comes first
    right = len(names) - 1 if len(names) > 2 else 0  # the truth, where there is one
    masked = any(picture.skipped for picture in plate.pictures)
    mask = '<label><input type="checkbox" data-tool="mask">skipped</label>' if masked else ""
    panes = "".join(
        f'<div class="pane {side}" tabindex="0" role="group" aria-label="{side} picture">'
        '<div class="tag"><span></span></div><div class="sheet"></div></div>'
        for side in ("right", "left")
    )
    return f"""<figure class="compare" aria-label="{escape(plate.clip)}">
<h3>{escape(plate.clip)} <span class="soft">frame {plate.frame}</span></h3>
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
<div class="view" data-width="{plate.width}">{panes}<div class="edge"></div></div>
{"".join(_source(plate, picture) for picture in plate.pictures)}
</figure>"""


def _select(tool: str, names: Sequence[str], chosen: int) -> str:
    options = "".join(
        f'<option value="{index}"{" selected" if index == chosen else ""}>{escape(name)}</option>'
        for index, name in enumerate(names)
    )
    return f'<select data-tool="{tool}">{options}</select>'


def _source(plate: Plate, picture: Picture) -> str:
    mask = (
        f'<svg viewBox="{picture.box}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{picture.skipped}"/></svg>'
        if picture.skipped
        else ""
    )
    address = data_uri(picture.webp, "image/webp")
    size = f'width="{plate.width}" height="{plate.height}"'
    alt = escape(f"{plate.clip}, {picture.method}")
    return f'<template><img src="{address}" {size} alt="{alt}">{mask}</template>\n'


def _charts(quality: Quality) -> str:
    """A chart of dots for each metric, and the PSNR of every frame of each clip."""
    clips, methods = quality.clips, quality.methods
    figures = {(row.clip, row.method): row for row in quality.rows}
    charts: list[str] = []
    for column, better in quality.columns.items():
        series = {
            method: [
                figures[clip, method].figures.get(column) if (clip, method) in figures else None
                for clip in clips
            ]
            for method in methods
        }
        unit = f"{column} ({better} is better)"
        charts.append(chart_figure(column, dots(clips, series, unit)))
    opened = " open" if len(clips) <= _OPEN else ""
    return (
        f"<h2>Charts</h2>{legend(methods)}<details{opened}><summary>Metrics, clip by clip</summary>"
        f'<div class="charts">{"".join(charts)}</div></details>{_frames(quality, opened)}'
    )


def _frames(quality: Quality, opened: str) -> str:
    """PSNR-Y along each clip, for clips of several frames that have a truth."""
    charts: list[str] = []
    for clip in quality.clips:
        rows = {row.method: row.psnr_frames for row in quality.rows if row.clip == clip}
        series = {
            method: [(float(index), value) for index, value in enumerate(values)]
            for method, values in rows.items()
            if len(values) > 1
        }
        if series:
            places = [quality.methods.index(method) for method in series]
            chart = curves(series, "frame", "PSNR-Y (dB)", colours=places)
            charts.append(chart_figure(clip, chart))
    if not charts:
        return ""
    return (
        f"<details{opened}><summary>PSNR of every frame</summary>"
        f'<div class="charts">{"".join(charts)}</div></details>'
    )
