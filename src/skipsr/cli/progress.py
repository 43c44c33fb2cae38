"""Progress bars on stderr: stage, frames or bytes per second, time left."""

import time
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
    """Of all that was done, since windows are finished at once."""

    def render(self, task: Task) -> Text:
        rate = task.fields["rate"]
        return Text(f"{rate:.2f} frames/s" if rate else "- frames/s")


@contextmanager
def show_progress() -> Generator[Callable[[Progress], None]]:
    """Yields what a job reports to. On a stderr that is no terminal, only the end is shown."""
    bar = Bar(
        TextColumn("{task.description:11}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=120,
    )
    with bar:
        task = bar.add_task("load", total=None, rate=0.0)
        first: tuple[float, float] | None = None  # when, and what was done then

        def watch(progress: Progress) -> None:
            nonlocal first
            now, done = time.monotonic(), progress.frames + progress.ahead
            first = first or (now, done)
            rate = (done - first[1]) / max(now - first[0], 1e-3)
            bar.update(
                task, description=progress.stage, completed=done, total=progress.of, rate=rate
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
    task = bar.add_task("", total=None)

    def watch(progress: FetchProgress) -> None:
        bar.start()  # not before, so that bad arguments show none
        bar.update(task, description=progress.name, completed=progress.done, total=progress.of)

    try:
        yield watch
    finally:
        if bar.live.is_started:
            bar.stop()
