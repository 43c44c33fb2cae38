"""The one training loop, common to all objectives."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.contract import Denoiser
from skipsr.data.clips import ClipDataset, Prefetcher
from skipsr.errors import TrainingError
from skipsr.train.objective import Batch, Objective
from skipsr.train.settings import TrainSettings
from skipsr.train.state import Average, load_state, save_state

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of the log."""

    step: int
    steps: int
    seconds: float  # of this run
    figures: Figures  # means since the last line

    def line(self) -> str:
        """For a terminal."""
        figures = "  ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        return f"{self.step}/{self.steps}  {self.seconds:.0f} s  {figures}"


def train(
    model: nn.Module,
    objective: Objective,
    settings: TrainSettings,
    data: ClipDataset,
    out: Path,
    *,
    resume: bool = False,
    upsample: Callable[[Tensor, tuple[int, int]], Tensor],
    report: Callable[[Progress], None] = lambda _: None,
    stop_at: int | None = None,
) -> nn.Module:
    """Train and return the model with its averaged weights.

    Writes `out/state.pt` (to resume) every `checkpoint_every` steps and at the end, and
    `out/log.jsonl`.

    Args:
        model: a `Denoiser`; changed in place.
        upsample: how the upscaler enlarges LR frames, `t c h w -> t c H W`.
        stop_at: leave off after this many steps in all, as an interruption would.
    """
    assert isinstance(model, Denoiser)
    out.mkdir(parents=True, exist_ok=True)
    model.requires_grad_(False)
    for module in objective.trained(model):
        module.requires_grad_(True)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    average = Average.of(model, settings.ema)
    state = out / "state.pt"
    done = load_state(state, model, average, optimizer, settings) if resume else 0
    end = settings.steps if stop_at is None else min(stop_at, settings.steps)

    def make(step: int) -> Batch:
        return make_batch(data, settings, step, upsample)

    device = parameters[0].device
    log = Log(out / "log.jsonl", settings, report)
    with Prefetcher(make, start=done, stop=end) as batches:
        for step, batch in enumerate(batches, done):
            optimizer.param_groups[0]["lr"] = learning_rate(settings, step)
            moved = Batch(batch.high.to(device), batch.base.to(device))
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.half):
                losses = objective.losses(model, moved, step_generator(settings, step, 1))
            if not losses.total.isfinite():
                raise TrainingError(
                    f"the loss is not finite at step {step}; {out} holds the state of the last "
                    "checkpoint: lower the learning rate or leave half precision"
                )
            optimizer.zero_grad(set_to_none=True)
            losses.total.backward()
            norm = nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            average.update(model, step)
            log.add(
                step + 1, {"loss": losses.total.item(), "gradient": norm.item(), **losses.figures}
            )
            if (step + 1) % settings.checkpoint_every == 0 or step + 1 == end:
                save_state(state, model, average, optimizer, step + 1, settings)
    model.load_state_dict(average.values, strict=False)
    return model.eval()


def make_batch(
    data: ClipDataset,
    settings: TrainSettings,
    step: int,
    upsample: Callable[[Tensor, tuple[int, int]], Tensor],
) -> Batch:
    """The clips of a step: a function of the settings' seed and the step alone."""
    high = data.batch(step, settings.batch)
    low = settings.degradation(high, step_generator(settings, step, 0))
    b, _, _, h, w = high.shape
    base = upsample(rearrange(low, "b c t h w -> (b t) c h w"), (h, w))
    return Batch(high, rearrange(base, "(b t) c h w -> b c t h w", b=b))


def step_generator(settings: TrainSettings, step: int, use: int) -> torch.Generator:
    """Randomness of one step and one use of it, on the CPU."""
    return torch.Generator().manual_seed((settings.seed * 2 + use) * 1_000_003 + step)


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


class Log:
    """Means of the figures every few steps, to a file and to whoever watches."""

    def __init__(
        self, path: Path, settings: TrainSettings, report: Callable[[Progress], None]
    ) -> None:
        self._path, self._settings, self._report = path, settings, report
        self._held: list[Figures] = []
        self._began = time.perf_counter()

    def add(self, step: int, figures: Figures) -> None:
        self._held.append(figures)
        if step % self._settings.log_every and step != self._settings.steps:
            return
        means = {key: sum(f[key] for f in self._held) / len(self._held) for key in figures}
        self._held.clear()
        seconds = time.perf_counter() - self._began
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **means}) + "\n")
        self._report(Progress(step, self._settings.steps, seconds, means))
