"""What every benchmark writes beside its figures: when, on what, with which versions."""

import json
from pathlib import Path
from typing import Any

import torch

from skipsr.evaluation.record import describe_machine

HERE = Path(__file__).parent


def save(name: str, figures: dict[str, Any]) -> None:
    """Write `benchmarks/results/NAME.json` and print the same as the last line."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record = {"benchmark": name, **describe_machine(device), **figures}
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))
