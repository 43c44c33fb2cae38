"""Save a run and take it up again where it stopped."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skipsr.errors import SettingsError, WeightsError
from skipsr.train.settings import TrainSettings


@dataclass(slots=True)
class Average:
    """Exponential moving average of the trained parameters."""

    decay: float
    values: dict[str, Tensor]

    @staticmethod
    def of(model: nn.Module, decay: float) -> "Average":
        return Average(decay, {k: p.detach().clone() for k, p in _trained(model)})

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow the model; early on the average is short, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in _trained(model):
            self.values[name].lerp_(value, 1 - decay)


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def save_state(
    path: Path,
    model: nn.Module,
    average: Average,
    optimizer: Optimizer,
    step: int,
    settings: TrainSettings,
) -> None:
    """Write everything the next step depends on, aside first and then in place."""
    state = {
        "step": step,
        "settings": fingerprint(settings),
        "model": model.state_dict(),
        "average": average.values,
        "optimizer": optimizer.state_dict(),
    }
    aside = path.with_suffix(".part.pt")
    torch.save(state, aside)
    aside.replace(path)


def load_state(
    path: Path, model: nn.Module, average: Average, optimizer: Optimizer, settings: TrainSettings
) -> int:
    """Restore what `save_state` wrote; returns the number of steps done.

    Raises:
        WeightsError: when there is no state to resume.
        SettingsError: when it was written by a run with other settings.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: nothing to resume; run without --resume first")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["settings"] != fingerprint(settings):
        raise SettingsError(f"{path} was written by a run with other settings; use another --out")
    model.load_state_dict(state["model"])
    for name, value in state["average"].items():
        average.values[name].copy_(value)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def fingerprint(settings: TrainSettings) -> str:
    """The settings that shape the result: all but how often it is saved and logged."""
    return repr(dataclasses.replace(settings, checkpoint_every=1, log_every=1))
