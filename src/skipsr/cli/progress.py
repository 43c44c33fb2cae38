"""Progress on stderr: bars with stage, frames or bytes per second, time left; lines in a log."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta

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

_PULSE = 60.0  # seconds


class Pulse:
    """Says once a minute, but not at first, that a log is to be told how far a job is."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        if (now := time.monotonic()) < self._last + _PULSE:
            return False
        self._last = now
        return True


class _Rate(ProgressColumn):
    """Of all that was done, since windows are finished at once."""

    def render(self, task: Task) -> Text:
        rate = task.fields["rate"]
        return Text(f"{rate:.2f} frames/s" if rate else "- frames/s")


@contextmanager
def show_progress() -> Generator[Callable[[Progress], None]]:
    """Yields what a job reports to. On a stderr that is no terminal, a line each minute and the end
    are shown."""
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
        pulse = Pulse()

        def watch(progress: Progress) -> None:
            nonlocal first
            now, done = time.monotonic(), progress.frames + progress.ahead
            first = first or (now, done)
            rate = (done - first[1]) / max(now - first[0], 1e-3)
            bar.update(
                task,
                description=progress.stage,
                completed=done,
                total=progress.of or None,
                rate=rate,
            )
            if not bar.console.is_terminal and pulse.is_due():
                of = f" of {progress.of}" if progress.of else ""
                left = f", {_time_left(progress, rate)} left" if of and rate else ""
                line = f"skipsr: {progress.frames}{of} frames, {rate:.2f} frames/s"
                bar.console.print(line + left, highlight=False, soft_wrap=True)

        yield watch
        bar.update(task, description="done")


def _time_left(progress: Progress, rate: float) -> timedelta:
    left = max(0.0, progress.of - progress.frames - progress.ahead)
    return timedelta(seconds=round(left / rate))


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
