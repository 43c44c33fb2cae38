"""Seconds, arithmetic and memory of things that are run in turn."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from skipsr.memory import keep_freed
from skipsr.tracing import Trace, peak_memory_gib

_SIDE, _SIDE_CPU = 8192, 1024  # of the matrices whose product is the ceiling
_PRODUCTS = 10  # of which the median counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What running something took.

    Attributes:
        seconds: median of the rounds.
        spread: longest less shortest, as a share of it.
        stages: medians of its stages, where it has any.
        tflop: multiply-add = 2; products, convolutions and attention.
        peak_memory_gib: what was allocated on a CUDA device at most while it ran, else what the
            process had held until then.
    """

    seconds: float
    spread: float
    stages: dict[str, float] = field(default_factory=dict[str, float])
    tflop: float
    peak_memory_gib: float


def measure_in_turn(
    runs: Sequence[Callable[[], object]], device: torch.device, rounds: int
) -> list[Measured]:
    """Run each once to warm up, counting its arithmetic, and then all of them in turn.

    In turn, so that a machine that grows slower or faster does so for all alike. On a processor
    freed memory is kept meanwhile, as by a job that has enough of it.
    """
    times: list[list[dict[str, float]]] = [[] for _ in runs]
    with keep_freed(device.type == "cpu"):
        counted = [_warm_up(run, device) for run in runs]
        for _ in range(rounds):
            for run, found in zip(runs, times, strict=True):
                with Trace(device=str(device)) as trace:
                    run()
                    wait_for(device)
                found.append(trace.seconds | {"total": trace.total})
    return [
        _measured(found, tflop, peak) for found, (tflop, peak) in zip(times, counted, strict=True)
    ]


def _measured(rounds: Sequence[dict[str, float]], tflop: float, peak: float) -> Measured:
    totals = [found["total"] for found in rounds]
    middle = statistics.median(totals)
    stages = {
        stage: statistics.median(found.get(stage, 0.0) for found in rounds)
        for stage in rounds[0]
        if stage != "total"
    }
    return Measured(
        seconds=middle,
        spread=(max(totals) - min(totals)) / middle,
        stages=stages,
        tflop=tflop,
        peak_memory_gib=peak,
    )


def _warm_up(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """TFLOP and peak memory of the first run."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
        run()
    wait_for(device)
    return counter.get_total_flops() / 1e12, peak_memory_gib(str(device))


def wait_for(device: torch.device) -> None:
    """Until all that was queued there is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a large square product of random matrices, the median of several."""
    side = _SIDE_CPU if device.type == "cpu" else _SIDE
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    _ = a @ b
    times: list[float] = []
    for _ in range(_PRODUCTS):
        wait_for(device)
        with Trace() as trace:
            _ = a @ b
            wait_for(device)
        times.append(trace.total)
    return 2 * side**3 / statistics.median(times) / 1e12


def _formulas() -> dict[Any, Any]:
    """FLOPs of operators that torch's counter does not know: by shapes, or by what is given."""

    def convolution(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return 2 * prod(out_shape) * prod(weight[1:])

    def fused(x: Any, second: Any, third: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        added = third is not None and len(third) == len(x)  # then the weight comes after both
        return convolution(x, third if added else second, out_shape=out_shape)

    def attention(q: Any, k: Any, *_: Any, **__: Any) -> int:
        return 4 * prod(q) * k[-2]

    def packed(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, *_: Any, **__: Any):
        pairs = (cu_q.diff().double() * cu_k.diff().double()).sum().item()
        return int(4 * pairs * prod(q.shape[-2:]))

    packed._get_raw = True  # type: ignore[attr-defined]  # how the counter is asked for tensors
    with suppress(ImportError):  # makes it known; none before torch 2.10
        import_module("torch.nn.attention.varlen")
    fusing = "_convolution_pointwise", "_convolution_pointwise_"
    counted = [
        *((torch.ops.mkldnn, name, fused) for name in fusing),
        (torch.ops.aten, "mkldnn_convolution", convolution),
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", attention),
        (torch.ops.torch_attn, "_varlen_attn", packed),
    ]
    # not all are in every build of torch
    return {getattr(ops, name): count for ops, name, count in counted if hasattr(ops, name)}
