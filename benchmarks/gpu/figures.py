"""What the legs share: a file of figures, clocks, and where time goes."""

import importlib
import json
import statistics
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from skipsr.bench.measure import wait_for
from skipsr.bench.report import BenchReport
from skipsr.evaluation.record import describe_machine, rounded
from skipsr.weights.place import Placement

_KINDS = (
    ("convolution", ("conv",)),
    ("attention", ("scaled_dot", "flash", "efficient_attention", "varlen", "_softmax")),
    ("norm", ("group_norm", "rms_norm", "layer_norm", "rms_modulate", "_sums")),
    ("silu", ("silu",)),
    ("product", ("mm", "linear", "matmul")),
    ("warp", ("grid_sample", "embedding_bag")),
    ("gather", ("index", "gather", "scatter")),
    ("copy", ("cat", "pad", "copy", "clone", "contiguous", "fill_", "zero_")),
)


@dataclass
class Figures:
    """The figures of one leg, written to its file after each."""

    path: Path
    tiny: bool
    device: torch.device
    figures: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    errors: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    left_out: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """A processor without bfloat16 takes minutes for what is tiny in float32."""
        return torch.bfloat16 if self.cuda else torch.float32

    def add(self, name: str, **values: Any) -> None:
        self.figures.append({"name": name, **values})
        short = {k: v for k, v in values.items() if not isinstance(v, (list, dict))}
        print(f"    {name}: {json.dumps(rounded(short))}", flush=True)
        self.save()

    def add_report(self, report: BenchReport) -> None:
        """All rows of a benchmark."""
        print("\n".join(report.lines()), flush=True)
        self.figures.append(json.loads(report.to_json()))
        self.save()

    def leave_out(self, what: str, why: str) -> None:
        self.left_out.append({"what": what, "why": why})
        print(f"    {what}: left out, {why}", flush=True)
        self.save()

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """One of several: its failure is recorded, and the next is tried."""
        try:
            yield
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            self.errors.append({"what": what, "error": repr(error)[:2000], "trace": text[-6000:]})
            print(f"    {what} FAILED: {repr(error)[:600]}", flush=True)
            self.save()

    def save(self) -> None:
        record = {
            "leg": self.path.stem,
            **describe_machine(str(self.device)),
            "driver": driver(),
            "tiny": self.tiny,
            "errors": self.errors,
            "left_out": self.left_out,
            "figures": self.figures,
        }
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(rounded(record), indent=1) + "\n")
        part.replace(self.path)

    def milliseconds(self, run: Callable[[], object], repeats: int = 5) -> float:
        """Median, after one that is not counted."""
        times: list[float] = []
        for _ in range(2 if self.tiny else repeats + 1):
            wait_for(self.device)
            began = time.perf_counter()
            run()
            wait_for(self.device)
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times[1:])

    def profiled(self, run: Callable[[], object], top: int = 12) -> dict[str, Any]:
        """Milliseconds by kind of operator and of the largest kernels, and calls of the runtime."""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self.cuda
        with profile(activities=activities) as seen:
            run()
            wait_for(self.device)
        rows = list(seen.key_averages())
        clock = "self_device_time_total" if self.cuda else "self_cpu_time_total"
        kinds: Counter[str] = Counter()
        for row in rows:
            if row.device_type == DeviceType.CPU and not row.key.startswith("cu"):
                kinds[_kind(row.key)] += getattr(row, clock) / 1000
        kernels = [r for r in rows if r.device_type == DeviceType.CUDA]
        kernels.sort(key=lambda row: -row.self_device_time_total)
        return {
            "kinds_ms": dict(kinds.most_common()),
            "kernels": [
                {"name": r.key[:120], "ms": r.self_device_time_total / 1000, "count": r.count}
                for r in kernels[:top]
            ],
            "runtime_calls": {r.key: r.count for r in rows if r.key.startswith("cu")},
        }


def _kind(operator: str) -> str:
    name = operator.removeprefix("aten::")
    return next((kind for kind, parts in _KINDS if any(p in name for p in parts)), "other")


def driver() -> str | None:
    """Of the first card."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip().partition("\n")[0] or None


def has(library: str) -> bool:
    """Whether it can be imported here."""
    try:
        importlib.import_module(library)
    except ImportError:
        return False
    return True


def ready(network: nn.Module, dtype: torch.dtype) -> None:
    """As the loaders do it."""
    Placement(device=next(network.parameters()).device, dtype=dtype).put(network)
    network.eval().requires_grad_(False)


def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    a, b = a.detach().float(), b.detach().float()
    return (torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)).item()
