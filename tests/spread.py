"""Single steps of objectives, and a run that is interrupted: alone in a test, or on two processes.

python spread.py DATA OUT
"""

import dataclasses
import importlib
import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.errors import Interrupted
from skipsr.train.batches import generators_of
from skipsr.train.loop import TrainProgress
from skipsr.train.masks import MaskShares
from skipsr.train.objective import ClipBatch, Objective
from skipsr.train.objectives.adversarial import AdversarialObjective
from skipsr.train.objectives.autoencoder import AutoencoderObjective
from skipsr.train.objectives.distill import DistillObjective
from skipsr.train.objectives.finetune import OneStepObjective, VelocityObjective
from skipsr.train.objectives.predictor import PredictorObjective
from skipsr.train.parallel import Parallel, whole
from skipsr.train.recipes import RECIPES, Recipe
from skipsr.train.run import RunPaths, run
from skipsr.train.settings import TrainSettings

Gradients = dict[str, dict[str, Tensor]]  # phase, parameter

SETTINGS = TrainSettings(model="seedvr2:tiny", steps=1, batch=2)
OBJECTIVES: dict[str, Objective] = {
    "autoencoder": AutoencoderObjective(),
    "velocity": VelocityObjective(shifted=True, condition_noise=0.25, dropped=0.5),
    "few": VelocityObjective(masks=MaskShares(oracle=1.0, blobs=0.0)),
    "onestep": OneStepObjective(),
    "distill": DistillObjective(steps=4, guidance=2.0),
    "adversarial": AdversarialObjective(depths=(0.3, 1.0), penalty=10.0),
    "predictor": PredictorObjective(usual=0.3),
}
DIVIDED = ("onestep", "predictor", "autoencoder")  # a clip for each process
SHARED = ("velocity", "distill", "adversarial", "few")  # every clip on both


def make_model() -> SeedVR2:
    """The tiny model, cut into many windows, with nothing at zero; in float64, so that no rounding
    turns the sign in the gradient of an L1 loss."""
    tiny = PRESETS["tiny"]
    torch.manual_seed(0)
    model = SeedVR2(
        dataclasses.replace(tiny, dit=dataclasses.replace(tiny.dit, windows=(2, 60, 40)))
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.double().predictor.float()  # it reads latents, which are float32
    return model.requires_grad_(False)


def make_batch(places: range, *, one_token: bool) -> ClipBatch:
    """Clips to skip a part of, or all but one token."""

    def frames(place: int, use: int) -> Tensor:
        generator = torch.Generator().manual_seed(10 * place + use)
        clip = torch.rand((3, 5, 32, 48), generator=generator).double()
        clip[..., :16] = 0.5  # something to skip
        return clip

    high, base = (torch.stack([frames(i, use) for i in places]) for use in (0, 1))
    if one_token:
        detail, high = high, torch.full_like(high, 0.5)
        high[..., 20:24, 40:44] = detail[..., 20:24, 40:44]
    return ClipBatch(high, base, generators_of(SETTINGS, 0, places))


def step(name: str, sequence: int) -> Gradients:
    """Mean loss and whole gradients of every phase."""
    parallel = Parallel.start("cpu", sequence)
    model = make_model()
    torch.manual_seed(2)
    phases = OBJECTIVES[name].phases(model)
    auxiliary = [module for phase in phases for module in phase.auxiliary]
    for module in auxiliary:
        module.double()
    for phase in phases:
        phase.trained.requires_grad_(True)
    parallel.spread([model, *auxiliary], bfloat16=False, recompute=True)
    batch = make_batch(parallel.own(2), one_token=name == "few")
    result: Gradients = {}
    for phase in phases:
        named = dict(phase.trained.named_parameters())
        phase.trained.zero_grad()
        losses = phase.losses(batch)
        losses.total.backward()
        parallel.average_gradients(list(named.values()))
        found = {k: whole(p.grad) for k, p in named.items() if p.grad is not None}
        found["loss"] = torch.tensor(parallel.mean({"loss": losses.total.item()})["loss"])
        result[phase.name] = found
    return result if parallel.leads else {}


def toy(sequence: int) -> Recipe:
    """Four steps, and no state before the end."""
    stage = RECIPES["nano-distill"].stages[0].tiny()
    settings = dataclasses.replace(
        stage.settings, crop=32, steps=4, sequence=sequence, checkpoint_every=100
    )
    return Recipe((dataclasses.replace(stage, settings=settings),))


def interrupt(_stage: str, progress: TrainProgress) -> None:
    """A report, which one process alone makes, in its second step."""
    if progress.step == 2:
        signal.raise_signal(signal.SIGINT)


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for kind, names, sequence in (("divided", DIVIDED, 1), ("shared", SHARED, 2)):
        found = {name: step(name, sequence) for name in names}
        if all(found.values()):
            torch.save(found, out / f"{kind}.pt")
    try:
        run(toy(1), RunPaths(data=data, out=out / "run"), report=interrupt)
    except Interrupted as stop:
        (out / f"told-{os.environ['RANK']}").write_text(str(stop))


def launch(data: Path, out: Path) -> None:
    """What `torchrun --standalone --nproc-per-node 2` does, but that both processes are forked off
    this one, which has all modules; and they end without a teardown, in which gloo's threads now
    and then abort a process that has done all its work."""
    importlib.import_module("torch._dynamo")  # sharding asks for it: once, before the fork
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", run_id="tests", max_restarts=0, start_method="fork",
    )  # fmt: skip
    elastic_launch(config, main)(data, out)


if __name__ == "__main__":
    launch(*map(Path, sys.argv[1:]))
