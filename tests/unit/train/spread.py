"""One step of an objective, or a whole toy run, for a test to compare: alone or under torchrun.

python spread.py step OBJECTIVE SEQUENCE OUT.pt
python spread.py run RECIPE SEQUENCE DATA OUT STOP
"""

import dataclasses
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.train.batches import draws_of
from skipsr.train.objective import ClipBatch, Objective
from skipsr.train.objectives.adversarial import AdversarialObjective
from skipsr.train.objectives.autoencoder import AutoencoderObjective
from skipsr.train.objectives.distill import DistillObjective
from skipsr.train.objectives.finetune import OneStepObjective, VelocityObjective
from skipsr.train.objectives.predictor import PredictorObjective
from skipsr.train.parallel import Parallel, whole
from skipsr.train.recipes import RECIPES
from skipsr.train.run import Place, run
from skipsr.train.settings import TrainSettings

SETTINGS = TrainSettings(model="seedvr2:tiny", steps=1, batch=2)
OBJECTIVES: dict[str, Objective] = {
    "autoencoder": AutoencoderObjective(),
    "velocity": VelocityObjective(),
    "onestep": OneStepObjective(),
    "distill": DistillObjective(steps=4, guidance=2.0),
    "adversarial": AdversarialObjective(depths=(0.3, 1.0), penalty=10.0),
    "predictor": PredictorObjective(usual=0.3),
}


def make_model() -> SeedVR2:
    """The tiny model, cut into many windows, with nothing at zero; in float64, so that no rounding
    turns the sign in the gradient of an L1 loss."""
    tiny = PRESETS["tiny"]
    torch.manual_seed(0)
    model = SeedVR2(
        dataclasses.replace(tiny, dit=dataclasses.replace(tiny.dit, windows=(2, 20, 15)))
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.double().predictor.float()  # it reads latents, which are float32
    return model.requires_grad_(False)


def make_batch(places: range) -> ClipBatch:
    def frames(place: int, use: int) -> Tensor:
        generator = torch.Generator().manual_seed(10 * place + use)
        clip = torch.rand((3, 5, 64, 96), generator=generator).double()
        clip[..., :32] = 0.5  # something to skip
        return clip

    high, base = (torch.stack([frames(i, use) for i in places]) for use in (0, 1))
    return ClipBatch(high, base, draws_of(SETTINGS, 0, places))


def step(name: str, sequence: int, recompute: bool) -> dict[str, dict[str, Tensor]]:
    """Mean loss and whole gradients of every phase."""
    parallel = Parallel.start("cpu", sequence)
    model = make_model()
    torch.manual_seed(2)
    phases = OBJECTIVES[name].phases(model)
    beside = [module for phase in phases for module in phase.beside]
    for module in beside:
        module.double()
    for phase in phases:
        phase.trained.requires_grad_(True)
    parallel.spread([model, *beside], half=False, recompute=recompute)
    batch = make_batch(parallel.own(2))
    result: dict[str, dict[str, Tensor]] = {}
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


def toy(name: str, sequence: int, place: Place, stop: int) -> None:
    stage = RECIPES[name]().tiny().stages[0]
    settings = dataclasses.replace(stage.settings, crop=32, steps=4, sequence=sequence)
    recipe = dataclasses.replace(
        RECIPES[name](), stages=(dataclasses.replace(stage, settings=settings),)
    )
    run(recipe, place, stop_at=stop)


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    kind, name, sequence, *rest = arguments
    if kind == "step":
        found = {n: step(n, int(sequence), recompute=True) for n in name.split(",")}
        if found[name.split(",")[0]]:
            torch.save(found, rest[0])
    else:
        data, out, stop = rest
        toy(name, int(sequence), Place(data=Path(data), out=Path(out)), int(stop))


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # gloo's threads now and then abort a process that has done all its work
