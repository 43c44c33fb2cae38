"""The workers of a batch on this machine, from the devices that were asked for."""

import re
from collections.abc import Sequence
from dataclasses import replace

import torch

from skipsr.devices import resolve
from skipsr.errors import SettingsError
from skipsr.farm.task import ModelSettings, WorkerSpec
from skipsr.memory import free_memory
from skipsr.settings import RuntimeSettings

ALL = "all"


def device_names(devices: str, device: str) -> list[str]:
    """The device of each worker on this machine.

    Args:
        devices: `all`, or names with commas between them; `cpu:N` are N.
        device: the one to use in place of `all`; `auto` for none.

    Raises:
        SettingsError: for a device that is not there.
    """
    if devices != ALL:
        if device != "auto":
            raise SettingsError("give `device` or `devices`, not both")
        return parse_devices(devices)
    if device != "auto":
        _check(device)
        return [device]
    return _every_device()


def make_workers(names: Sequence[str], model: ModelSettings) -> list[WorkerSpec]:
    """A worker for every name; they share this machine's processor and memory evenly."""
    count = len(names)
    free = free_memory() if count > 1 else None
    return [
        WorkerSpec(
            model=replace(model, runtime=replace(model.runtime, device=name)),
            threads=max(1, torch.get_num_threads() // count),
            memory=free // count if free else None,
        )
        for name in names
    ]


def parse_devices(text: str) -> list[str]:
    """`cuda:0,cpu:2` as the devices of three workers.

    Raises:
        SettingsError: for one that is not there.
    """
    found: list[str] = []
    for name in map(str.strip, text.split(",")):
        count = processors(name)
        if count is None:
            _check(name)
        found += [name] if count is None else ["cpu"] * count
    return found


def processors(name: str) -> int | None:
    """The workers of `cpu:N`; None for another device.

    Raises:
        SettingsError: for no number of workers.
    """
    match = re.fullmatch(r"cpu:(\w*)", name)
    if match is None:
        return None
    if not match[1].isdecimal() or not 1 <= int(match[1]) <= 1024:
        raise SettingsError(f"`devices` {name}: give cpu:N with the number of workers, 1 to 1024")
    return int(match[1])


def _every_device() -> list[str]:
    count = torch.cuda.device_count()
    if count:
        return [f"cuda:{index}" for index in range(count)]
    return ["mps" if torch.backends.mps.is_available() else "cpu"]


def _check(name: str) -> None:
    card = re.fullmatch(r"cuda(?::(\d+))?", name)
    if card is None and name not in ("", "auto", ALL):
        try:
            resolve(RuntimeSettings(device=name))
            return
        except SettingsError:
            pass
    # a card is not touched from here: that would take some of its memory
    elif card is not None and int(card[1] or 0) < torch.cuda.device_count():
        return
    there = ", ".join(_every_device())
    raise SettingsError(f"`devices` {name} is not on this machine: give all, {there} or cpu:N")
