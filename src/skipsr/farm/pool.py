"""What a batch needs of whoever runs its tasks: processes here, or a Ray cluster."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from skipsr.farm.task import Done, Failed, Task
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


Event = Done | Failed | Lost | Working | Said


class Pool(Protocol):
    """Workers that hold a loaded model each.

    A context manager: leaving it ends the workers. Of files that they had not finished only the
    segments of long ones are kept.
    A worker that dies is replaced.
    """

    @property
    def free(self) -> int:
        """Workers that are ready for a task."""
        ...

    def start(self, task: Task) -> None:
        """Give a task to a worker that is free."""
        ...

    def wait(self) -> Event | None:
        """What happens next; None when only `free` has changed.

        Raises:
            SkipsrError: when no worker can be started any more.
        """
        ...

    def __enter__(self) -> "Pool": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
