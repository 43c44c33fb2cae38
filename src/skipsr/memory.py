"""How the process gets its memory, and how much there is."""

import ctypes
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_GROUP = Path("/sys/fs/cgroup")  # of this process, in a container, with cgroup v2
_TRIM = 512 * 2**20  # bytes of free heap that are kept
_NEVER, _MAPPED = -1, 2**16  # no free heap is given back; blocks mapped alone, by default
_SCATTERED = 1.5  # times what is used, at most 1.42 when measured: what a heap of all blocks takes
_SHARE = 0.8  # of free memory that such a heap may take
_LITTLE = 1 / 8  # of free memory: so much of a heap may wait for the next job


def ask_for_huge_pages() -> None:
    """Let torch allocate huge pages, which on a CPU saves a quarter of the time.

    It reads this when it first allocates, so this comes before its import. What the environment
    says goes first.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def set_mmap_threshold(size: int) -> bool:
    """Set glibc's threshold for mapping a block of memory alone; returns whether it was set.

    Blocks of `size` bytes and more are given back as soon as they are freed; smaller ones stay in a
    heap that is kept. By itself glibc moves that size up to the largest block freed, and gives the
    end of the heap back whenever it is free. A large size is fast, since fresh pages cost more than
    what is computed in them; a small one bounds memory where blocks of many sizes fragment the
    heap. What the environment says goes first, and elsewhere than on glibc nothing is done.
    """
    libc = _glibc()
    return libc is not None and all(
        (libc.mallopt(_M_MMAP_THRESHOLD, size), libc.mallopt(_M_TRIM_THRESHOLD, _TRIM))
    )


@contextmanager
def keep_freed(roomy: bool) -> Generator[None]:
    """Meanwhile no block is mapped alone: what is freed stays, whatever its size, and is used again
    without fresh pages, at the price of a heap with holes.

    On a CPU with memory to spare that saves up to a fifth of the time, where blocks are large. At
    the end what is free is given back, unless it may wait for another job (`jobs_in_a_row`). See
    `set_mmap_threshold` for where nothing is done.

    Args:
        roomy: whether there is as much memory as that may take, see `is_roomy`; else nothing is
            kept, and what waited is given back.
    """
    libc, row = _glibc(), _row.get() or _Row()
    if libc is None:
        yield
        return
    if not roomy:
        row.give_back(libc)
        yield
        return
    try:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
        row.waits = True
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _MAPPED)
        if not (row.open and _is_little(libc)):
            row.give_back(libc)


@contextmanager
def jobs_in_a_row() -> Generator[None]:
    """Meanwhile what `keep_freed` kept in one job waits for the next, if it is little beside what
    is free: in short jobs fresh pages take up to a tenth of the time. For one thread."""
    row = _Row(open=True)
    before = _row.set(row)
    try:
        yield
    finally:
        _row.reset(before)
        libc = _glibc()
        if libc is not None:
            row.give_back(libc)


@dataclass(slots=True)
class _Row:
    """Jobs of one thread, one after the other.

    Attributes:
        open: whether another job may follow.
        waits: whether freed memory is kept.
    """

    open: bool = False
    waits: bool = False

    def give_back(self, libc: ctypes.CDLL) -> None:
        if self.waits:
            libc.mallopt(_M_TRIM_THRESHOLD, _TRIM)
            libc.malloc_trim(0)
            self.waits = False


_row: ContextVar[_Row | None] = ContextVar("jobs that follow one another", default=None)


class _Heap(ctypes.Structure):
    """glibc's `mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]
    fordblks: int  # bytes that are free


def _freed(libc: ctypes.CDLL) -> int | None:
    """Bytes of freed blocks that this process keeps; None where that is unknown."""
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _Heap
    return libc.mallinfo2().fordblks


def _is_little(libc: ctypes.CDLL) -> bool:
    """Whether the freed blocks that this process keeps are little beside what is free."""
    free, freed = _system_memory(), _freed(libc)
    return free is not None and freed is not None and freed <= _LITTLE * free


def is_roomy(used: int, allowed: int | None, free: int | None) -> bool:
    """Whether freed memory can be kept where so many bytes are used at a time.

    Args:
        allowed: bytes that must not be exceeded, if that was said.
        free: bytes that are to be had; None where that is unknown.
    """
    spared = None if free is None else _SHARE * free
    bounds = [bound for bound in (allowed, spared) if bound is not None]
    return bool(bounds) and used * _SCATTERED <= min(bounds)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if its allocator can be told what to do and the environment does not do so."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "malloc.mmap_threshold" in tunables:
        return None
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  (others may have a mallopt with other numbers)
        libc.mallopt  # noqa: B018
    except (OSError, TypeError, AttributeError):
        return None
    return libc


def free_memory() -> int | None:
    """Bytes to be had without swapping, within a container's limits; None where that is unknown.

    What waits for the next job counts as free.
    """
    free, libc, row = _system_memory(), _glibc(), _row.get()
    if free is None or libc is None or row is None or not row.waits:
        return free
    return free + (_freed(libc) or 0)


def _system_memory() -> int | None:
    if sys.platform == "win32":
        return _windows_memory()
    if sys.platform == "darwin":  # where free pages say little: half of all
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, LookupError):
        return None
    try:
        limit, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        kinds = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        # `used` counts the cache of files that were read, which goes where memory is needed
        return min(free, limit - used + int(kinds["inactive_file"]))
    except (OSError, ValueError, LookupError):
        return free


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows' sysinfoapi.h."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("all", "free", "most_promised", "promised")),
        *((name, ctypes.c_uint64) for name in ("most_mapped", "mapped", "extended")),
    )
    free: int  # bytes of the machine's memory
    promised: int  # bytes that can still be had, pages on disk among them


def _windows_memory() -> int | None:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    found = ctypes.WinDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return min(status.free, status.promised) if found else None


def free_card_memory(device: str) -> int | None:
    """Bytes that a CUDA device, such as `cuda:0`, can still give torch; None where there is none.

    What torch keeps of what it once took counts as free.
    """
    cuda = import_module("torch").cuda  # late: the command line's help must not pay for torch
    if device.partition(":")[0] != "cuda" or not cuda.is_available():
        return None
    kept = cuda.memory_reserved(device) - cuda.memory_allocated(device)
    return cuda.mem_get_info(device)[0] + kept


def pinned_memory() -> int:
    """Bytes of the host's memory that this process holds for its cards, and uses again."""
    stats = import_module("torch").cuda.host_memory_stats()
    return stats.get("allocated_bytes.current", 0)


def taken_card_memory(device: str) -> int:
    """Bytes of torch's tensors of this process on a CUDA device that is there."""
    return import_module("torch").cuda.memory_allocated(device)
