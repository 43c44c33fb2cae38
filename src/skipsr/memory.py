"""How the process gets its memory, and how much there is."""

import ctypes
import os
from importlib import import_module
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_GROUP = Path("/sys/fs/cgroup")  # of this process, in a container, with cgroup v2
_TRIM = 512 * 2**20  # bytes of free heap that are kept


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
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "malloc.mmap_threshold" in tunables:
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  (others may have a mallopt with other numbers)
        arranged = (libc.mallopt(_M_MMAP_THRESHOLD, size), libc.mallopt(_M_TRIM_THRESHOLD, _TRIM))
        return all(arranged)
    except (OSError, TypeError, AttributeError):
        return False


def free_memory() -> int | None:
    """Bytes to be had without swapping, within a container's limits; None where that is unknown."""
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


def free_card_memory(device: str) -> int | None:
    """Bytes that a CUDA device, such as `cuda:0`, can still give torch; None where there is none.

    What torch keeps of what it once took counts as free.
    """
    cuda = import_module("torch").cuda  # late: the command line's help must not pay for torch
    if device.partition(":")[0] != "cuda" or not cuda.is_available():
        return None
    kept = cuda.memory_reserved(device) - cuda.memory_allocated(device)
    return cuda.mem_get_info(device)[0] + kept


def taken_card_memory(device: str) -> int:
    """Bytes of torch's tensors of this process on a CUDA device that is there."""
    return import_module("torch").cuda.memory_allocated(device)
