"""Files of models as they were published, and where they lie once they are fetched."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """A file of a repository on the Hugging Face Hub, at one commit."""

    repo: str
    revision: str  # the commit
    name: str
    size: int  # bytes
    sha256: str


def home() -> Path:
    """skipsr's own folder: `SKIPSR_HOME`, or one among the user's caches."""
    if own := os.environ.get("SKIPSR_HOME"):
        return Path(own).expanduser()
    beside = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(beside).expanduser() if beside else Path.home() / ".cache") / "skipsr"


def models_folder() -> Path:
    """Holds a folder for each fetched model."""
    return home() / "models"


def folder_of(model: str) -> Path:
    """Where the files of a `family:preset` are put and looked for."""
    return models_folder() / model.replace(":", "-")


def is_fetched(files: Sequence[PublishedFile], folder: Path) -> bool:
    """Whether all are there. A file gets its name only when it is complete and checked."""
    return all((folder / file.name).is_file() for file in files)
