"""What was made in a folder of results, of which sources and with which settings.

It is kept there as `.skipsr-batch.jsonl`, a line for each result, the last one of a name counts. A
source is known by its size and time, or, where its time has changed (a copy), by a hash of its
first and last 8 MiB.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from skipsr.errors import MediaError
from skipsr.farm.listing import Item

NAME = ".skipsr-batch.jsonl"
_ENDS = 8 * 2**20  # bytes
Settings = Mapping[str, object]  # those that are not as usual, by name


@dataclass(frozen=True, slots=True)
class Source:
    """The state of a source."""

    size: int
    modified: int  # ns
    hash: str

    @classmethod
    def of(cls, path: Path) -> "Source":
        """Raises:
        OSError: when it cannot be read.
        """
        return cls(*_measure(path), content_hash(path))

    def is_still(self, path: Path) -> bool:
        """Whether the file is as it was."""
        size, modified = _measure(path)
        if size != self.size:
            return False
        return modified == self.modified or content_hash(path) == self.hash


class Record:
    """The results in a folder."""

    def __init__(self, out: Path) -> None:
        """Raises:
        MediaError: for a folder that cannot be written to.
        """
        self._out, self._path = out, out / NAME
        self._made: dict[str, dict[str, Any]] = {}
        try:
            out.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+", encoding="utf-8") as file:
                file.seek(0)
                text = file.read()
                if text and not text.endswith("\n"):
                    file.write("\n")  # the last line was cut off
        except OSError as error:
            raise MediaError(f"cannot write to {out}: {error.strerror}") from error
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._made[entry["output"]] = entry
            except (ValueError, LookupError, TypeError):
                continue  # cut off: that result counts as not recorded

    def find(self, item: Item) -> dict[str, Any] | None:
        """What `add` was told of a result."""
        return self._made.get(self._key(item.output))

    def objection(self, item: Item, settings: Settings) -> str | None:
        """Why the result that is there is not the one that is asked for; None if it is."""
        entry = self.find(item)
        if entry is None:
            return "nothing says that it was made here"
        try:
            if not Source(**entry["source"]).is_still(item.input):
                return f"it was made of another {item.input.name}"
            if entry["size"] != _measure(item.output)[0]:
                return "it was changed since it was made"
        except (OSError, LookupError, TypeError):
            return "what it was made of cannot be told"
        before, now = entry.get("settings", {}), json.loads(json.dumps(settings))
        names = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
        if names:
            return f"it was made with another {' and '.join(f'`{name}`' for name in names)}"
        return None

    def add(self, item: Item, source: Source, settings: Settings, figures: Settings) -> None:
        """Note a result that is there, and figures of how it was made.

        Raises:
            OSError: when it cannot be written.
        """
        key = self._key(item.output)
        entry: dict[str, Any] = {
            "output": key,
            "size": _measure(item.output)[0],
            "source": {"size": source.size, "modified": source.modified, "hash": source.hash},
            "settings": dict(settings),
            "figures": dict(figures),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._made[key] = entry

    def _key(self, output: Path) -> str:
        inside = output.is_relative_to(self._out)
        return (output.relative_to(self._out) if inside else output.absolute()).as_posix()


def content_hash(path: Path) -> str:
    """Hash of a file, or of the files in a folder, by their names, sizes, first and last 8 MiB."""
    found = sha256()
    for file in _files(path):
        size = file.stat().st_size
        found.update(f"{file.name if file != path else ''}/{size}/".encode())
        with file.open("rb") as stream:
            found.update(stream.read(_ENDS))
            stream.seek(max(_ENDS, size - _ENDS))
            found.update(stream.read(_ENDS))
    return found.hexdigest()


def _measure(path: Path) -> tuple[int, int]:
    """Bytes, and when it was last written to in ns; of a folder all and the latest."""
    stats = [file.stat() for file in _files(path)]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
