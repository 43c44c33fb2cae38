"""glibc is told once how to hand back memory, and only where nobody else said so."""

import contextlib
import ctypes
import os
import subprocess
import sys
from typing import Any

import pytest

from skipsr import memory

# blocks mapped alone after one of that size was freed before: glibc would now take it from the heap
COUNT = """
import ctypes, sys
from skipsr.memory import set_mmap_threshold
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


class Libc:
    """Notes what it is asked for."""

    gnu_get_libc_version = None

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.trimmed = 0
        self.mallinfo2 = self.heap

    @staticmethod
    def heap() -> object:
        return memory._Heap(fordblks=1 << 30)

    def mallopt(self, what: int, value: int) -> int:
        self.asked.append((what, value))
        return 1

    def malloc_trim(self, _pad: int) -> int:
        self.trimmed += 1
        return 1


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch) -> Libc:
    libc = Libc()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: libc)
    for name in ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    return libc


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, [(-3, 1 << 20), (-1, 1 << 29)]),
        ({"MALLOC_MMAP_THRESHOLD_": "1000000"}, []),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}, []),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, [(-3, 1 << 20), (-1, 1 << 29)]),
    ],
)
def test_the_environment_goes_first(
    environment: dict[str, str],
    asked: list[tuple[int, int]],
    libc: Libc,
    monkeypatch: pytest.MonkeyPatch,
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert memory.set_mmap_threshold(1 << 20) == bool(asked)
    assert libc.asked == asked


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="needs glibc's mallinfo2",
)
@pytest.mark.parametrize(("roomy", "mapped"), [(True, 0), (False, 1)])
def test_where_there_is_room_no_block_is_mapped_alone(roomy: bool, mapped: int):
    count = COUNT.replace("block =", f"with memory.keep_freed({roomy}):\n    block =")
    command = [sys.executable, "-c", "from skipsr import memory\n" + count, "set"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == mapped


def test_what_was_changed_is_set_back_and_free_memory_given_back(libc: Libc):
    with contextlib.suppress(RuntimeError), memory.keep_freed(True):
        assert libc.asked == [(-4, 0), (-1, -1)]
        raise RuntimeError
    assert libc.asked[2:] == [(-4, 1 << 16), (-1, 1 << 29)]
    assert libc.trimmed == 1
    with memory.keep_freed(False):
        pass
    assert len(libc.asked) == 4


@pytest.mark.parametrize(("free", "waits"), [(8 << 30, True), (7 << 30, False), (None, False)])
def test_a_small_heap_waits_for_the_next_job(
    free: int | None, waits: bool, libc: Libc, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "_system_memory", lambda: free)
    with memory.jobs_in_a_row():
        assert memory.free_memory() == free
        for done in (1, 2):
            with memory.keep_freed(True):
                pass
            assert libc.trimmed == (0 if waits else done)
            assert libc.asked[-1] == ((-4, 1 << 16) if waits else (-1, 1 << 29))
            assert memory.free_memory() == (9 << 30 if waits else free)  # the planner's
    assert libc.trimmed == (1 if waits else 2)
    assert libc.asked[-1] == (-1, 1 << 29)
    assert memory.free_memory() == free


def test_a_job_without_room_begins_without_the_heap_of_the_one_before(
    libc: Libc, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "_system_memory", lambda: 8 << 30)
    with memory.jobs_in_a_row():
        with memory.keep_freed(True):
            pass
        for _ in range(2):
            with memory.keep_freed(False):
                assert libc.trimmed == 1
                assert libc.asked[-1] == (-1, 1 << 29)
    assert libc.trimmed == 1


def test_where_nothing_was_kept_nothing_is_given_back(libc: Libc):
    with memory.jobs_in_a_row(), memory.keep_freed(False):
        pass
    assert not libc.asked
    assert not libc.trimmed


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="needs glibc's mallinfo2",
)
def test_the_next_job_finds_pages_that_are_there():
    code = """
import ctypes, resource
from skipsr import memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with memory.keep_freed(True):
        block = libc.malloc(ctypes.c_size_t(64 << 20))
        ctypes.memset(block, 1, 64 << 20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
memory._system_memory = lambda: 1 << 40
with memory.jobs_in_a_row():
    print(faults(), faults())
print(faults())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    first, second, alone = map(int, done.stdout.split())
    assert second * 4 < min(first, alone)


@pytest.mark.parametrize(
    ("used", "allowed", "free", "roomy"),
    [
        (2, None, 4, True),
        (2, None, 3, False),  # 0.8 of it is less than one and a half times what is used
        (2, None, None, False),
        (2, 3, 100, True),
        (2, 3, None, True),
        (2, 100, 3, False),
        (2, 2, 100, False),
    ],
)
def test_there_is_room_for_a_heap_with_holes(
    used: int, allowed: int | None, free: int | None, roomy: bool
):
    each = 2**30
    scaled = (None if x is None else x * each for x in (allowed, free))
    assert memory.is_roomy(used * each, *scaled) == roomy


def test_the_environment_says_whether_pages_are_huge(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    memory.ask_for_huge_pages()
    assert memory.os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not memory.set_mmap_threshold(1 << 20)


def test_free_memory_is_known_on_other_systems(monkeypatch: pytest.MonkeyPatch):
    class Kernel:
        def __init__(self, _name: str) -> None:
            pass

        def GlobalMemoryStatusEx(self, place: Any) -> bool:  # noqa: N802
            status = place._obj
            assert status.length == ctypes.sizeof(status) == 64
            status.free, status.promised = 6 << 30, 5 << 30
            return True

    monkeypatch.setattr(ctypes, "WinDLL", Kernel, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.free_memory() == 5 << 30
    monkeypatch.setattr(sys, "platform", "darwin")
    pages = {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 1 << 14}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert memory.free_memory() == 8 << 30


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such limits")
def test_the_cache_of_files_counts_as_free_in_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    for name, text in (
        ("max", "9000000\n"),
        ("current", "8000000\n"),
        ("stat", "anon 1\ninactive_file 5000000\nactive_file 7\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free_memory() == 6_000_000
    (tmp_path / "memory.max").write_text("max\n")
    unbound = memory.free_memory()
    assert unbound is not None
    assert unbound > 6_000_000
