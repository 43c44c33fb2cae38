"""What is recorded with every result: when, on what, with which versions; and how it is written."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skipsr.backbones.by_scale import ByScale
from skipsr.backbones.contract import Upscaler
from skipsr.errors import SettingsError
from skipsr.files import atomic_write
from skipsr.weights.quantized import parameter_count

_HERE = Path(__file__).parent
_SHOWN = 12  # digits of a hash: enough to tell files apart
_LONG = 10_000  # numbers that are read more easily in groups of digits


def describe_run(
    data: Path, models: Sequence[str], upscaler: Upscaler, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Models, data, date, commit (None outside a checkout), device, versions, settings.

    Args:
        models: names in the tables; the first is the one in question.
        upscaler: that one, for its device and dtype.
    """
    return {
        "model": models[0],
        "against": list(models[1:]),
        "data": data.resolve().name,
        **describe_machine(upscaler.device),
        "dtype": upscaler.dtype,
        "settings": settings,
    }


def describe_networks(upscalers: Mapping[str, Upscaler], scale: int) -> dict[str, Any]:
    """Of every model, by its name in the tables, how many parameters the network for that scale has
    and a hash of the weights: files of one name may hold others on another day."""
    parameters: dict[str, int] = {}
    weights: dict[str, str] = {}
    for name, upscaler in upscalers.items():
        one = upscaler.at(scale) if isinstance(upscaler, ByScale) else upscaler
        network = getattr(one, "model", None)
        if isinstance(network, nn.Module):
            parameters[name] = parameter_count(network)
        hashes = str(upscaler.identity()["weights"]).split()
        weights[name] = " ".join(each[:_SHOWN] for each in hashes)
    return {"parameters": parameters, "weights": weights}


def describe_machine(device: str) -> dict[str, Any]:
    """Date, commit (None outside a checkout), device and versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "device": _device_name(device) + _held_to(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _held_to(device: str) -> str:
    """Which older processor's instructions oneDNN was held to (`ONEDNN_MAX_CPU_ISA`)."""
    most = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f", oneDNN held to {most}" if most and device == "cpu" else ""


def facts(record: Mapping[str, Any]) -> dict[str, str]:
    """A record as a flat list of names and words, for people to read, without what is unset."""
    flat = {name: value for name, value in record.items() if name != "settings"}
    for group, values in record.get("settings", {}).items():
        flat |= {f"{group}.{name}": value for name, value in values.items()}
    shown = {name: rounded(value) for name, value in flat.items()}
    return {name: _in_words(value) for name, value in shown.items() if value not in (None, [], "")}


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_counted(entry)}" for name, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _counted(value: object) -> str:
    """Long counts in groups of digits, as a seed would be no seed to type."""
    return f"{value:,}" if isinstance(value, int) and value >= _LONG else str(value)


def check_folder(folder: Path) -> None:
    """Refuse a result folder that cannot be one, before any work.

    Raises:
        SettingsError: when a file has its name.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise SettingsError(f"{path} is a file: give another folder as `out`")


def write_text(path: Path, text: str) -> Path:
    """Write text under a temporary name and rename it, so that no half file has the name `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def to_json(value: object) -> str:
    """Indented JSON; numbers to six significant digits, which is more than any metric holds."""
    return json.dumps(rounded(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_line(value: object) -> str:
    """The same on one line."""
    return json.dumps(rounded(value), ensure_ascii=False, allow_nan=False)


def rounded(value: object) -> object:
    """The same structure with its floats to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(name): rounded(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _commit() -> str | None:
    """The commit of this file's own checkout; an installed package may lie in a stranger's."""
    git = ["git", "-C", str(_HERE)]
    try:
        listed = subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True
        )
        if listed.returncode:
            return None
        described = subprocess.run([*git, "describe", "--always"], capture_output=True, text=True)
        # of files, programs alone make figures: results of the run before may lie about
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":(top,glob)**/*.py"])
    except OSError:  # no git here
        return None
    commit = described.stdout.strip()
    return f"{commit}-dirty" if commit and changed.returncode else commit or None


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"
