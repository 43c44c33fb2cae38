"""Seconds per stage of a run, and its peak memory. The stage timer is the package's one ambient
state."""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

_active: ContextVar["Trace | None"] = ContextVar("skipsr_trace", default=None)


class Trace:
    """Collects the time spent in each `span` while it is entered.

    >>> with Trace() as trace:
    ...     with span("decode"):
    ...         pass
    >>> list(trace.seconds)
    ['decode']
    """

    def __init__(self, watch: Callable[[str], None] = lambda _: None) -> None:
        """`watch` is told the name of each stage as it begins."""
        self.watch = watch
        self._spans: defaultdict[str, float] = defaultdict(float)
        self._began = self._ended = time.perf_counter()

    def __enter__(self) -> "Trace":
        self._token = _active.set(self)
        self._began = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        self._spans[stage] += seconds


@contextmanager
def span(stage: str) -> Generator[None]:
    """Count the time of the enclosed block as `stage`; free when no `Trace` is entered."""
    trace = _active.get()
    if trace is None:
        yield
        return
    trace.watch(stage)
    _wait_for_device()
    began = time.perf_counter()
    try:
        yield
    finally:
        _wait_for_device()
        trace.add(stage, time.perf_counter() - began)


def peak_memory_gib() -> float:
    """Peak memory of this process in GiB: the GPU's allocations where one was used, else resident
    memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _wait_for_device() -> None:
    torch = sys.modules.get(
        "torch"
    )  # not imported here: the command line's help must not pay for it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
