"""Seconds per stage of a run, and its peak memory.

The stage timer is the package's one ambient state.
"""

import ctypes
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any

_LEAST = 1 / 400  # of a clip, that is told
_active: ContextVar["Trace | None"] = ContextVar("skipsr_trace", default=None)


class Trace:
    """Collects the time spent in each `span` while it is entered.

    >>> with Trace() as trace:
    ...     with span("decode"):
    ...         pass
    >>> list(trace.seconds)
    ['decode']
    """

    def __init__(self, watch: Callable[[str], None] = lambda _: None, device: str = "cpu") -> None:
        """`watch` is told the name of each stage as it begins, and again when `reached` says how
        far it is; `device` is where stages compute.

        Stages of other threads, in a copy of this one's context, are counted by the process's own
        clock, and not told: they may overlap, and then come to more than the total.

        On a CUDA device stages are timed by marks on its own timeline, so that timing waits for
        nothing: work that was queued in one stage and is done in another counts in the first.
        """
        self.watch = watch
        self.share = 0.0  # of the clip at work, as `reached` said last
        self._stage = ""
        self._work: Mapping[str, float] = {}
        self._done: dict[str, float] = {}
        self._spans: defaultdict[str, float] = defaultdict(float)
        self._host = _HostMarks(self.add)
        self._marks = _DeviceMarks(device, self.add) if _is_cuda(device) else self._host
        self._lock = threading.Lock()
        self._began = self._ended = time.perf_counter()

    def __enter__(self) -> "Trace":
        self._token = _active.set(self)
        self._thread = threading.get_ident()
        self._began = time.perf_counter()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:  # else there may be no device left to wait for
            self._marks.settle()
        self._ended = time.perf_counter()
        _active.reset(self._token)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, in the order in which the stages first ended."""
        return dict(self._spans)

    @property
    def total(self) -> float:
        """Wall-clock seconds between entering and leaving."""
        return self._ended - self._began

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._spans[stage] += seconds

    def reached(self, share: float) -> None:
        self.share = share
        self.watch(self._stage)

    def expect(self, work: Mapping[str, float]) -> None:
        self._work, self._done, self.share = work, dict.fromkeys(work, 0.0), 0.0

    def worked(self, amount: float) -> None:
        if self._stage not in self._done:
            return
        self._done[self._stage] += amount
        stages = list(self._work)
        whole = sum(self._work[stage] for stage in stages[: stages.index(self._stage)])
        now = min(self._done[self._stage], self._work[self._stage])
        share = (whole + now) / sum(self._work.values())
        if share >= self.share + _LEAST:
            self.reached(share)

    @contextmanager
    def timed(self, stage: str) -> Generator[None]:
        marks = self._host
        if threading.get_ident() == self._thread:
            self._stage = stage
            self.watch(stage)
            marks = self._marks
        began = marks.now()
        try:
            yield
        finally:
            marks.ended(stage, began)


@contextmanager
def span(stage: str) -> Generator[None]:
    """Count the time of the enclosed block as `stage`; free when no `Trace` is entered."""
    trace = _active.get()
    if trace is None:
        yield
        return
    with trace.timed(stage):
        yield


def reached(share: float) -> None:
    """Say how much of the clip at work is done, 0 to 1; free when no `Trace` is entered."""
    trace = _active.get()
    if trace is not None:
        trace.reached(share)


def expect(work: Mapping[str, float]) -> None:
    """Say what each stage of the clip at work takes, in order and in any unit, so that `worked`
    tells how much of the clip is done."""
    trace = _active.get()
    if trace is not None:
        trace.expect(work)


def worked(amount: float) -> None:
    """Count what was done, or on a GPU what was queued, of what the stage at work was expected to
    take; free when no `Trace` is entered."""
    trace = _active.get()
    if trace is not None:
        trace.worked(amount)


def peak_memory_gib(device: str = "cpu") -> float:
    """Peak memory in GiB: what a CUDA device allocated, else what was resident of this process."""
    if _is_cuda(device):
        return _cuda().max_memory_allocated(device) / 2**30
    return _peak_resident() / 2**30


class _HostMarks:
    """The process's own clock."""

    def __init__(self, add: Callable[[str, float], None]) -> None:
        self._add = add

    def now(self) -> float:
        return time.perf_counter()

    def ended(self, stage: str, began: float) -> None:
        self._add(stage, time.perf_counter() - began)

    def settle(self) -> None:
        """Nothing is outstanding."""


class _DeviceMarks:
    """Events in the stream of a CUDA device, read once they have passed."""

    def __init__(self, device: str, add: Callable[[str, float], None]) -> None:
        self._device, self._add = device, add
        self._ahead: deque[tuple[str, Any, Any]] = deque()

    def now(self) -> Any:
        cuda = _cuda()
        event = cuda.Event(enable_timing=True)
        event.record(cuda.current_stream(self._device))
        return event

    def ended(self, stage: str, began: Any) -> None:
        self._ahead.append((stage, began, self.now()))
        while self._ahead and self._ahead[0][2].query():  # so that few are held in a long job
            self._read()

    def settle(self) -> None:
        """Wait for all that was marked."""
        while self._ahead:
            self._ahead[0][2].synchronize()
            self._read()

    def _read(self) -> None:
        stage, began, ended = self._ahead.popleft()
        self._add(stage, began.elapsed_time(ended) / 1000)


def _is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"


def _cuda() -> Any:
    return import_module("torch").cuda  # late: the command line's help must not pay for torch


def _peak_resident() -> int:
    """Bytes of this process."""
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.K32GetProcessMemoryInfo.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_uint32,
        ]
        counters = _MemoryCounters(size=ctypes.sizeof(_MemoryCounters))
        place = ctypes.byref(counters)
        kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), place, counters.size)
        return counters.peak_working_set
    try:  # on Linux the resource module's peak counts what the parent held when it forked
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        import resource  # noqa: PLC0415  (there is none on Windows)

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of Windows' psapi.h; what follows the peak is not read."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("page_faults", ctypes.c_uint32),
        ("peak_working_set", ctypes.c_size_t),
        ("rest", ctypes.c_size_t * 7),
    )
