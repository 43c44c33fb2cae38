"""The record of a batch: which outputs were made of which sources, with which settings.

It is kept there as `.skipsr-batch.jsonl`: a line when a result is begun and one when it is done, of
which the last counts. Results appear when they are complete, so that one that is there though its
last line says begun was finished, too; whoever kept the record had just died. A source is known by
its size and time, or, where its time has changed (a copy), by a hash of its first and last 8 MiB.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skipsr.errors import MediaError
from skipsr.farm.listing import RECORD as NAME
from skipsr.farm.listing import Item
from skipsr.files import check_file, hash_of_ends, naming, sync

_ENDS = 8 * 2**20  # bytes
_NO_MATTER = {"restart"}  # no result depends on it, but it was recorded once
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
        MediaError: when it is not there, or is a pipe or a device.
        OSError: when it cannot be read.
        """
        if not path.is_dir():
            check_file(path)
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
            with self._path.open("a+", encoding="utf-8", errors="replace") as file:
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
        """What was noted last of a result."""
        return self._made.get(self._key(item.output))

    def objection(self, item: Item, settings: Settings) -> str | None:
        """Why the result that is there is not the one that is asked for; None if it is."""
        entry = self.find(item)
        if entry is None:
            return "nothing says that it was made here"
        try:
            if not Source(**entry["source"]).is_still(item.input):
                return f"it was made of another {item.input.name}"
            now = list(_measure(item.output))
            if "size" not in entry and now == entry["before"]:
                return "what is to replace it was not finished"
            if entry.get("size", now[0]) != now[0]:
                return "it was changed since it was made"
        except (OSError, LookupError, TypeError):
            return "what it was made of cannot be told"
        made, asked = entry.get("settings", {}), json.loads(json.dumps(settings))
        every = (made.keys() | asked.keys()) - _NO_MATTER
        names = sorted(name for name in every if made.get(name) != asked.get(name))
        if names:
            return f"it was made with another {' and '.join(f'`{name}`' for name in names)}"
        return None

    def begin(self, item: Item, settings: Settings) -> None:
        """Note what a result will be made of.

        Raises:
            MediaError: when the source is not there, or is a pipe or a device.
            OSError: when it cannot be read, or the line not written.
        """
        self._write(
            {
                "output": self._key(item.output),
                "source": asdict(Source.of(item.input)),
                "settings": dict(settings),
                "before": _measure(item.output) if item.output.exists() else None,
            }
        )

    def finish(self, item: Item, figures: Settings) -> None:
        """Note that a result that was begun is there, and figures of how it was made.

        Raises:
            OSError: when it is not there, or the line cannot be written.
        """
        entry = self._made[self._key(item.output)]
        del entry["before"]
        self._write({**entry, "size": _measure(item.output)[0], "figures": dict(figures)})

    def _write(self, entry: dict[str, Any]) -> None:
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        sync(self._path)
        self._made[entry["output"]] = json.loads(json.dumps(entry))

    def _key(self, output: Path) -> str:
        inside = output.is_relative_to(self._out)
        return (output.relative_to(self._out) if inside else output.absolute()).as_posix()


def content_hash(path: Path) -> str:
    """Hash of a file, or of the files in a folder, by their names, sizes, first and last 8 MiB."""
    return hash_of_ends(((file.name if file != path else "", file) for file in _files(path)), _ENDS)


def _measure(path: Path) -> tuple[int, int]:
    """Bytes, and when it was last written to in ns; of a folder all and the latest."""
    stats = [file.stat() for file in _files(path)]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
