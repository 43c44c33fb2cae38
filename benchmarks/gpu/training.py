"""Legs of training: what a step takes, and a recipe that is trained for as long as a leg lasts."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from gpu.figures import Figures
from torch.nn import functional

from skipsr.loading import load_networks
from skipsr.train.batches import generators_of
from skipsr.train.captured import CapturedTurn
from skipsr.train.loop import TrainProgress, learning_rate, move, optimizer_of, prepare, take_turn
from skipsr.train.objective import ClipBatch
from skipsr.train.objectives.finetune import OneStepObjective
from skipsr.train.objectives.reconstruct import ReconstructObjective
from skipsr.train.parallel import Parallel
from skipsr.train.run import RunPaths, run_recipe
from skipsr.train.settings import TrainSettings


def steps(figures: Figures) -> None:
    """A step of each engine, on random clips."""
    with figures.trying("recurrent"):
        _recurrent(figures)
    with figures.trying("diffusion"):
        _diffusion(figures)


def _recurrent(figures: Figures) -> None:
    """As it is, and recorded as a CUDA graph."""
    model = "skipvsr:tiny" if figures.tiny else "skipvsr:nano"
    batch, frames, side = (2, 3, 64) if figures.tiny else (32, 8, 256)
    settings = TrainSettings(model=model, steps=100, batch=batch, frames=frames, warmup=1)
    high = torch.rand(batch, 3, frames, side, side)
    clips = move(ClipBatch(high, functional.avg_pool3d(high, (1, 4, 4)), ()), figures.device)
    for recorded in (False, True) if figures.cuda else (False,):
        network = load_networks(model, None).to(figures.device).requires_grad_(True)
        (phase,) = ReconstructObjective().phases(network)
        optimizer = optimizer_of(phase, settings, capturable=recorded)
        alone = Parallel(figures.device)
        turn: Callable[[], object] = lambda p=phase, o=optimizer, a=alone: take_turn(  # noqa: E731
            p, o, clips, settings, 0, a
        )
        if recorded:
            captured, rate = CapturedTurn(phase, optimizer, settings), learning_rate(settings, 0)
            turn = lambda c=captured, r=rate: c(clips, r)  # noqa: E731
            for _ in range(5):
                turn()
        name = f"{model}, batch {batch}" + ", recorded" * recorded
        figures.add(name, ms=figures.milliseconds(turn, 10))


def _diffusion(figures: Figures) -> None:
    """One step of one-step training under autocast."""
    model = "seedvr2:tiny" if figures.tiny else "seedvr2:nano"
    batch, frames, side = (1, 5, 64) if figures.tiny else (4, 17, 256)
    settings = TrainSettings(
        model=model, steps=100, batch=batch, frames=frames, warmup=1, bfloat16=True
    )
    network = load_networks(model, None).to(figures.device)
    objective, alone = OneStepObjective(), Parallel(figures.device)
    (phase,) = objective.phases(network)
    phase.trained.requires_grad_(True)
    high = torch.rand(batch, 3, frames, side, side)
    clips = ClipBatch(high, high.roll(1, -1), generators_of(settings, 0, list(range(batch))))
    moved = prepare(clips, network, objective, settings, alone)
    optimizer = optimizer_of(phase, settings)
    ms = figures.milliseconds(lambda: take_turn(phase, optimizer, moved, settings, 0, alone))
    figures.add(f"{model}, batch {batch}", ms=ms)


def recipe(
    figures: Figures, name: str, data: Path, seconds: float, start: Path | None = None
) -> None:
    """Go on training a recipe for so long; its state is kept beside the figures.

    Raises:
        Interrupted: when there is more to be done.
    """
    out = figures.path.with_suffix("")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a handler that a stop can stand for
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    last: list[TrainProgress] = []

    def report(stage: str, progress: TrainProgress) -> None:
        last[:] = [progress]
        print(stage, progress.line(), flush=True)

    begun = any(out.glob("*/state.pt")) or (out / "samples").exists()
    paths = RunPaths(data=data, out=out, start=start, cache=out / "cache", latents=None)
    try:
        weights = run_recipe(name, paths, resume=begun, device=str(figures.device), report=report)
        figures.add("finished", weights=weights.name)
    finally:
        timer.cancel()
        if last:
            figures.add("so far", line=last[0].line())
