"""How a check of a fixture file is run and told, whatever the file holds."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

Compared = Iterable[tuple[float, float]]  # error and tolerance
Verdict = tuple[float, float, bool, str]  # worst error, widest tolerance, verdict, remark


def judge(tolerance: float, compare: Callable[[], Compared]) -> Verdict:
    """Run the comparisons of a file; one that cannot be run has failed, and others still run."""
    worst, good, compared = 0.0, True, 0
    try:
        for found, allowed in compare():
            good = good and found <= allowed  # not a number is not below anything
            worst = max(worst, found) if math.isfinite(found) else float("inf")
            compared += 1
    except Exception as problem:
        return float("inf"), tolerance, False, f"{type(problem).__name__}: {problem}"
    return worst, tolerance, good and compared > 0, f"{compared} comparisons"


def tell(paths: Iterable[Path], run: Callable[[Path], Verdict]) -> int:
    """Print a line for each file; returns how many failed."""
    failures = 0
    for path in paths:
        worst, tolerance, good, remark = run(path)
        failures += not good
        print(
            f"{path.stem:24} {worst:9.2e} {tolerance:9.1e}  {'ok  ' if good else 'FAIL'}  {remark}"
        )
    return failures
