"""What does the planner choose, and is its law true?

    python benchmarks/memory_plan.py [--models seedvr2:3b seedvr2:7b]

For every size and memory the plan is made, and each stage is run in the planned way on the meta
device, where bytes of live tensors are counted call by call. No GPU is used and nothing is timed.
Writes `benchmarks/results/memory_plan.json` and `.md`.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from record import HERE, save
from torch import nn

from skipsr.backbones import family
from skipsr.backbones.seedvr2.clip_masks import ClipMasks
from skipsr.backbones.seedvr2.execution import Execution
from skipsr.backbones.seedvr2.memory_law import AutoencoderLaw, weights_of
from skipsr.backbones.seedvr2.memory_plan import LONGEST, WindowPlanner
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.nn.causal import Bounds
from skipsr.nn.residence import StreamedBlocks
from skipsr.settings import SkipSettings
from skipsr.skipping.route import Route

sys.path.insert(0, str(HERE.parent / "tests"))
from live_bytes import counting

GIB = 2**30
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "1440p": (1440, 2560), "4K": (2160, 3840)}
MEMORIES = (8, 12, 16, 24, 80)
COUNTED = 5  # frames of encode and decode, two slices: further ones add pictures alone
META = torch.device("meta")


def counted(
    name: str, size: tuple[int, int], frames: int, execution: Execution
) -> Mapping[str, int]:
    """Peak bytes of each stage, weights included."""
    model = networks(name)
    whole, vae = bytes_of(model), bytes_of(model.vae)
    encode, decode = autoencoder(size, min(frames, COUNTED), execution.bounds)
    picture = 0 if execution.bounds else 12 * _padded(size[0]) * _padded(size[1])
    more = 2 * picture * max(0, frames - COUNTED)  # as they come, and as the autoencoder has them
    streamed = execution.weights == "streamed"
    beside = whole - bytes_of(model.dit.blocks) if streamed else whole
    denoise = beside
    if execution.weights == "in turn":
        beside, denoise = vae, bytes_of(model.dit)
    return {
        "encode": beside + encode + more,
        "denoise": denoise + transformer(name, size, frames, streamed) + picture * frames,
        "decode": beside + decode + more,
    }


@cache
def networks(name: str) -> SeedVR2:
    backbone, preset = family(name)
    with META:
        model = SeedVR2(backbone.presets[preset]).bfloat16().requires_grad_(False).eval()
    model.vae.to(memory_format=torch.channels_last_3d)  # as on a card
    model.predictor = None
    return model


@cache
def autoencoder(size: tuple[int, int], frames: int, bounds: Bounds | None) -> tuple[int, int]:
    """Of encode and decode, without weights; both published models have the same autoencoder."""
    upscaler = SeedVR2Upscaler("seedvr2:3b", networks("seedvr2:3b"), SkipSettings(dense=True))
    height, width = map(_padded, size)
    pixels = torch.empty(1, 3, frames, height, width, device=META)
    latent = torch.empty((frames + 2) // 4 + 1, height // 8, width // 8, 16, device=META)
    peaks: list[int] = []
    for run in (
        lambda: upscaler.model.encode(pixels, bounds),
        lambda: [None for _ in upscaler._refined(latent, pixels, bounds)],
    ):
        with counting() as live:
            if bounds is None:  # else they are in the host's memory
                live.given(pixels)
            run()
        assert live.largest < 2**31
        peaks.append(live.peak)
    return peaks[0], peaks[1]


@cache
def on_canvases(size: tuple[int, int], kept: float, bounds: Bounds) -> int:
    """Of decode where masks keep this share, in blobs, without weights; as `autoencoder`."""
    upscaler = SeedVR2Upscaler("seedvr2:3b", networks("seedvr2:3b"), SkipSettings(dense=True))
    height, width = map(_padded, size)
    rows, columns = height // 16, width // 16
    noise = torch.rand(1, rows, columns, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 7, 1, 3)[:, ::2].repeat_interleave(2, 1)
    keep = smooth[:, :rows] > smooth.flatten().quantile(1 - kept)
    masks = ClipMasks(keep.expand(3, -1, -1), keep.expand(3, -1, -1), [None] * 9)
    frames = torch.empty(1, 3, 9, height, width, device=META)
    latent = torch.empty(3, height // 8, width // 8, 16, device=META)
    with counting() as live:
        for _ in upscaler._refined(latent, frames, bounds, masks):
            pass
    assert live.largest < 2**31
    return live.peak


@cache
def transformer(name: str, size: tuple[int, int], frames: int, streamed: bool) -> int:
    """Without weights, but for those that are streamed; the first four blocks are run."""
    model = networks(name)
    dit, route = model.dit, _route(size, frames)
    every = dit.blocks
    few = deepcopy(every[:4])
    if streamed:
        StreamedBlocks(list(few), META)
    dit.blocks = few
    with counting() as live:
        geometry = dit.geometry(route, len(model.text.positive))
        cells = torch.empty(route.kept, 4, 33, dtype=torch.bfloat16, device=META)
        dit(cells, model.text.positive, torch.empty((), device=META), geometry)
    dit.blocks = every
    return live.peak


def _route(size: tuple[int, int], frames: int) -> Route:
    return Route.dense(((frames + 2) // 4 + 1, _padded(size[0]) // 16, _padded(size[1]) // 16))


def _padded(side: int) -> int:
    return -(-side // 16) * 16


def bytes_of(network: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in network.parameters())


def where_it_goes() -> list[dict[str, object]]:
    """Bytes of each stage of 3B without weights: whole layers, and in bands with few frames."""
    backbone, preset = family("seedvr2:3b")
    held = weights_of(backbone.presets[preset], 2)
    weights, every = held.autoencoder + held.transformer, 2**60
    rows: list[dict[str, object]] = []
    for name in ("720p", "1080p"):
        for title, bounds in (
            ("whole layers", None),
            ("bands, 1 frame at a time", Bounds(band=2**28, frames=1, tails=every)),
            ("the same, tails in the host's memory", Bounds(band=2**28, frames=1, tails=0)),
        ):
            execution = Execution(bounds=bounds)
            found = counted("seedvr2:3b", SIZES[name], 25, execution)
            rows.append(
                {
                    "size": name,
                    "way": title,
                    **{stage: _gib(peak - weights) for stage, peak in found.items()},
                }
            )
            print(rows[-1], flush=True)
    return rows


def check(name: str) -> list[dict[str, object]]:
    """Plans of a model, and the law beside what is counted of them."""
    backbone, preset = family(name)
    law = WindowPlanner(backbone.presets[preset], "cuda", 2)
    rows: list[dict[str, object]] = []
    for title, size in SIZES.items():
        for memory in MEMORIES:
            plan = law.fit(memory * GIB, size, size, None, LONGEST)
            row: dict[str, object] = {"model": name, "size": title, "memory_gib": memory}
            if plan is None:
                least = law.least(size, size, None)
                rows.append({**row, "fits": False, "least_gib": _gib(least)})
                print(rows[-1], flush=True)
                continue
            assert isinstance(plan.execution, Execution)
            told = law.live(plan.window, size, plan.execution)
            found = counted(name, size, plan.window, plan.execution)
            canvases, room = None, plan.execution.canvases
            skips = 0.0 if plan.execution.bounds else 1.0
            if room is not None:
                skips, inside = room.most, room.bounds(room.most)
                assert inside is not None
                parts = AutoencoderLaw(config=backbone.presets[preset].vae, itemsize=2)
                peaks = parts.canvases(_padded(size[0]) * _padded(size[1]))
                canvases = peaks.within(skips, inside) / on_canvases(size, skips, inside)
            rows.append(
                {
                    **row,
                    "fits": True,
                    "window": plan.window,
                    "weights": plan.execution.weights,
                    "bounds": asdict(plan.execution.bounds) if plan.execution.bounds else None,
                    "planned_gib": _gib(plan.peak),
                    "host_gib": _gib(plan.host),
                    "law_gib": {stage: _gib(peak) for stage, peak in told.items()},
                    "counted_gib": {stage: _gib(peak) for stage, peak in found.items()},
                    "law_over_counted": round(max(told.values()) / max(found.values()), 3),
                    "kept": skips,
                    "canvases_law_over_counted": canvases and round(canvases, 3),
                }
            )
            print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, object]], where: list[dict[str, object]]) -> str:
    """Markdown."""
    lines = [
        "# Memory: planned, and counted on the meta device",
        "",
        "GiB. No GPU was used: peaks are bytes of live tensors, counted call by call in the",
        "planned way; kernels' workspaces are not seen, and have a reserve in what is planned.",
        "`law` is what the plan rests on. No tensor of a convolution has 2^31 elements.",
        "",
        "## Where it goes: 3B, 25 frames, without weights, counted",
        "",
        "| size | autoencoder | encode | transformer | decode |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {r['size']} | {r['way']} | {r['encode']} | {r['denoise']} | {r['decode']} |"
            for r in where
        ),
        "",
        "## Plans",
        "",
        "Decoding skips where no frame after the first keeps more than the share of the last but",
        "one column; the last compares the law of canvases with what is counted with such a mask.",
        "",
        "| model | size | memory | window | weights | frames at a time | planned | law | counted "
        "| law / counted | host | skips up to | canvases: law / counted |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        start = f"| {r['model']} | {r['size']} | {r['memory_gib']} "
        if not r["fits"]:
            lines.append(f"{start}| refused: at least {r['least_gib']} GiB | | | | | | | | | |")
            continue
        bounds, law, found = r["bounds"], r["law_gib"], r["counted_gib"]
        assert isinstance(law, dict)
        assert isinstance(found, dict)
        together = bounds["frames"] if isinstance(bounds, dict) else "whole layers"
        lines.append(
            f"{start}| {r['window']} | {r['weights']} | {together} | {r['planned_gib']} "
            f"| {max(law.values())} | {max(found.values())} | {r['law_over_counted']} "
            f"| {r['host_gib']} | {r['kept']} | {r['canvases_law_over_counted'] or ''} |"
        )
    return "\n".join(lines) + "\n"


def _gib(size: int) -> float:
    return round(size / GIB, 2)


def _commit() -> str:
    """Of the files that were run; "+" where they were changed."""
    told = ("git", "describe", "--always", "--dirty=+", "--exclude=*")
    return subprocess.run(told, capture_output=True, text=True, check=True, cwd=HERE).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["seedvr2:3b", "seedvr2:7b"])
    options = parser.parse_args()
    where = where_it_goes()
    rows = [row for name in options.models for row in check(name)]
    save("memory_plan", {"commit": _commit(), "where": where, "rows": rows})
    Path(HERE / "results" / "memory_plan.md").write_text(table(rows, where))


if __name__ == "__main__":
    main()
