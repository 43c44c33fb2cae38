"""What a benchmark found: rows, a line of JSON, a table."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skipsr.bench.measure import Measured
from skipsr.evaluation.record import describe_machine, to_line

if TYPE_CHECKING:
    from skipsr.bench.networks import Loaded

_COLUMNS = (
    ("", "{name:22}"),
    ("skipped", "{skipped:8.1%}"),
    ("s", "{seconds:10.4g}"),
    ("TFLOP", "{tflop:11.4g}"),
    ("TFLOP/s", "{tflops:10.4g}"),
    ("of matmul", "{of_matmul:10.1%}"),
    ("speed-up", "{speedup:9.2f}"),
    ("time/FLOP", "{time_over_flop:10.3f}"),
    ("GiB", "{peak_memory_gib:7.2f}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to run it.

    Attributes:
        skipped: share of the model's units that did not run.
        more: what only some kinds of rows have.
    """

    name: str
    skipped: float
    measured: Measured
    more: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """All rows, of which the first is dense, and what they were measured on.

    Attributes:
        ceiling: TFLOP/s of a large matrix product on the same device.
    """

    about: dict[str, Any]
    ceiling: float
    rows: Sequence[Row]

    @staticmethod
    def of(
        loaded: "Loaded",
        rows: Sequence[Row],
        *,
        weights: str,
        ceiling: float,
        rounds: int,
        shape: dict[str, Any],
    ) -> "BenchReport":
        about = {
            "model": loaded.name,
            "weights": weights,
            **describe_machine(str(loaded.device)),
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "rounds": rounds,
            **shape,
        }
        return BenchReport(about=about, ceiling=ceiling, rows=rows)

    def figures(self) -> list[dict[str, Any]]:
        """Each row with its ratios to the first.

        `time_over_flop` is the ratio of times over that of FLOPs: at 1 skipping pays in full.
        """
        dense = self.rows[0].measured
        found: list[dict[str, Any]] = []
        for row in self.rows:
            one = row.measured
            rate = one.tflop / one.seconds
            time, work = one.seconds / dense.seconds, one.tflop / dense.tflop
            found.append(
                {
                    "name": row.name,
                    "skipped": row.skipped,
                    **dataclasses.asdict(one),
                    "tflops": rate,
                    "of_matmul": rate / self.ceiling,
                    "speedup": 1 / time,
                    "time_over_flop": time / work,
                    **row.more,
                }
            )
        return found

    def to_json(self) -> str:
        """One line."""
        return to_line({**self.about, "matmul_tflops": self.ceiling, "rows": self.figures()})

    def lines(self) -> list[str]:
        """A table for a terminal, and below it the seconds of stages."""
        about = self.about
        found = self.figures()
        lines = [
            f"{about['model']} ({about['weights']} weights), {about['dtype']}, {about['device']}; "
            f"matrix product {self.ceiling:.3g} TFLOP/s"
        ]
        widths = [len(form.format(**found[0])) for _, form in _COLUMNS]
        heads = (f"{head:>{width}}" for (head, _), width in zip(_COLUMNS, widths, strict=True))
        lines.append("".join(heads))
        lines += ["".join(form.format(**row) for _, form in _COLUMNS) for row in found]
        for row in found:
            if row["stages"]:
                stages = ", ".join(f"{name} {s:.3g}" for name, s in row["stages"].items())
                lines.append(f"{row['name']}: {stages} s")
        return lines
