"""glibc is told once how to hand back memory, and only where nobody else said so."""

import ctypes
import subprocess
import sys

import pytest

from skipsr.cli import allocator

# blocks mapped alone after one of that size was freed before: glibc would now take it from the heap
COUNT = """
import ctypes, sys
from skipsr.cli.allocator import set_mmap_threshold
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Info = type("Info", (ctypes.Structure,), {"_fields_": [(n, ctypes.c_size_t) for n in names]})
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.mallinfo2.restype = Info
if sys.argv[1] == "set":
    assert set_mmap_threshold(1 << 20)
libc.free(libc.malloc(ctypes.c_size_t(8 << 20)))
before = libc.mallinfo2().hblks
block = libc.malloc(ctypes.c_size_t(8 << 20))
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="needs glibc's mallinfo2",
)
@pytest.mark.parametrize(("how", "mapped"), [("set", 1), ("left", 0)])
def test_large_blocks_are_mapped_alone_again_and_again(how: str, mapped: int):
    command = [sys.executable, "-c", COUNT, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == mapped


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, 1),
        ({"MALLOC_MMAP_THRESHOLD_": "1000000"}, 0),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}, 0),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, 1),
    ],
)
def test_the_environment_goes_first(environment: dict, asked: int, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    monkeypatch.setattr(allocator, "set_mmap_threshold", sizes.append)
    for name in ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    allocator.settle_allocator()
    assert len(sizes) == asked
    assert allocator.os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.set_mmap_threshold(1 << 20)
