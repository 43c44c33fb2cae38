"""Checkpoints as training programs wrap them: tables of tensors, and prefixes."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_TABLES = ("params", "params_ema")  # BasicSR: the weights as trained, and their average
_STATE, _PARALLEL, _GENERATOR = "state_dict.", "module.", "generator."


class Unwrapped(dict[str, T]):
    """A checkpoint's tensors or shapes without wrappers, and a phrase on what these were."""

    def __init__(self, entries: Mapping[str, T], layout: str) -> None:
        super().__init__(entries)
        self.layout = layout  # such as "BasicSR layout, params"


def unwrap(entries: Mapping[str, T]) -> Unwrapped[T]:
    """Take off what BasicSR, data-parallel training and mmediting put around a network.

    `entries` are as `weights.load.read_pickled` names them, a table's name before its tensors'. Of
    two tables of BasicSR the weights as trained are taken.
    """
    held = [t for t in _TABLES if any(name.startswith(f"{t}.") for name in entries)]
    words: list[str] = []
    also = ""
    if held:
        entries = under(f"{held[0]}.", entries)
        words.append(f"BasicSR layout, {held[0]}")
        also = "".join(f"; also holds {other}" for other in held[1:])
    elif within := under(_STATE, entries):
        entries = within
        words.append("state_dict layout")
    if entries and all(name.startswith(_PARALLEL) for name in entries):
        entries = under(_PARALLEL, entries)
        words.append("data-parallel layout")
    if generator := under(_GENERATOR, entries):  # beside it: losses, discriminators, step_counter
        entries = generator
        words = [*(w for w in words if w != "state_dict layout"), "mmediting layout"]
    return Unwrapped(entries, (", ".join(words) or "bare layout") + also)


def under(prefix: str, entries: Mapping[str, T]) -> dict[str, T]:
    """The entries whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}
