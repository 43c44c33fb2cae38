"""One step of the 3B transformer with random weights: time against the share of tokens skipped.

    python benchmarks/transformer_step.py              # a GPU: 101x720x1280, bf16
    python benchmarks/transformer_step.py --layers 4 --width 512 --grid 26,23,40      # a CPU

Smooth random masks at 0, 27.7, 39.6 and 60 % skipped (the middle two are the paper's). For each:
median time, FLOPs (multiply-add = 2, linear layers and attention), share of the rate of a large
matrix product measured in the same run, and time ratio over FLOP ratio (1 = skipping pays in full).
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from record import save
from torch import Tensor

from skipsr.backbones.seedvr2.config import DIT_3B, DiTConfig
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.nn.packing import Geometry
from skipsr.skipping.route import Route
from skipsr.train.masks import smooth_mask

SKIPPED = (0.0, 0.277, 0.396, 0.6)
TEXT = 58


def timed(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds after one warm-up."""
    times: list[float] = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square product of random matrices."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / timed(lambda: a @ b, device, 10)


def flops(config: DiTConfig, geometry: Geometry, kept: int) -> float:
    """Linear layers and attention of one forward pass."""
    inner, width = config.heads * config.head_dim, config.width
    hidden = mlp_weights(config)
    linear = 2 * kept * config.layers * (4 * width * inner + hidden)
    linear += 2 * TEXT * (config.layers * (4 * width * inner + hidden) - hidden)
    ends = 2 * kept * 4 * (config.in_channels + config.out_channels) * width
    attention = 0.0
    for layer in range(config.layers):
        lengths = geometry.layouts[layer % 2].lengths.cumulative.diff().double()
        attention += 4 * inner * lengths.square().sum().item()
    return linear + ends + 2 * TEXT * config.text_width * width + attention


def mlp_weights(config: DiTConfig) -> int:
    """Weights of one MLP."""
    with torch.device("meta"):
        block = DiT(
            dataclasses.replace(config, layers=1, separate_layers=0, text_in_last_layer=True)
        )
    return sum(p.numel() for p in block.blocks[0].mlp.parameters())  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=DIT_3B.layers)
    parser.add_argument("--width", type=int, default=DIT_3B.width)
    parser.add_argument("--grid", default="26,45,80", help="tokens t,h,w")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile each block")
    options = parser.parse_args()
    t, h, w = (int(n) for n in options.grid.split(","))
    grid = (t, h, w)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, options.dtype)
    config = dataclasses.replace(
        DIT_3B,
        layers=options.layers,
        width=options.width,
        heads=options.width // DIT_3B.head_dim,
        separate_layers=min(DIT_3B.separate_layers, options.layers * 10 // 32),
    )
    torch.manual_seed(0)
    with device:
        dit = DiT(config)
        for parameter in dit.parameters():
            parameter.data = parameter.data.to(dtype)
    dit.eval().requires_grad_(False)
    if options.compile:
        for block in dit.blocks:
            block.compile(dynamic=True)
    rate = matmul_rate(device, dtype)
    text = torch.randn(TEXT, config.text_width, device=device, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, float]] = []
    for share in SKIPPED:
        keep = (
            smooth_mask(grid, 1 - share, generator) if share else torch.ones(grid, dtype=torch.bool)
        )
        route = Route(keep.to(device))
        cells = torch.randn(route.kept, 4, config.in_channels, device=device, dtype=dtype)
        geometry = dit.geometry(route, TEXT)
        with torch.inference_mode():
            seconds = timed(
                lambda c=cells, g=geometry: forward(dit, c, text, g), device, options.repeats
            )
        work = flops(config, geometry, route.kept)
        rows.append({"skipped": 1 - route.fraction, "seconds": seconds, "tflop": work / 1e12})
    dense = rows[0]
    print(" skipped    time s    TFLOP of matmul speed-up time/FLOP")
    for row in rows:
        row["of_matmul"] = row["tflop"] * 1e12 / row["seconds"] / rate
        row["speedup"] = dense["seconds"] / row["seconds"]
        row["time_over_flop"] = row["seconds"] / dense["seconds"] / (row["tflop"] / dense["tflop"])
        print("{skipped:8.1%} {seconds:9.4f} {tflop:8.3f} {of_matmul:9.1%} {speedup:8.2f} "
              "{time_over_flop:9.3f}".format(**row))  # fmt: skip
    rows = [{k: round(v, 4) for k, v in row.items()} for row in rows]
    setup = {"layers": config.layers, "width": config.width, "grid": grid, "dtype": options.dtype}
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    extra = {"compiled": options.compile, "matmul_tflops": round(rate / 1e12, 3), "peak_gib": peak}
    save(f"transformer_step_{device.type}", {**setup, **extra, "rows": rows})


def forward(dit: DiT, cells: Tensor, text: Tensor, geometry: Geometry) -> Tensor:
    return dit(cells, text, torch.tensor(1000.0, device=cells.device), geometry)


if __name__ == "__main__":
    main()
