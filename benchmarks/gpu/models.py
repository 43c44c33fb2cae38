"""Legs that run whole models: tests, transformer steps, jobs, the autoencoder, memory."""

import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from gpu.figures import Figures, has
from gpu.layers import make_autoencoder, make_layers

from skipsr.backbones.seedvr2.execution import Execution
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.bench.measure import measure_in_turn
from skipsr.bench.model import make_clip
from skipsr.bench.networks import Loaded, fill_zeros, find_networks
from skipsr.bench.run import run_bench
from skipsr.bench.settings import BenchSettings
from skipsr.limits import MemoryPlan
from skipsr.nn.causal import Bounds
from skipsr.nn.residence import Residence
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.skipping.route import Route
from skipsr.tracing import peak_memory_gib
from skipsr.train.masks import smooth_mask
from skipsr.weights.place import Placement

ROOT = Path(__file__).resolve().parents[2]
SMALL = BenchSettings(frames=5, height=16, width=24, rounds=1)
SHARES = (0.28, 0.4, 0.6)
STEP = BenchSettings(frames=101, height=180, width=320, skip_share=(0.277, 0.396, 0.6))


def tests(figures: Figures) -> None:
    """The tests that need a card; without one they are all skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["tests/gpu", "tests/kernels"]
    if not has("pytest"):
        figures.leave_out("tests/gpu", "there is no pytest here")
        return
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-500:]
    failed = re.findall(r"^(?:FAILED|ERROR) .*$", done.stdout, re.MULTILINE)
    seconds = time.monotonic() - began
    figures.add("tests/gpu", result=last, failed=failed, code=done.returncode, seconds=seconds)
    if done.returncode:
        raise RuntimeError(f"tests fail: {last}")


def mechanisms(figures: Figures) -> None:
    """A step of the 3B transformer, skipping in four ways."""
    ways = ("route", "attention-only", "queries-only", "interleaved")
    settings = replace(STEP, mechanism=ways)
    if figures.tiny:
        settings = replace(SMALL, mechanism=ways, layers=2, features=128)
    figures.add_report(run_bench("seedvr2:3b", settings))


def step_7b(figures: Figures) -> None:
    settings = replace(STEP, mechanism=("route",))
    if figures.tiny:
        settings = replace(SMALL, mechanism=("route",), layers=2, features=128)
    figures.add_report(run_bench("seedvr2:7b", settings))


@torch.inference_mode()
def layer(figures: Figures) -> None:
    """What one layer of the 3B transformer spends its time on."""
    dit, shape, grid = make_layers(figures)
    for share in (0.0, 0.6):
        keep = torch.ones(grid, dtype=torch.bool)
        if share:
            keep = smooth_mask(grid, 1 - share, torch.Generator().manual_seed(0))
        geometry = dit.geometry(Route(keep.to(figures.device)), 58)
        draw = partial(torch.randn, device=figures.device, dtype=figures.dtype)
        video, text = draw(int(keep.sum()), shape.width), draw(58, shape.width)
        times = dit.emb_in.split(dit.emb_in(torch.tensor(1000.0, device=figures.device)))
        run = partial(
            dit.blocks[0], video, text, times, geometry.layouts[0], geometry.text_rotation
        )
        figures.add(
            f"layer, {share:.0%} skipped",
            ms=figures.milliseconds(run),
            profile=figures.profiled(run),
        )


@torch.inference_mode()
def autoencoder(figures: Figures) -> None:
    """Encode and decode at full width: seconds, memory, what it goes to."""
    size = (5, 32, 48) if figures.tiny else (9, 720, 1280)
    vae = make_autoencoder(figures)
    clip = make_clip(*size).frames.transpose(0, 1)[None] * 2 - 1
    frames = clip.to(figures.device, figures.dtype)
    latent = vae.encode(frames).mean
    runs = {"encode": partial(vae.encode, frames), "decode": partial(vae.decode, latent)}
    found = measure_in_turn(list(runs.values()), figures.device, 1 if figures.tiny else 5)
    for (name, run), one in zip(runs.items(), found, strict=True):
        figures.add(
            name, size=list(size), seconds=one.seconds, spread=one.spread, tflop=one.tflop,
            tflops=one.tflop / one.seconds, peak_memory_gib=one.peak_memory_gib,
            profile=figures.profiled(run),
        )  # fmt: skip


def recurrent(figures: Figures) -> None:
    """The recurrent engine at two sizes, and its large network."""
    sizes = {"skipvsr:nano": [(20, 180, 320), (10, 540, 960)], "basicvsr:x4": [(10, 180, 320)]}
    for model, clips in {"skipvsr:nano": [(3, 16, 24)]}.items() if figures.tiny else sizes.items():
        for frames, height, width in clips:
            with figures.trying(f"{model} {frames}x{height}x{width}"):
                settings = BenchSettings(
                    frames=frames, height=height, width=width, skip_share=SHARES,
                    rounds=1 if figures.tiny else 5,
                )  # fmt: skip
                figures.add_report(run_bench(model, settings))


def processor(figures: Figures) -> None:
    """The recurrent engine on the machine's processor, by threads: layers gain by each, what lies
    around them less, so that skipping may pay less with many."""
    before, most = torch.get_num_threads(), os.cpu_count() or 1
    settings = BenchSettings(frames=8, height=180, width=320, skip_share=(0.2, 0.4, 0.6), rounds=3)
    if figures.tiny:
        most, settings = 1, SMALL
    try:
        for dtype in ("float32", "bfloat16"):
            for threads in (n for n in (1, 2, 4, 8, 16, 32) if n <= most):
                with figures.trying(f"{dtype}, {threads} threads"):
                    torch.set_num_threads(threads)
                    runtime = RuntimeSettings(device="cpu", dtype=dtype)
                    report = run_bench("skipvsr:nano", settings, runtime=runtime)
                    figures.add(f"{dtype}, {threads} threads")
                    figures.add_report(report)
    finally:
        torch.set_num_threads(before)


def job(figures: Figures) -> None:
    """A window of 720p with all stages, dense and skipped; seedvr2:nano beside the 3B."""
    window = BenchSettings(frames=21, height=180, width=320, skip_share=SHARES, rounds=5)
    for model in ("seedvr2:tiny",) if figures.tiny else ("seedvr2:3b", "seedvr2:nano"):
        with figures.trying(model):
            settings = replace(SMALL, skip_share=(0.4,)) if figures.tiny else window
            figures.add_report(run_bench(model, settings))


def long_job(figures: Figures) -> None:
    """The paper's 101 frames of 720p."""
    settings = SMALL if figures.tiny else replace(STEP, skip_share=SHARES, rounds=3)
    figures.add_report(run_bench("seedvr2:tiny" if figures.tiny else "seedvr2:3b", settings))


def memory(figures: Figures, gib: int) -> None:
    """A window as long as fits within so much memory: is the plan kept?"""
    name = "seedvr2:tiny" if figures.tiny else "seedvr2:3b"
    loaded = find_networks(name, RuntimeSettings(), {})
    device, size = loaded.device, loaded.dtype.itemsize
    if figures.cuda:
        free = torch.cuda.get_device_properties(device).total_memory
        here = device.index if ":" in str(device) else torch.cuda.current_device()
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / free), here)
    source = (16, 24) if figures.tiny else (180, 320)
    target = 4 * source[0], 4 * source[1]
    limits = loaded.backbone.limits_together([loaded.preset], str(device), size)
    law = limits.footprint
    assert law is not None
    plan = law.fit(gib * 2**30, source, target, None, 5 if figures.tiny else limits.longest_window)
    if plan is None:
        figures.leave_out(f"{gib} GiB", "no window fits")
        return
    seconds = _run_planned(loaded, plan, source, target)
    taken = peak_memory_gib(str(device))
    figures.add(
        f"{name} within {gib} GiB", window=plan.window, seconds=seconds, peak_gib=taken,
        planned_gib=plan.peak / 2**30, share=taken * 2**30 / plan.peak, reasons=list(plan.reasons),
    )  # fmt: skip


def executions(figures: Figures) -> None:
    """A window of 25 frames, run in every way that the planner has, however much memory there is:
    what each costs."""
    loaded = find_networks("seedvr2:tiny" if figures.tiny else "seedvr2:3b", RuntimeSettings(), {})
    source, frames = ((16, 24), 5) if figures.tiny else ((180, 320), 25)
    target = 4 * source[0], 4 * source[1]
    tails, band = 2**40, 2**22 if figures.tiny else 2**29
    ways = [Bounds(band=band, frames=together, tails=tails) for together in (4, 2, 1)]
    away = Bounds(band=band, frames=1, tails=2**29)
    given: dict[Residence, list[Bounds | None]] = {
        "device": [None, None, *ways, away], "in turn": [None, ways[0]], "streamed": [ways[0]],
    }  # fmt: skip
    for residence, bounds in given.items():
        if residence != "device" and not figures.cuda:
            figures.leave_out(residence, "needs CUDA")
            continue
        plan = MemoryPlan(window=frames, stages={}, execution=Execution(weights=residence))
        upscaler = _placed(loaded, plan)
        for each in bounds:  # the first run of all prepares kernels
            execution = Execution(weights=residence, bounds=each)
            upscaler.arrange(replace(plan, execution=execution))
            if figures.cuda:
                torch.cuda.reset_peak_memory_stats()
            figures.add(
                residence, bounds=None if each is None else asdict(each),
                seconds=_seconds_of_window(upscaler, frames, source, target),
                peak_gib=peak_memory_gib(str(loaded.device)),
            )  # fmt: skip
        del upscaler


def _run_planned(
    loaded: Loaded, plan: MemoryPlan, source: tuple[int, int], target: tuple[int, int]
) -> float:
    """Seconds of a dense window, run as planned."""
    upscaler = _placed(loaded, plan)
    upscaler.arrange(plan)
    return _seconds_of_window(upscaler, plan.window, source, target)


def _placed(loaded: Loaded, plan: MemoryPlan) -> SeedVR2Upscaler:
    networks = loaded.backbone.build(loaded.config)
    fill_zeros(networks)
    assert loaded.backbone.place is not None
    place = Placement(device=loaded.device, dtype=loaded.dtype, exact=loaded.backbone.exact)
    loaded.backbone.place(networks, place, plan)
    finish = loaded.backbone.upscaler(loaded.name, SkipSettings(dense=True), loaded.options)
    upscaler = finish(networks)
    assert isinstance(upscaler, SeedVR2Upscaler)
    return upscaler


def _seconds_of_window(
    upscaler: SeedVR2Upscaler, frames: int, source: tuple[int, int], target: tuple[int, int]
) -> float:
    clip = make_clip(frames, *source)
    began = time.perf_counter()
    upscaler.upscale(clip, target)
    return time.perf_counter() - began
