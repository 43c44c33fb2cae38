"""Workers that are processes of this machine."""

import logging
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Lock
from time import monotonic
from types import FrameType

from skipsr.errors import SettingsError, Suspended, describe_any
from skipsr.farm.pool import Event, Lost, Pool, Said, Teller, Working
from skipsr.farm.task import Divided, Done, Failed, Task, Worker, WorkerSpec
from skipsr.memory import jobs_in_a_row
from skipsr.pipeline.job import Progress
from skipsr.video import remove_leftovers

_EVERY = 0.2  # seconds between two words on how far a task is
_GRACE = 30.0  # seconds that a worker has to end
_spawn = get_context("spawn")  # a forked one could not use CUDA


@dataclass(frozen=True, slots=True)
class _Ready:
    """The model is loaded."""


@dataclass(frozen=True, slots=True)
class _Unable:
    """The worker cannot be what it is to be."""

    reason: str


@dataclass(slots=True)
class _Slot:
    """The place of one worker, whichever process fills it."""

    number: int
    spec: WorkerSpec
    process: SpawnProcess
    line: Connection
    ready: bool = False
    task: Task | None = None
    failures: int = 0  # to get ready, one after the other


class Processes(Pool):
    """A pool of processes, each with a pipe of its own, so that one that dies blocks no other."""

    def __init__(self, specs: Sequence[WorkerSpec], retries: int) -> None:
        """`retries` is how often a process is started again that died before it was ready."""
        self._specs, self._retries = specs, retries
        self._slots: list[_Slot] = []

    @property
    def alike(self) -> int:
        kinds = {slot.spec.device.partition(":")[0] for slot in self._slots}
        return len(self._slots) if len(kinds) == 1 else 0

    @property
    def free(self) -> int:
        return sum(slot.ready and slot.task is None for slot in self._slots)

    def start(self, task: Task) -> None:
        slot = next(slot for slot in self._slots if slot.ready and slot.task is None)
        slot.task = task
        with suppress(OSError):  # it has just died, which `wait` finds
            slot.line.send(task)

    def wait(self) -> Event | None:
        slots: dict[object, _Slot] = {slot.line: slot for slot in self._slots}
        slot = slots[wait([slot.line for slot in self._slots])[0]]
        try:
            message = slot.line.recv()
        except (EOFError, OSError):
            return self._bury(slot)
        match message:
            case _Ready():
                slot.ready, slot.failures = True, 0
                return None
            case _Unable(reason):
                self._end(slot)
                return self._give_up(slot, reason)
            case Done() | Divided() | Failed():
                slot.task = None
                if isinstance(message, Failed) and message.fault:
                    self._end(slot)  # whatever is wrong in it, a fresh process has it not
                    self._restart(slot)
            case _:
                pass
        return message

    def _open(self) -> None:
        for number, spec in enumerate(self._specs):
            self._slots.append(_Slot(number, spec, *_start(number, spec)))

    def _stop(self) -> None:
        """End every process: those at work are told to, the others find their pipe closed."""
        try:
            for slot in self._slots:
                if slot.task is not None or not slot.ready:
                    slot.process.terminate()
                slot.line.close()
            until = monotonic() + _GRACE
            for slot in self._slots:
                slot.process.join(max(0.0, until - monotonic()))
        finally:
            for slot in self._slots:
                slot.process.kill()
                self._end(slot)
            self._slots.clear()

    def _end(self, slot: _Slot) -> str:
        """Wait for a process that ends, remove what it left, and say what it died of."""
        slot.line.close()
        slot.process.join(_GRACE)
        if slot.process.is_alive():
            slot.process.kill()
            slot.process.join()
        if slot.task is not None and slot.process.pid is not None:
            remove_leftovers(slot.task.output, slot.process.pid)
        return _cause(slot.process.exitcode or 0)

    def _bury(self, slot: _Slot) -> Event | None:
        """A process ended by itself."""
        task, reason = slot.task, self._end(slot)
        if not slot.ready:
            slot.failures += 1
            if slot.failures > self._retries:
                return self._give_up(slot, f"{reason} before it was ready")
        self._restart(slot)
        return None if task is None else Lost(task, reason)

    def _restart(self, slot: _Slot) -> None:
        """Put a new process in the place of one that has ended."""
        slot.task, slot.ready = None, False
        slot.process, slot.line = _start(slot.number, slot.spec)

    def _give_up(self, slot: _Slot, reason: str) -> Event:
        self._slots.remove(slot)
        if not self._slots:
            raise SettingsError(f"no worker could be started: {reason}")
        return Said(f"no worker on {slot.spec.device}: {reason}")


def _start(number: int, spec: WorkerSpec) -> tuple[SpawnProcess, Connection]:
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_work, args=(theirs, number, spec), daemon=True)
    with _no_interrupts():
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _no_interrupts() -> Generator[None]:
    """What is started here never hears a Ctrl-C, which a terminal sends to all; we do, after."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cause(code: int) -> str:
    """Of the death of a process, by its exit code."""
    if code >= 0:
        return f"ended with code {code}"
    name = {each.value: each.name for each in signal.Signals}.get(-code, f"signal {-code}")
    return f"killed by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")


def _work(pipe: Connection, number: int, spec: WorkerSpec) -> None:
    """The process: load, then do what comes, until the other end is closed or TERM comes."""
    try:
        signal.signal(signal.SIGTERM, suspend)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "SIGHUP"):  # with its terminal the parent goes, and closes the pipe
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with jobs_in_a_row():
            _serve(_Line(pipe), number, spec)
    except (EOFError, Suspended):
        pass  # nobody is there to be told
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _serve(line: "_Line", number: int, spec: WorkerSpec) -> None:
    teller = Teller(lambda text: line.send(Said(text)))
    logging.basicConfig(level=logging.WARNING, handlers=[teller], force=True)
    try:
        worker = Worker(spec)
    except Exception as error:
        line.send(_Unable(describe_any(error)))
        return
    line.send(_Ready())
    while True:
        task = line.next_task()
        last = 0.0

        def watch(progress: Progress, task: Task = task) -> None:
            nonlocal last
            if monotonic() - last >= _EVERY:
                last = monotonic()
                line.send(Working(number, spec.device, task, progress))

        result = worker.run(task, watch)
        line.send(result)
        if isinstance(result, Failed) and result.fault:
            return


class _Line:
    """A worker's end of the pipe; it may be used from any thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, Lock()

    def next_task(self) -> Task:
        return self._pipe.recv()

    def send(self, message: Event | _Ready | _Unable) -> None:
        """Raises:
        Suspended: when the other end is closed.
        """
        try:
            with self._lock:
                self._pipe.send(message)
        except OSError:
            raise Suspended from None


def suspend(_signal: int, _frame: FrameType | None) -> None:
    """What a worker does when it is told to end: the same batch goes on with its file."""
    raise Suspended
