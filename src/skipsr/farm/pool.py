"""The interface of pools of workers: processes of this machine, or actors of a Ray cluster."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from skipsr.farm.task import Divided, Done, Failed, Task
from skipsr.pipeline.job import Progress


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker died over a task."""

    task: Task
    reason: str


@dataclass(frozen=True, slots=True)
class Working:
    """How far a worker is with its task."""

    worker: int
    device: str
    task: Task
    progress: Progress


@dataclass(frozen=True, slots=True)
class Said:
    """A line for the log."""

    text: str


Event = Done | Divided | Failed | Lost | Working | Said


class Teller(logging.Handler):
    """Passes lines of a worker's log on to where they are shown."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


class Pool(ABC):
    """Workers that hold a loaded model each.

    A context manager: leaving it ends the workers. Of files that they had not finished only the
    segments of long ones are kept.
    A worker that dies is replaced.
    """

    @property
    @abstractmethod
    def alike(self) -> int:
        """Workers that can share a file: as many as there are, or 0 where devices are of several
        kinds, whose results are not the same bit for bit."""

    @property
    @abstractmethod
    def free(self) -> int:
        """Workers that are ready for a task."""

    @abstractmethod
    def start(self, task: Task) -> None:
        """Give a task to a worker that is free."""

    @abstractmethod
    def wait(self) -> Event | None:
        """What happens next; None when only `free` has changed.

        Raises:
            SkipsrError: when no worker can be started any more.
        """

    @abstractmethod
    def _open(self) -> None:
        """Start the workers."""

    @abstractmethod
    def _stop(self) -> None:
        """End all workers that were started."""

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
