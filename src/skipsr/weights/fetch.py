"""Bring published files into a folder, so that a fault at any byte costs nothing that was fetched.

A file grows under a hidden name and gets its own once its SHA-256 is the known one. What stands
under that name already is checked, never replaced.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from skipsr.errors import Interrupted, WeightsError
from skipsr.files import move, sha256
from skipsr.weights.hub import DroppedError, Hub
from skipsr.weights.published import PublishedFile, models_folder

_WAITS = (1.0, 4.0, 10.0)  # seconds, before each new try of a connection that gives nothing
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a fetch is.

    Attributes:
        name: of the file that is at work.
        done: bytes of all files that are there.
        of: bytes of all files.
    """

    name: str
    done: int
    of: int


Watch = Callable[[FetchProgress], None]


def fetch(files: Sequence[PublishedFile], folder: Path, watch: Watch | None = None) -> None:
    """Bring files into a folder that may hold others; those that are there are checked.

    Files in the cache of `huggingface_hub`, or beside another model, are linked, or copied where a
    link cannot be.

    Raises:
        WeightsError: when one cannot be had, is not the known one, or does not fit on the disk; the
            same call then goes on from what is there.
        Interrupted: after Ctrl-C, likewise.
    """
    hub = Hub()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"cannot write to {folder}: {error.strerror}; give `to` another folder, or set "
            "SKIPSR_HOME to one"
        ) from error
    count = _Count(sum(file.size for file in files), watch)
    try:
        with _alone(folder):
            missing = [file for file in files if not _is_there(folder / file.name, file, count)]
            sources = {file: _elsewhere(hub, file) for file in missing}
            missing = [file for file in missing if not _linked(sources[file], file, folder, count)]
            _check_space(missing, folder)
            for file in missing:
                with _room(folder):
                    _bring(hub, file, sources[file], folder, count)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; what was fetched is kept in {folder}, and the same command goes on"
        ) from None


class _Count:
    """Adds up bytes and tells the watcher."""

    def __init__(self, total: int, watch: Watch | None) -> None:
        self._total, self._watch, self._done = total, watch, 0

    def add(self, file: PublishedFile, size: int) -> None:
        self._done += size
        if self._watch is not None:
            self._watch(FetchProgress(file.name, self._done, self._total))


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    lock = FileLock(folder / ".fetch.lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise WeightsError(f"{folder}: another fetch is at work there; wait for it") from None


@contextmanager
def _room(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise WeightsError(
            f"{folder}: the disk is full ({error.strerror}): make room; the same command goes on"
        ) from None


def _is_there(path: Path, file: PublishedFile, count: _Count) -> bool:
    """Whether the file is in place; what is there under its name must be it."""
    if not path.exists():
        return False
    count.add(file, 0)
    if not path.is_file() or sha256(path) != file.sha256:
        raise WeightsError(
            f"{path} is not the published file of that name, or is damaged: move it away, and the "
            "same command fetches the published one, or give `to` another folder"
        )
    count.add(file, file.size)
    return True


def _linked(source: Path | None, file: PublishedFile, folder: Path, count: _Count) -> bool:
    """Give the file of another place its name here, where the file system can."""
    if source is None:
        return False
    with suppress(OSError):
        os.link(source, folder / file.name)
        count.add(file, file.size)
        return True
    return False


def _elsewhere(hub: Hub, file: PublishedFile) -> Path | None:
    """Where the file is already, on this machine."""
    cached = hub.cached(file)
    places = [*models_folder().glob(f"*/{file.name}"), *([cached] if cached else [])]
    found = (place.resolve() for place in places if place.is_file())
    return next((place for place in found if sha256(place) == file.sha256), None)


def _check_space(files: Iterable[PublishedFile], folder: Path) -> None:
    """Before the first byte, rather than after the last that fits."""
    needed = sum(file.size - _size(_partial(folder, file)) for file in files)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WeightsError(
            f"{folder}: {needed / 1e9:.1f} GB are still to be fetched, and {free / 1e9:.1f} GB are "
            "free there: make room, or give `to` another folder"
        )


def _bring(hub: Hub, file: PublishedFile, source: Path | None, folder: Path, count: _Count) -> None:
    """Copy or download the file under its hidden name, check it, and give it its own."""
    part = _partial(folder, file)
    if source is not None:
        shutil.copyfile(source, part)
        count.add(file, file.size)
    else:
        _download(hub, file, part, count)
    if (found := sha256(part)) != file.sha256:
        part.unlink()
        raise WeightsError(
            f"{file.name} arrived damaged, or is another file (SHA-256 {found[:12]}…, not "
            f"{file.sha256[:12]}…): it was not kept, and the same command fetches it anew"
        )
    move(part, folder / file.name)


def _download(hub: Hub, file: PublishedFile, part: Path, count: _Count) -> None:
    """Read on from what there is of the file, until all is there or nothing more comes."""
    waits = list(_WAITS)
    held = _size(part)
    count.add(file, held)
    while held < file.size:
        before = held
        try:
            if not held:
                hub.check_declared(file)
            with hub.read(file, held) as (start, chunks), part.open("ab") as target:
                target.truncate(start)
                count.add(file, start - held)
                held = start
                for chunk in chunks:
                    target.write(chunk)
                    held += len(chunk)
                    count.add(file, len(chunk))
                    if held > file.size:
                        return  # another file: its digest will tell
            if held < file.size:
                raise DroppedError(f"it ended after {held} of {file.size} bytes")
        except DroppedError as reason:
            held = _size(part)
            waits = list(_WAITS) if held > before else waits
            if not waits:
                raise hub.unreachable(file, reason) from None
            time.sleep(waits.pop(0))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _partial(folder: Path, file: PublishedFile) -> Path:
    """Named by its contents too, so that no other revision is ever continued."""
    return folder / f".{file.name}.{file.sha256[:12]}.part"
