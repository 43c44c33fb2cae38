"""What every benchmark writes beside its figures: when, on what, with which versions."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def machine() -> dict[str, Any]:
    """Date, commit, device and versions."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        device = f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit or "unknown",
        "device": device,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def save(name: str, figures: dict[str, Any]) -> None:
    """Write `benchmarks/results/NAME.json` and print the same as the last line."""
    record = {"benchmark": name, **machine(), **figures}
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))
