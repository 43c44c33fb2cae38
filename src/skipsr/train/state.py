"""Save a run and take it up again where it stopped, on as many devices as one likes."""

import dataclasses
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from skipsr.errors import SettingsError, WeightsError
from skipsr.files import durable_write
from skipsr.train.parallel import whole
from skipsr.train.settings import TrainSettings

log = logging.getLogger(__name__)
_OTHER = {"settings": "other settings", "objective": "another objective"}


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
        """Follow the model; with a smaller decay early on, to forget the initial weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in _trained(model):
            self.values[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Give the model the averaged values."""
        for name, value in _trained(model):
            value.copy_(self.values[name])


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Everything the next step depends on."""

    model: nn.Module
    average: Average
    optimizers: Sequence[Optimizer]
    auxiliary: Sequence[nn.Module]  # teachers, discriminators
    settings: TrainSettings
    objective: str  # its `repr`
    data: str  # a hash; empty where nobody said

    @property
    def _told(self) -> dict[str, str]:
        """What a saved run must have been told as well."""
        return {
            "settings": fingerprint(self.settings),
            "objective": self.objective,
            "data": self.data,
        }

    def save(self, path: Path, step: int, *, write: bool) -> None:
        """Write the run's state, aside first and then in place.

        Sharded tensors are put together by all processes; the one that should `write` does.
        """
        state = {
            "step": step,
            **self._told,
            "model": _gather(self.model.state_dict(), write),
            "average": _gather(self.average.values, write),
            "optimizers": [_gather(o.state_dict()["state"], write) for o in self.optimizers],
            "beside": [_gather(module.state_dict(), write) for module in self.auxiliary],
        }
        if not write:
            return
        with durable_write(path) as part, part.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch's own, after what a full disk refused
                raise error.__context__ or error from None

    def load(self, path: Path) -> int:
        """Restore what `save` wrote; returns the number of steps done.

        Raises:
            WeightsError: when the file is damaged.
            SettingsError: when it was written by a run with other settings or another objective.
                Other data are told to the log.
        """
        state = read_state(path)
        for what, told in self._told.items():
            same = state.get(what, told) == told  # older states hold their settings alone
            if not same and what == "data":  # or libraries decode the same a little otherwise
                log.warning("%s was written by a run with other data: it goes on with these", path)
            elif not same:
                raise SettingsError(
                    f"{path} was written by a run with {_OTHER[what]}; use another `out`"
                )
        _restore(self.model, state["model"])
        for module, saved in zip(self.auxiliary, state["beside"], strict=True):
            _restore(module, saved)
        for name, value in state["average"].items():
            self.average.values[name].copy_(_like(value, self.average.values[name]))
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            _restore_optimizer(optimizer, saved)
        return int(state["step"])


def read_state(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """A saved run as it is on disk, where its tensors stay with `mmap`.

    Raises:
        WeightsError: when it is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        raise WeightsError(
            f"{path}: the saved state is damaged; remove it to train this stage anew"
        ) from None


def fingerprint(settings: TrainSettings) -> str:
    """The settings that shape the result: not how often it is saved, nor how it is spread."""
    return repr(
        dataclasses.replace(settings, checkpoint_every=1, log_every=1, sequence=1, recompute=False)
    )


def _gather(entries: Mapping[Any, Any], keep: bool) -> dict[Any, Any]:
    """Whole tensors on the CPU, in nested mappings; nothing where they are not kept."""
    result: dict[Any, Any] = {}
    for name, value in entries.items():
        if isinstance(value, Mapping):
            result[name] = _gather(value, keep)
        else:
            full = whole(value)  # by all processes together
            if keep:
                result[name] = full.detach().cpu()
    return result


def _like(value: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor placed, and sharded, as the reference is."""
    if isinstance(reference, DTensor):
        value = value.to(reference.to_local().device)
        return distribute_tensor(value, reference.device_mesh, reference.placements)
    return value.to(reference.device)


@torch.no_grad()
def _restore(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    current = module.state_dict()
    module.load_state_dict({name: _like(value, current[name]) for name, value in saved.items()})


def _restore_optimizer(optimizer: Optimizer, saved: Mapping[int, Mapping[str, Tensor]]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    capturable = any(group.get("capturable") for group in optimizer.param_groups)
    for place, entries in saved.items():
        parameter = parameters[place]
        optimizer.state[parameter] = {
            name: _like(value, parameter) if capturable or value.shape == parameter.shape else value
            for name, value in entries.items()
        }
