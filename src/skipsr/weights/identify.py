"""Say what a weight file is from its tensors' names and shapes alone; values are never read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from skipsr.weights.checkpoint_formats import Unwrapped

Shape = tuple[int, ...]
Inventory = Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of weight file: its name and the exact tensors in it."""

    name: str  # such as "seedvr2:3b transformer"
    tensors: Inventory


@dataclass(frozen=True, slots=True)
class Match:
    """How a file's tensors compare with the kind they come nearest to."""

    kind: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]  # "name: (found) instead of (expected)"
    layout: str = ""  # of the file, where that is known

    @property
    def differences(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    @property
    def exact(self) -> bool:
        return self.differences == 0

    @property
    def title(self) -> str:
        """The kind, and the layout in brackets."""
        return f"{self.kind} ({self.layout})" if self.layout else self.kind

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


def compare(found: Inventory, kind: FileKind) -> Match:
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


def identify(found: Inventory, kinds: Iterable[FileKind]) -> Match | None:
    """The first kind these tensors are, or the nearest; None when they share no name with one."""
    nearest: Match | None = None
    for kind in kinds:
        if kind.tensors.keys() & found.keys():
            match = compare(found, kind)
            if nearest is None or match.differences < nearest.differences:
                nearest = match
            if match.exact:
                break  # more kinds take time to list
    if nearest is None or not isinstance(found, Unwrapped):
        return nearest
    return replace(nearest, layout=found.layout)
