"""Progress bars on stderr: stage, frames or bytes per second, time left."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from skipsr.pipeline.job import Progress
from skipsr.weights.fetch import FetchProgress


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} frames/s" if speed else "- frames/s")


@contextmanager
def show_progress() -> Generator[Callable[[Progress], None]]:
    """Yields what a job reports to. On a stderr that is no terminal, only the end is shown."""
    bar = Bar(
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=120,
    )
    with bar:
        task = bar.add_task("load", total=None)

        def watch(progress: Progress) -> None:
            bar.update(
                task, description=progress.stage, completed=progress.frames, total=progress.of
            )

        yield watch
        bar.update(task, description="done")


@contextmanager
def show_bytes() -> Generator[Callable[[FetchProgress], None]]:
    """Yields what a fetch reports to. On a stderr that is no terminal, only the end is shown."""
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=None, visible=False)  # bad arguments show no bar

        def watch(progress: FetchProgress) -> None:
            bar.update(
                task,
                description=progress.name,
                completed=progress.done,
                total=progress.of,
                visible=True,
            )

        yield watch
