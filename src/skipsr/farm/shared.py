"""Long files that several workers make together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skipsr.farm.task import Divided, Section, Task
from skipsr.settings import JobSettings
from skipsr.video import SourceInfo


@dataclass(slots=True)
class _File:
    left: int  # sections that are not made yet
    seconds: float  # that workers have spent on it


class SharedFiles:
    """What is still to be made of each file that was divided."""

    def __init__(self) -> None:
        self._files: dict[Path, _File] = {}  # by output

    def divide(self, found: Divided) -> Sequence[Task]:
        """The tasks that are to come: sections, or the file itself where it was not divided."""
        task = found.task
        if not found.sections:
            return [_whole(task, task.job, found.source)]
        self._files[task.output] = _File(len(found.sections), found.seconds)
        job = replace(task.job, restart=False)  # which it was, when it was divided
        return [
            Section(
                input=task.input,
                output=task.output,
                job=job,
                source=found.source,
                stretch=stretch,
            )
            for stretch in found.sections
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
        return [_whole(section, section.job, section.source)]

    def seconds(self, output: Path) -> float:
        """What workers have spent on a file before it is made itself."""
        file = self._files.get(output)
        return file.seconds if file else 0.0


def _whole(task: Task, job: JobSettings, source: SourceInfo | None) -> Task:
    return Task(input=task.input, output=task.output, job=job, source=source)
