"""Tables and reports: what a cell shows, and that Markdown and page say the same."""

import json
from pathlib import Path

from skipsr.evaluation.report import Column, Marked, Report, Table, mean_figures, metric_columns

RECORD = {"date": "2026-01-01", "device": "cpu", "dtype": "float32", "settings": {}}
TABLE = Table(
    title="Means",
    columns=[Column("method"), Column("share", ".1%"), *metric_columns({"psnr": "higher"})],
    rows=[["a|<b>", 0.25, Marked(31.234, "best")], ["c", None, 0.123456]],
    foot=["difference", None, Marked("-2", "bad")],
)


def report(*parts: str | Table) -> Report:
    return Report(
        name="found", page="index", title="A <run>", record=RECORD, values={"x": 0.1234567},
        summary={"x": 1}, parts=[*parts, lambda: "<svg></svg>"],
    )  # fmt: skip


def test_cells_in_markdown():
    assert TABLE.markdown() == [
        "## Means",
        "",
        "| method | share | psnr ↑ |",
        "| --- | --- | --- |",
        "| a\\|<b> | 25.0% | **31.23** |",
        "| c |  | 0.1235 |",
        "| difference |  | -2 worse |",
    ]


def test_cells_on_a_page():
    text = TABLE.html()
    assert '<th class="name">method</th><th>share</th><th>psnr ↑</th>' in text
    assert '<td class="name">a|&lt;b&gt;</td><td>25.0%</td><td class="best">31.23</td>' in text
    assert '<tfoot><tr><td class="name">difference</td><td></td><td class="bad">-2</td>' in text
    assert "<tfoot>" not in Table(columns=TABLE.columns, rows=TABLE.rows).html()


def test_a_table_without_rows_keeps_its_head():
    empty = Table(columns=[Column("a"), Column("b")], rows=[])
    assert empty.markdown() == ["| a | b |", "| --- | --- |"]
    assert "<th>a</th><th>b</th>" in empty.html()


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
