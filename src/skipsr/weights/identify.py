"""Say what a weight file is from its tensors' names and shapes alone; values are never read."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skipsr.errors import WeightsError
from skipsr.weights.layout import LaidOut

Shape = tuple[int, ...]
Inventory = Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of weight file: its name and the exact tensors in it."""

    name: str  # such as "seedvr2:3b transformer"
    tensors: Inventory


@dataclass(frozen=True, slots=True)
class Match:
    """How a file's tensors compare with the kind they come nearest to."""

    kind: str  # with the file's layout in brackets, where that is known
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]  # "name: (found) instead of (expected)"

    @property
    def differences(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    @property
    def exact(self) -> bool:
        return self.differences == 0

    def describe(self) -> str:
        """One phrase: what differs, with an example each."""
        parts = [
            f"{len(names)} {word} (such as {names[0]})"
            for word, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another shape", self.misshapen),
            )
            if names
        ]
        return ", ".join(parts) or "exact"


def compare(found: Inventory, kind: Kind) -> Match:
    return Match(
        kind.name,
        missing=tuple(sorted(kind.tensors.keys() - found.keys())),
        unexpected=tuple(sorted(found.keys() - kind.tensors.keys())),
        misshapen=tuple(
            f"{name}: {found[name]} instead of {shape}"
            for name, shape in sorted(kind.tensors.items())
            if name in found and found[name] != shape
        ),
    )


def identify(found: Inventory, kinds: Sequence[Kind]) -> Match | None:
    """The kind these tensors are, or the nearest one; None when they share no name with any."""
    matches = [compare(found, kind) for kind in kinds if kind.tensors.keys() & found.keys()]
    nearest = min(matches, key=lambda m: m.differences, default=None)
    if nearest is None or not isinstance(found, LaidOut):
        return nearest
    return replace(nearest, kind=f"{nearest.kind} ({found.layout})")


def read_inventory(path: Path) -> dict[str, Shape]:
    """Names and shapes in a `.safetensors`, `.pth` or `.pt` file, without reading a value.

    Raises:
        WeightsError: when the file is missing, damaged, of another format, or holds more than
        tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors_header(path)
    if path.suffix in (".pth", ".pt"):
        from skipsr.weights.load import read_pickled  # noqa: PLC0415  (needs torch; safetensors does not)

        return {name: tuple(value.shape) for name, value in read_pickled(path, "meta").items()}
    raise WeightsError(f"{path}: not a .safetensors, .pth or .pt file")


def _read_safetensors_header(path: Path) -> dict[str, Shape]:
    broken = WeightsError(
        f"{path}: not a readable safetensors file; it is damaged or incomplete, fetch it again"
    )
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8 or (length := struct.unpack("<Q", start)[0]) > size - 8:
            raise broken
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            if size != 8 + length + end:
                raise broken
            return {name: tuple(entry["shape"]) for name, entry in entries.items()}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise broken from None
