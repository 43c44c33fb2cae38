"""How the process gets its memory, to be settled before torch allocates any."""

import ctypes
import os

_THRESHOLD = 4 * 2**20  # bytes; by peak memory and time, measured in DESIGN.md
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def settle_allocator() -> None:
    """Ask for huge pages, and give large blocks back to the system as soon as they are freed.

    By itself glibc moves the size from which a block is mapped alone up to that of the largest one
    freed; frames and features then come from a heap that fragments, and memory grows with the
    clip. What the environment says of either goes first. Elsewhere than on glibc nothing is done.
    """
    # torch reads this when it first allocates: huge pages save a quarter of the time on a CPU
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    told = os.environ.get("GLIBC_TUNABLES", "")
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ and "malloc.mmap_threshold" not in told:
        set_mmap_threshold(_THRESHOLD)


def set_mmap_threshold(size: int) -> bool:
    """Map blocks from `size` bytes on alone; whether there is a glibc that agreed."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  (others may have a mallopt with other numbers)
        return bool(libc.mallopt(_M_MMAP_THRESHOLD, size))
    except (OSError, TypeError, AttributeError):
        return False
