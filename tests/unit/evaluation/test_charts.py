"""Charts: points lie where their values say, and what is missing leaves a gap."""

import re
import xml.etree.ElementTree as ET
from importlib.resources import files

import pytest
import torch

from skipsr.evaluation.charts import Axis, chart_group, curves, dots
from skipsr.evaluation.gallery import outline


def places(svg: str, colour: int) -> list[tuple[float, float]]:
    root = ET.fromstring(svg)
    found = [c for c in root.iter("circle") if c.get("class") == f"dot s{colour}"]
    return [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in found]


def test_dots_keep_order_and_gaps():
    svg = dots(["a", "b", "c"], {"m": [1.0, None, 3.0], "n": [2.0, 2.0, 2.0]}, "dB")
    (x1, y1), (x3, y3) = places(svg, 0)
    twos = places(svg, 1)
    assert len(twos) == 3
    assert x1 < twos[0][0] < x3
    assert twos[0][0] - x1 == pytest.approx(x3 - twos[0][0], abs=0.2)
    assert y1 < y3


def test_every_series_has_a_look_of_its_own():
    """The one that the legend shows; there are five colours."""
    names = [f"m{n}" for n in range(10)]
    group = chart_group(names, [("a", dots(["a"], {name: [1.0] for name in names}, "dB"))])
    looks = re.findall(r'<i class="([^"]+)">', group)
    assert re.findall(r'<circle class="dot ([^"]+)"', group) == looks
    assert len(set(looks)) == 10
    drawn = curves({name: [(0, 1.0), (1, 2.0)] for name in names}, "frame", "dB")
    assert re.findall(r'<path class="curve ([^"]+)"', drawn) == looks
    sheet = (files("skipsr.evaluation") / "page.html").read_text()
    assert all(f".{name} " in sheet for look in looks for name in look.split())


def test_names_are_escaped_and_cut():
    svg = dots(["<x>" + "y" * 40], {"m": [1.0]}, "&")
    texts = [text.text or "" for text in ET.fromstring(svg).iter("text")]
    assert any(text.startswith("<x>y") and text.endswith("…") for text in texts)
    assert "&" in texts


def test_curves_go_up_where_values_do():
    svg = curves({"m": [(0, 1.0), (1, 2.0), (2, 4.0)]}, "frame", "dB", colours=[3])
    (x0, y0), (x1, y1), (x2, y2) = places(svg, 3)
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert (y0 - y1) == pytest.approx((y1 - y2) / 2, abs=0.2)


def test_a_log_axis_gives_each_doubling_the_same_room():
    svg = curves({"m": [(1e-4, 0.0), (2e-4, 1.0), (8e-4, 2.0)]}, "tau", "%", log=True)
    (x0, _), (x1, _), (x2, _) = places(svg, 0)
    assert x2 - x1 == pytest.approx(2 * (x1 - x0), abs=0.3)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (26.01, 26.09), (-3, 40), (1e-5, 9e-5)])
def test_ticks_are_round_few_and_inside(low: float, high: float):
    ticks = Axis(low, high, 0, 100).ticks()
    assert 3 <= len(ticks) <= 9
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert all(len(re.sub(r"[-.0]|e.*", "", f"{tick:.10g}")) <= 4 for tick in ticks)


def test_one_value_still_draws():
    assert len(places(dots(["a"], {"m": [7.0]}, "dB"), 0)) == 1
    assert len(places(dots(["a"], {"m": [0.0]}, "dB"), 0)) == 1


def test_an_outline_covers_the_cells():
    cells = torch.tensor([[True, True, False, True], [False, False, False, False]])
    assert outline(cells) == "M0 0h2v1h-2zM3 0h1v1h-1z"
