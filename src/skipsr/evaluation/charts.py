"""Charts as SVG text: dots for each clip, and curves. Colours come from the page's style sheet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 640
_LABELS = 150  # for the names of clips
_ROW = 26
_SPREAD = 4  # between the dots of one clip
_TOP, _RIGHT, _BOTTOM, _LEFT = 8, 28, 40, 52
_HEIGHT = 260
COLOURS = 5  # of the palette in the style sheet, .s0 to .s4


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values and where it lies on the picture."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        low, high, value = ((math.log(x) if self.log else x) for x in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values, four to eight of them; powers of two times the lowest on a log axis."""
        if self.log:
            steps = round(math.log2(self.high / self.low))
            return [self.low * 2**step for step in range(steps + 1)]
        step = _step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


def dots(clips: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str) -> str:
    """One line for each clip and a dot for each series; None leaves a gap.

    Dots and not bars, because PSNR and the like have no meaningful zero to begin a bar at.
    """
    values = [value for points in series.values() for value in points if value is not None]
    height = _TOP + _ROW * len(clips) + _BOTTOM
    axis = _axis(values, _LABELS, _WIDTH - _RIGHT)
    parts = _grid_down(axis, height - _BOTTOM, unit)
    for index, clip in enumerate(clips):
        y = _TOP + _ROW * (index + 0.5)
        name = clip if len(clip) <= 22 else clip[:21] + "…"
        parts.append(f'<text x="{_LABELS - 10}" y="{y + 4:g}" class="end">{escape(name)}</text>')
        found = [points[index] for points in series.values()]
        places = [axis.at(value) for value in found if value is not None]
        if places:
            parts.append(f'<path class="link" d="M{min(places):.1f} {y:g}H{max(places):.1f}"/>')
        for place, (method, value) in enumerate(zip(series, found, strict=True)):
            level = y + _SPREAD * (place - (len(series) - 1) / 2)  # equal values stay apart
            if value is not None:
                title = f"<title>{escape(clip)}, {escape(method)}: {value:.5g}</title>"
                where = f'cx="{axis.at(value):.1f}" cy="{level:g}" r="4.5"'
                parts.append(f'<circle class="dot {_style(place)}" {where}>{title}</circle>')
    return _svg(height, parts)


def curves(
    series: Mapping[str, Sequence[tuple[float, float | None]]],
    across: str,
    up: str,
    *,
    log: bool = False,
    colours: Sequence[int] = (),
) -> str:
    """Lines through the `(x, y)` points that have a y, with both axes named; `log` is for x.

    `colours` are places in the page's palette, one for each series; by default in order.
    """
    lines = [
        (name, colour, known)
        for name, colour in zip(series, colours or range(len(series)), strict=True)
        if (known := [(x, y) for x, y in series[name] if y is not None])
    ]
    xs, ys = zip(*(point for *_, known in lines for point in known), strict=True)
    foot = _HEIGHT - _BOTTOM
    left, right = _LEFT, _WIDTH - _RIGHT
    x_axis = Axis(min(xs), max(xs), left, right, log) if log else _axis(xs, left, right, 0)
    y_axis = _axis(ys, foot, _TOP)
    parts = _grid_across(y_axis, up) + _grid_down(x_axis, foot, across, lines=False)
    for name, colour, points in lines:
        route = "L".join(f"{x_axis.at(x):.1f} {y_axis.at(y):.1f}" for x, y in points)
        style = _style(colour)
        parts.append(f'<path class="curve {style}" d="M{route}"/>')
        for x, y in points:
            parts.append(
                f'<circle class="dot {style}" cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" '
                f'r="3"><title>{escape(name)}: {x:.4g}, {y:.5g}</title></circle>'
            )
    return _svg(_HEIGHT, parts)


def chart_group(names: Sequence[str], charts: Sequence[tuple[str, str]]) -> str:
    """Charts with their captions, and a legend of the series."""
    items = "".join(
        f'<li><i class="{_style(place)}"></i>{escape(name)}</li>'
        for place, name in enumerate(names)
    )
    legend = f'<ul class="legend">{items}</ul>' if names else ""
    figures = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<div class="wide">{chart}</div></figure>'
        for caption, chart in charts
    )
    return f'{legend}<div class="charts">{figures}</div>'


def _style(place: int) -> str:
    """Classes of a series: beyond the palette colours come again, with hollow dots and dashes."""
    return f"s{place % COLOURS}" + (" hollow" if place // COLOURS % 2 else "")


def _axis(values: Sequence[float], start: float, end: float, margin: float = 0.05) -> Axis:
    """An axis that holds the values with a little room."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - max(abs(low) * 0.01, 1e-6), high + max(abs(high) * 0.01, 1e-6)
    room = margin * (high - low)
    return Axis(low - room, high + room, start, end)


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that four to eight steps fill the span."""
    power = 10 ** math.floor(math.log10(span / 4))
    return next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= 8)


def _grid_down(axis: Axis, foot: float, name: str, *, lines: bool = True) -> list[str]:
    parts: list[str] = []
    for tick in axis.ticks():
        x = f"{axis.at(tick):.1f}"
        if lines:
            parts.append(f'<path class="grid" d="M{x} {_TOP}V{foot:g}"/>')
        parts.append(f'<text x="{x}" y="{foot + 16:g}" class="mid">{tick:.4g}</text>')
    middle = (axis.start + axis.end) / 2
    parts.append(f'<text x="{middle:g}" y="{foot + 34:g}" class="mid">{escape(name)}</text>')
    return parts


def _grid_across(axis: Axis, name: str) -> list[str]:
    parts: list[str] = []
    for tick in axis.ticks():
        y = axis.at(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="end">{tick:.4g}</text>')
    y = (axis.start + axis.end) / 2
    turn = f'transform="rotate(-90 12 {y:g})"'
    parts.append(f'<text x="12" y="{y:g}" class="mid" {turn}>{escape(name)}</text>')
    return parts


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img">{"".join(parts)}</svg>'
