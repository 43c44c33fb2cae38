"""Long files that several workers make together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skipsr.errors import SkipsrError
from skipsr.farm.task import Divide, Divided, Section, Task
from skipsr.limits import Limits
from skipsr.pipeline.plan import plan_job
from skipsr.video import SourceInfo, target_kind


@dataclass(slots=True)
class _File:
    left: int  # sections that are not made yet
    seconds: float  # that workers have spent on it


class SharedFiles:
    """Which files are divided, and what is still to be made of each of them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._files: dict[Path, _File] = {}  # by output
        self._long: dict[Path, SourceInfo | None] = {}  # by output, once looked at

    def useful_workers(self, tasks: Sequence[Task], available: int) -> int:
        """The most for which there is work: more than there are files if the largest is long."""
        if available <= len(tasks):
            return available
        largest = max(tasks, key=lambda task: _size(task.input))
        return available if self._long_source(largest) else len(tasks)

    def choose(self, tasks: Sequence[Task], workers: int) -> list[Task]:
        """The tasks, the largest first; to be divided are long files that would take a worker more
        than half of the time that all of them need for all."""
        every = sorted(((_size(task.input), task) for task in tasks), key=lambda pair: -pair[0])
        total = sum(size for size, _ in every)

        def shared(size: int, task: Task) -> Task:
            large = workers > 1 and 2 * workers * size > total
            source = self._long_source(task) if large else None
            if source is None:
                return task
            return Divide(
                input=task.input, output=task.output, job=task.job, source=source, workers=workers
            )

        return [shared(size, task) for size, task in every]

    def _long_source(self, task: Task) -> SourceInfo | None:
        """What is known of a video that is made in segments; None for other files, and for one that
        cannot be planned here."""
        if task.output not in self._long:
            self._long[task.output] = self._look(task)
        return self._long[task.output]

    def _look(self, task: Task) -> SourceInfo | None:
        if target_kind(task.output) != "video":
            return None
        try:
            plan = plan_job(task.input, task.output, self._limits, task.job)
        except SkipsrError:  # which is told when it is its turn
            return None
        return plan.source if plan.in_segments else None

    def divide(self, found: Divided) -> Sequence[Task]:
        """The tasks that are to come: sections, or the file itself where it was not divided."""
        task = found.task
        if not found.sections:
            return [_whole(task, found.source)]
        self._files[task.output] = _File(len(found.sections), found.seconds)
        job = replace(task.job, restart=False)  # which it was, when it was divided
        return [
            Section(input=task.input, output=task.output, job=job, source=found.source, stretch=one)
            for one in found.sections
        ]

    def end(self, section: Task, seconds: float = 0.0) -> Sequence[Task]:
        """What follows a section, made or not: after the last the file itself.

        Made then, it takes over what was made of sections, and is told what was not.
        """
        file = self._files[section.output]
        file.left -= 1
        file.seconds += seconds
        if file.left:
            return []
        return [_whole(section, section.source)]

    def seconds(self, output: Path) -> float:
        """What workers have spent on a file before it is made itself."""
        file = self._files.get(output)
        return file.seconds if file else 0.0


def _whole(task: Task, source: SourceInfo | None) -> Task:
    return Task(input=task.input, output=task.output, job=task.job, source=source)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
