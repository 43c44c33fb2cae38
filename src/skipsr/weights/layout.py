"""Checkpoints as training programs wrap them: tables of tensors, and prefixes (spec/skipvsr A3)."""

from collections.abc import Mapping
from typing import Literal, TypeVar

T = TypeVar("T")
Table = Literal["params", "params_ema"]  # BasicSR: the weights as trained, or their average

_TABLES: tuple[Table, ...] = ("params", "params_ema")
_STATE, _PARALLEL, _GENERATOR = "state_dict.", "module.", "generator."


class LaidOut(dict[str, T]):
    """A file's tensors, or their shapes, without wrappers, and a phrase on what these were."""

    def __init__(self, entries: Mapping[str, T], layout: str) -> None:
        super().__init__(entries)
        self.layout = layout  # such as "BasicSR layout, params"


def unwrap(entries: Mapping[str, T], table: Table = "params") -> LaidOut[T]:
    """Take off what BasicSR, data-parallel training and mmediting put around a network.

    Args:
        entries: as `weights.load.read_pickled` names them, a table's name before its tensors'.
        table: which weights to take when a file holds both; the only one it holds otherwise.
    """
    held = [t for t in _TABLES if any(name.startswith(f"{t}.") for name in entries)]
    words: list[str] = []
    also = ""
    if held:
        taken = table if table in held else held[0]
        entries = _under(f"{taken}.", entries)
        words.append(f"BasicSR layout, {taken}")
        also = "".join(f"; also holds {other}" for other in held if other != taken)
    elif within := _under(_STATE, entries):
        entries = within
        words.append("state_dict layout")
    if entries and all(name.startswith(_PARALLEL) for name in entries):
        entries = _under(_PARALLEL, entries)
        words.append("data-parallel layout")
    if generator := _under(_GENERATOR, entries):  # beside it: losses, discriminators, step_counter
        entries = generator
        words = [*(w for w in words if w != "state_dict layout"), "mmediting layout"]
    return LaidOut(entries, (", ".join(words) or "bare layout") + also)


def _under(prefix: str, entries: Mapping[str, T]) -> dict[str, T]:
    return {
        name.removeprefix(prefix): entry
        for name, entry in entries.items()
        if name.startswith(prefix)
    }
