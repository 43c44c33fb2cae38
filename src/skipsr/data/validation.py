"""Clips kept apart to choose by (thresholds, recipes, defaults), which no training may see.

`assets/validation.json` lists them by content, so that neither another name nor another folder lets
one in; a copy that was encoded again is another file, though. `scripts/split_validation.py` made
the list.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from skipsr.files import sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A file, known by its content."""

    name: str
    """Where it lay in the folder that was split."""
    size: int
    """Bytes; compared first, so that few files are hashed."""
    sha256: str
    """Digest of the whole file, hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationClip(Listed):
    """A clip to choose by."""

    kind: Literal["calm", "busy"]
    share: float
    """Share of the clip's cells that plain upsampling serves, 0 to 1; calm clips have more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling(Listed):
    """Another file of a validation clip's source: as little to be trained on, but not measured."""

    of: str
    """Name of that clip."""


Entry = ValidationClip | Sibling


@cache
def read_list() -> tuple[Entry, ...]:
    """The bundled list: clips to choose by, then siblings."""
    text = (files("skipsr.assets") / "validation.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    clips = (ValidationClip(**row) for row in found["clips"])
    return (*clips, *(Sibling(**row) for row in found["siblings"]))


def find_listed(path: Path) -> Entry | None:
    """The entry with this file's content; only a file of a listed size is read."""
    size = path.stat().st_size
    alike = [entry for entry in read_list() if entry.size == size]
    if not alike:
        return None
    digest = sha256(path)
    return next((entry for entry in alike if entry.sha256 == digest), None)


def held_out(path: Path) -> str | None:
    """Why a file may not be trained on, if it is kept apart or of the source of one that is."""
    entry = find_listed(path)
    if isinstance(entry, Sibling):
        return f"of the same source as validation clip {entry.of}"
    return None if entry is None else f"validation clip, {entry.name}"
