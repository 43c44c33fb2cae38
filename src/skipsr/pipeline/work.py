"""How the output of a job is written: in one pass (`WholeWork`), or in segments from which a
later run resumes (`skipsr.pipeline.segments`)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from skipsr.backbones.contract import Upscaled
from skipsr.clip import Clip
from skipsr.pipeline.crossfade import Joined
from skipsr.pipeline.manifest import ALL, Stretch
from skipsr.pipeline.plan import JobPlan
from skipsr.pipeline.stream import Tally
from skipsr.video import Target, open_target


class Work(ABC):
    """An output that is being written. A context manager: leaving it completes the output.

    Attributes:
        window, overlap: how the source is cut.
        written: frames that are finished, those of before included.
        tally: what was computed for them.
        shots: first frames of the shots among them.
    """

    def __init__(self, plan: JobPlan) -> None:
        self._plan = plan
        self.window, self.overlap = plan.window, plan.overlap
        self.written = 0
        self.tally = Tally()
        self.shots: set[int] = set()
        self._rest: Clip | None = None

    @abstractmethod
    def __enter__(self) -> "Work": ...

    @abstractmethod
    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...

    @abstractmethod
    def stretches(self) -> Iterator[Stretch]:
        """What is to be made, one after the other."""

    def take_rest(self) -> Clip | None:
        """Frames that the first window of the stretch is blended with; None where none were kept.

        They are handed over: a second call gives None.
        """
        rest, self._rest = self._rest, None
        return rest

    @abstractmethod
    def note(self, result: Upscaled) -> None:
        """Count a window's result, which is told before any frame of it is written."""

    @abstractmethod
    def write(self, joined: Joined) -> None:
        """Take the next frames of a stretch."""


def open_result(plan: JobPlan) -> Target:
    """The target of a job, to be filled and left as a context."""
    asked = plan.settings
    return open_target(
        plan.target,
        plan.source,
        plan.size,
        asked.encoding,
        overwrite=asked.overwrite,
    )


class WholeWork(Work):
    """An output written in one pass: an interrupted job begins anew."""

    def __enter__(self) -> "WholeWork":
        self._target = open_result(self._plan)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._target.__exit__(kind, error, trace)

    def stretches(self) -> Iterator[Stretch]:
        yield ALL

    def note(self, result: Upscaled) -> None:
        self.tally.add(result.compute_map)

    def write(self, joined: Joined) -> None:
        self._target.write(joined.clip)
        self.written = self._target.written
