"""The verb that measures speed."""

import sys
from dataclasses import dataclass, field

from skipsr.bench.settings import BenchSettings
from skipsr.cli.flags import FamilyOptions
from skipsr.settings import AUTO, RuntimeSettings, SkipSettings


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure how fast a model runs here, with and without skipping in turn. Needs no video, and no
    weights: without files they are random. The last line printed is a JSON report."""

    model: str = AUTO
    """Model name, see `skipsr models list`; auto is the one in --weights, or skipvsr:nano, and with
    --mechanism seedvr2:3b."""
    bench: BenchSettings = field(default_factory=BenchSettings)
    skip: SkipSettings = field(default_factory=SkipSettings)
    family: FamilyOptions = field(default_factory=FamilyOptions)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def run(self) -> None:
        from skipsr.bench.run import run_bench

        report = run_bench(self.model, self.bench, self.skip, self.runtime, self.family.given)
        print("\n".join(report.lines()), file=sys.stderr)
        print(report.to_json())
