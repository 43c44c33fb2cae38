"""The one training loop, common to all objectives."""

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skipsr.backbones.trainable import Denoiser
from skipsr.data.clips import Prefetcher
from skipsr.errors import Interrupted, SettingsError, TrainingError
from skipsr.files import naming
from skipsr.nn.transfer import send
from skipsr.train.batches import BatchSource
from skipsr.train.captured import CapturedTurn
from skipsr.train.objective import Batch, Objective, Phase, map_tensors, to_latents
from skipsr.train.parallel import Parallel, processes_here, whole
from skipsr.train.settings import TrainSettings
from skipsr.train.state import Average, TrainingRun
from skipsr.train.stop import Stop

Figures = dict[str, float]
_WAITING = 16 * 2**30  # bytes of a machine, pinned: batches that wait for its GPUs
_PLACE = re.compile(r" at 0x[0-9A-Fa-f]+>")  # in memory, of what has no words of its own
_LINE = re.compile(r'{"step": (\d+), .*}\n')  # of a log; the last one of a crash may be torn


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """One line of the log."""

    step: int
    steps: int
    seconds: float  # of this run
    figures: Figures  # means since the last line

    def line(self) -> str:
        """For a terminal."""
        figures = "  ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        return f"{self.step}/{self.steps}  {self.seconds:.0f} s  {figures}"


ReportProgress = Callable[[str, TrainProgress], None]
"""Told what is at work, a stage or a kind of samples, and how far it is."""


def train(
    model: nn.Module,
    objective: Objective[Any],
    settings: TrainSettings,
    source: BatchSource,
    out: Path,
    *,
    parallel: Parallel | None = None,
    data: str = "",
    resume: bool = False,
    report: Callable[[TrainProgress], None] = lambda _: None,
) -> nn.Module:
    """Train and return the model with its averaged weights.

    Writes `out/state.pt` (to resume) every `checkpoint_every` steps, at the end and when told to
    stop, and `out/log.jsonl`.

    Args:
        model: of the protocol that the objective trains, on its device; changed in place.
        source: gives this process's clips of a step.
        data: a hash of what the clips are cut from; the log is told where a resumed run had
            others.

    Raises:
        SettingsError: when resuming a run of other settings or another objective, or for one that
            could not be told from another.
        Interrupted: after Ctrl-C or TERM, at the end of the step; all processes after the same one.
        TrainingError: for a loss that is not finite.
    """
    if _PLACE.search(told := repr(objective)):
        raise SettingsError(
            f"{type(objective).__name__} does not say what it was told, by which a resumed run "
            "knows it: make it a frozen dataclass, of values that are written out"
        )
    parallel = parallel or Parallel(next(model.parameters()).device)
    out.mkdir(parents=True, exist_ok=True)
    phases = objective.phases(model.requires_grad_(False))
    run = _begin(model, phases, settings, parallel, objective=told, data=data)
    state = out / "state.pt"
    done = run.load(state) if resume else 0
    own, end = parallel.own(settings.batch), settings.steps
    log = Log(out / "log.jsonl", settings, report, done=done) if parallel.leads else None
    ahead = 2 if parallel.device.type == "cpu" else batches_ahead(settings, len(own))
    turns = [
        _turn_of(phase, optimizer, settings, parallel)
        for phase, optimizer in zip(phases, run.optimizers, strict=True)
    ]

    def fetch(step: int) -> Batch:
        batch = source(step, own)  # pinned, a GPU can fetch it by itself
        return map_tensors(batch, Tensor.pin_memory) if parallel.device.type == "cuda" else batch

    steps = Prefetcher(fetch, range(done, end), depth=ahead)
    with Stop() as stop, steps as batches:
        for step, batch in enumerate(batches, done):
            moved = prepare(batch, model, objective, settings, parallel)
            figures: dict[str, float | Tensor] = {}
            for phase, turn in zip(phases, turns, strict=True):
                found = turn(moved, step)
                prefix = f"{phase.name}_" if len(phases) > 1 else ""
                figures |= {prefix + name: value for name, value in found.items()}
            run.average.update(model, step)
            means = parallel.mean(figures)
            if log is not None:
                log.add(step + 1, means)
            stopping = parallel.anyone(stop.asked())
            if stopping or (step + 1) % settings.checkpoint_every == 0 or step + 1 == end:
                run.save(state, step + 1, write=parallel.leads)
            if stopping:
                parallel.wait()  # a launcher ends the others as soon as one has left
                raise Interrupted(
                    f"interrupted; {state} holds step {step + 1} of {end}: go on with `resume`"
                )
    run.average.apply(model)
    return model.eval()


def batches_ahead(settings: TrainSettings, clips: int) -> int:
    """How many batches of so many clips to prepare ahead of a GPU, each in a thread of its own.

    As many as this process's share of the cores, and of the memory that may wait, has room for.
    """
    pixels = 2 * 3 * settings.frames * settings.crop**2  # of a clip and its base
    room = _WAITING // (4 * clips * pixels)  # float32
    return max(2, min(os.cpu_count() or 2, room) // processes_here())


def _begin(
    model: nn.Module,
    phases: Sequence[Phase],
    settings: TrainSettings,
    parallel: Parallel,
    *,
    objective: str,
    data: str,
) -> TrainingRun:
    """Everything in its place, with nothing done yet."""
    for phase in phases:
        phase.trained.requires_grad_(True)
    auxiliary = [module for phase in phases for module in phase.auxiliary]
    for module in (model, *auxiliary):
        module.to(parallel.device).train()
        if parallel.device.type == "cuda":  # what its two-dimensional convolutions like
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    parallel.spread([model, *auxiliary], bfloat16=settings.bfloat16, recompute=settings.recompute)
    optimizers = [
        optimizer_of(phase, settings, capturable=_replays(phase, parallel)) for phase in phases
    ]
    average = Average.of(model, settings.ema)
    return TrainingRun(model, average, optimizers, auxiliary, settings, objective, data)


def _replays(phase: Phase, parallel: Parallel) -> bool:
    """Whether a phase's steps are recorded and replayed: on one GPU, where they can be."""
    return phase.static and parallel.device.type == "cuda" and parallel.mesh is None


def _turn_of(
    phase: Phase, optimizer: torch.optim.Optimizer, settings: TrainSettings, parallel: Parallel
) -> Callable[[Batch, int], Mapping[str, float | Tensor]]:
    if not _replays(phase, parallel):
        return lambda batch, step: take_turn(phase, optimizer, batch, settings, step, parallel)
    turn = CapturedTurn(phase, optimizer, settings)
    return lambda batch, step: turn(batch, learning_rate(settings, step))


def optimizer_of(
    phase: Phase, settings: TrainSettings, *, capturable: bool = False
) -> torch.optim.Optimizer:
    """AdamW over a phase's parameters; a capturable one can be part of a CUDA graph.

    Whole and sharded ones, and those with rates of their own, are in groups of their own.
    """
    kinds: dict[tuple[type, float], list[nn.Parameter]] = {}
    for name, parameter in phase.trained.named_parameters():
        own = [rate for start, rate in phase.rates.items() if name.startswith(start)]
        kinds.setdefault((type(parameter.data), own[0] if own else 1.0), []).append(parameter)
    groups = [{"params": found, "share": share} for (_, share), found in kinds.items()]
    rate = settings.learning_rate * phase.rate
    betas, decay = (0.9, 0.99), settings.weight_decay
    if not capturable:
        return torch.optim.AdamW(groups, rate, betas=betas, weight_decay=decay)
    device = next(iter(kinds.values()))[0].device
    optimizer = torch.optim.AdamW(
        groups, torch.tensor(rate), betas=betas, weight_decay=decay, fused=True, capturable=True
    )
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(rate, device=device)  # one each, since their shares differ
    return optimizer


def take_turn(
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    settings: TrainSettings,
    step: int,
    parallel: Parallel,
) -> Figures:
    """One step of one phase.

    Raises:
        TrainingError: when the loss or its gradient is not finite; the last checkpoint is as it
            was.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(settings, step) * phase.rate * group["share"]
    with settings.autocast(parallel.device):
        losses = phase.losses(batch)
    if parallel.anyone(not losses.total.isfinite()):
        raise _not_finite("loss", step)
    optimizer.zero_grad(set_to_none=True)  # also of what another phase's loss has left
    losses.total.backward()
    parallel.average_gradients(parameters)
    norm = clip_norm(parameters, settings.clip_norm)
    if not math.isfinite(norm):  # the same on every process
        raise _not_finite("gradient", step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    figures = {name: torch.as_tensor(value).item() for name, value in losses.figures.items()}
    return {"loss": losses.total.item(), "gradient": norm, **figures}


def _not_finite(what: str, step: int) -> TrainingError:
    return TrainingError(
        f"the {what} is not finite at step {step}; the state of the last checkpoint is kept: "
        "lower the learning rate or train in float32"
    )


def clip_norm(parameters: Sequence[nn.Parameter], largest: float) -> float:
    """Scale gradients down to a norm of `largest` in all; returns the norm before that."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = [whole(torch.linalg.vector_norm(gradient)) for gradient in gradients]
    norm = torch.stack(norms).norm().item()
    if norm > largest:
        for gradient in gradients:
            gradient.mul_(largest / (norm + 1e-6))
    return norm


def prepare(
    batch: Batch,
    model: nn.Module,
    objective: Objective[Any],
    settings: TrainSettings,
    parallel: Parallel,
) -> Batch:
    """The batch on the device, encoded once for all phases where they need no pixels."""
    moved = move(batch, parallel.device)
    if objective.reads == "clips":
        return moved
    assert isinstance(model, Denoiser)
    with settings.autocast(parallel.device):
        return to_latents(model, moved)


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, as floats: kept samples travel as 8 bits."""
    return map_tensors(batch, lambda x: _as_floats(send(x, device)))


def _as_floats(x: Tensor) -> Tensor:
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


class Log:
    """Means of the figures every few steps, to a file and to whoever watches.

    Of a file that is there the lines up to step `done` are kept; later steps are taken again.
    """

    def __init__(
        self,
        path: Path,
        settings: TrainSettings,
        report: Callable[[TrainProgress], None],
        *,
        done: int = 0,
    ) -> None:
        self._path, self._settings, self._report = path, settings, report
        if path.exists():
            kept = (line for line in _LINE.finditer(path.read_text()) if int(line[1]) <= done)
            path.write_text("".join(line[0] for line in kept))
        self._held: list[Mapping[str, float | Tensor]] = []  # tensors are read when a line is due
        self._began = time.perf_counter()

    def add(self, step: int, figures: Mapping[str, float | Tensor]) -> None:
        self._held.append(figures)
        if step % self._settings.log_every and step != self._settings.steps:
            return
        means = {name: self._mean(name) for name in dict.fromkeys(n for f in self._held for n in f)}
        self._held.clear()
        seconds = time.perf_counter() - self._began
        with naming(self._path), self._path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **means}) + "\n")
        self._report(TrainProgress(step, self._settings.steps, seconds, means))

    def _mean(self, name: str) -> float:
        values = [float(figures[name]) for figures in self._held if name in figures]
        return sum(values) / len(values)
