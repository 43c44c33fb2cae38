"""Files that appear under their names only when complete, and what outlives the process or not."""

import codecs
import errno
import hashlib
import os
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from skipsr.errors import MediaError, SettingsError

_CANNOT_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)
_CANNOT_LOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
LEFT_BY_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")  # in folders that were looked at
LONGEST_NAME = 255  # bytes that file systems take
_WAITS = (0.05, 0.3, 1.0)  # seconds


def check_there(source: Path) -> None:
    """Raises MediaError for a source that is not there."""
    if not source.exists():
        is_pattern = "%" in source.name and source.parent.is_dir()
        hint = f": to take its images as frames give the folder, {source.parent}"
        raise MediaError(f"{source} does not exist{hint if is_pattern else ''}")


def check_file(source: Path) -> None:
    """Raises MediaError for a source that is not there, is empty, or no file; opening a pipe may
    wait for ever."""
    check_there(source)
    if not source.is_file():
        raise MediaError(f"{source} is no file, but a folder, a pipe or a device: give a file")
    if source.stat().st_size == 0:
        raise MediaError(f"{source} is empty (0 bytes): copy or download it again")


def check_free(target: Path, *, overwrite: bool) -> None:
    """Raises SettingsError for a target in no folder that can be written to, or one that exists and
    is to be kept, or is no file or folder."""
    folder = target.parent
    if not folder.is_dir():
        raise SettingsError(f"the folder {folder} does not exist: create it, or write elsewhere")
    if not os.access(folder, os.W_OK):
        raise SettingsError(f"nothing may be written to the folder {folder}: write elsewhere")
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise SettingsError(f"{target} is a pipe or a device: give the name of a file")
    if overwrite:
        return
    if target.is_dir() and any(path.name not in LEFT_BY_SYSTEMS for path in target.iterdir()):
        raise SettingsError(
            f"{target} is a folder with files in it: give a name in it, such as "
            f"{target / 'x.mp4'}, or `overwrite` to write images among them"
        )
    if target.is_file():
        raise SettingsError(f"{target} exists: give `overwrite` to replace it, or another name")


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """A name beside `path` to write to; the file becomes `path` when the block ends.

    It is removed if the block fails. The name is this process's own, so that two that write the
    same file do not meet.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming(path, part):
            yield part
            move(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, part: Path | None = None) -> Generator[None]:
    """Have an OSError name the file that is written; from a full disk comes one that names none.

    Args:
        part: its temporary name, which is not to be shown.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename) == part:
            error.strerror = error.strerror or str(error)  # NumPy's have their words alone
            error.filename = str(path)
        raise


@contextmanager
def durable_write(path: Path) -> Generator[Path]:
    """`atomic_write` that also outlives a power cut: what is under `path` is the old or the new."""
    with atomic_write(path) as part:
        yield part
        sync(part)
    sync(path.parent)


def replace_durably(part: Path, path: Path) -> None:
    """Rename a file so that `path` is the old or the new one, whole, also after a power cut."""
    sync(part)
    move(part, path)
    sync(path.parent)


def move(part: Path, path: Path) -> None:
    """Rename a file or folder, replacing a file.

    On Windows that fails while anybody has the file open, a virus scanner for a moment as well, so
    it is tried again there.
    """
    for wait in _WAITS if sys.platform == "win32" else ():
        try:
            part.replace(path)
        except PermissionError:
            time.sleep(wait)
        else:
            return
    part.replace(path)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk before this returns.

    Folders are left to file systems that cannot be asked, as on Windows and on some networks.
    """
    is_folder = path.is_dir()
    if sys.platform == "win32" and is_folder:
        return
    try:
        handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        try:
            with naming(path):
                _flush(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not (is_folder and error.errno in _CANNOT_SYNC):
            raise


def _flush(handle: int) -> None:
    if sys.platform == "darwin":  # where fsync leaves it to the drive's cache
        import fcntl  # noqa: PLC0415  (Windows has none)

        with suppress(OSError):  # file systems that have no such request
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def as_told_apart(name: str) -> str:
    """A name or path, folded where case tells no files apart."""
    return name.casefold() if sys.platform in ("win32", "darwin") else name


def home_expanded(path: str) -> Path:
    """A path whose `~` no shell has made a home of; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def text_encoding(start: bytes) -> str:
    """Of a text that begins so: UTF-8, or what PowerShell's `>` makes of a list."""
    return "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def sha256(path: Path) -> str:
    """Of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(files: Iterable[Path]) -> str:
    """A hash of the content of files, in order.

    Raises:
        OSError: when one is not there.
    """
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def hash_of_ends(files: Iterable[tuple[str, Path]], ends: int) -> str:
    """A hash of files that are told by a word each, their sizes, and `ends` bytes at either end.

    Raises:
        OSError: when one is not there.
    """
    found = hashlib.sha256()
    for word, path in files:
        size = path.stat().st_size
        found.update(os.fsencode(f"{word}/{size}/"))
        with path.open("rb") as file:
            found.update(file.read(ends))
            file.seek(max(ends, size - ends))
            found.update(file.read(ends))
    return found.hexdigest()


@contextmanager
def sole_hold(path: Path) -> Generator[None]:
    """Hold a file that one process at a time can; a process that dies lets go of it.

    File systems that have no locks, as on some networks, let any number of processes.

    Raises:
        BlockingIOError: when another holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        _lock(handle)
        if not _is_same(handle, path):  # whoever held it has removed it in the meantime
            raise BlockingIOError
        yield
    finally:
        os.close(handle)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415  (only Windows has it)

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl  # noqa: PLC0415  (Windows has none)

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _CANNOT_LOCK:
                raise


def name_around(path: Path, before: str, after: str) -> Path:
    """A path with its stem between two texts, and cut where file systems would not take it."""
    room = LONGEST_NAME - len(os.fsencode(before + after))
    stem = os.fsencode(path.stem)
    if len(stem) > room:
        stem = stem[:room].decode("utf-8", "ignore").encode()  # no half of a character
    return path.with_name(before + os.fsdecode(stem) + after)
