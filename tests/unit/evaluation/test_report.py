"""Tables and reports: what a cell shows, and that Markdown and page say the same."""

import json
from pathlib import Path

from skipsr.evaluation.report import EvaluationReport, Marked, Table, mean_figures

RECORD = {"date": "2026-01-01", "device": "cpu", "dtype": "float32", "settings": {}}
TABLE = Table(
    title="Means",
    rows=[
        {"method": "a|<b>", "share": 0.25, "psnr": Marked(31.234, "best"), "frames": 12},
        {"method": "c", "share": None, "psnr": 0.123456, "frames": 0},
    ],
    forms={"share": ".1%"},
    better={"psnr": "higher"},
    foot={"method": "difference", "psnr": Marked("-2", "bad")},
)


def report(*parts: str | Table) -> EvaluationReport:
    return EvaluationReport(
        name="found", page="index", title="A <run>", record=RECORD, values={"x": 0.1234567},
        summary={"x": 1}, parts=[*parts, lambda: "<svg></svg>"],
    )  # fmt: skip


def test_cells_in_markdown():
    assert TABLE.markdown() == [
        "## Means",
        "",
        "| method | share | psnr ↑ | frames |",
        "| --- | --- | --- | --- |",
        "| a\\|<b> | 25.0% | **31.23** | 12 |",
        "| c |  | 0.1235 | 0 |",
        "| difference |  | -2 worse |  |",
    ]


def test_cells_on_a_page():
    text = TABLE.html()
    assert '<th class="name">method</th><th>share</th><th>psnr ↑</th><th>frames</th>' in text
    assert (
        '<td class="name">a|&lt;b&gt;</td><td>25.0%</td><td class="best">31.23</td><td>12</td>'
        in text
    )
    assert (
        '<tfoot><tr><td class="name">difference</td><td></td><td class="bad">-2</td><td></td>'
        in text
    )
    assert "<tfoot>" not in Table(rows=TABLE.rows).html()


def test_a_report_is_three_files_and_a_line(tmp_path: Path):
    found = report("A note & more.", TABLE)
    page = found.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found.json", "found.md", "index.html"]
    assert json.loads((tmp_path / "found.json").read_text()) == {**RECORD, "x": 0.123457}
    text = (tmp_path / "found.md").read_text()
    assert text.startswith("# A <run>\n\nA note & more.\n\n## Means\n")
    assert text.endswith("\n\n- date: 2026-01-01\n- device: cpu\n- dtype: float32\n")
    assert "svg" not in text
    shown = page.read_text()
    assert "<h1>A &lt;run&gt;</h1>" in shown
    assert '<p class="soft">A note &amp; more.</p>' in shown
    assert shown.index("Means") < shown.index("<svg></svg>") < shown.index("<h2>Run</h2>")
    assert json.loads(found.line(page)) == {"page": str(page), "x": 1}


def test_means_are_over_the_rows_that_have_the_column():
    assert mean_figures([{"a": 1.0, "b": None}, {"a": 3.0, "c": 5.0}]) == {"a": 2.0, "c": 5.0}
