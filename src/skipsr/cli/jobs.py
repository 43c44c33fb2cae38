"""`skipsr jobs`: what was stopped and can go on, and how to be rid of it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from skipsr.cli.spelling import shown
from skipsr.errors import SettingsError

if TYPE_CHECKING:
    from skipsr.pipeline.unfinished import UnfinishedJob

FolderPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
_DAY = 86400  # seconds


@dataclass(frozen=True, kw_only=True)
class _InFolder:
    """What looks for unfinished jobs."""

    folder: FolderPath = Path()
    """Folder with the outputs; its subfolders are searched, too."""


@dataclass(frozen=True, kw_only=True)
class JobsList(_InFolder):
    """List unfinished jobs: output, share done, age, size, and anything that prevents resuming;
    repeat the `skipsr upscale` command to resume a job."""

    def run(self) -> None:
        from skipsr.pipeline.unfinished import find_jobs

        jobs = list(find_jobs(self.folder))
        for job in jobs:
            print(shown(_line(job)))
        if not jobs:
            place = shown(self.folder.absolute())
            print(f"no unfinished jobs in {place} or below", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class JobsClean(_InFolder):
    """Remove the saved parts of unfinished jobs, except those that are running."""

    older_than: float = 0.0
    """Remove only jobs that have made no progress for this many days."""

    def run(self) -> None:
        from skipsr.pipeline.unfinished import find_jobs, remove_job

        if not self.older_than >= 0:  # nor is nan
            raise SettingsError(f"--older-than {self.older_than:g} is not 0 days or more")
        for job in find_jobs(self.folder):
            if job.age >= self.older_than * _DAY:
                done = "removed" if remove_job(job) else "running, kept"
                print(f"{done}: {shown(job.folder)}")


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """List unfinished jobs (also plain `skipsr jobs`), or remove their saved parts."""

    action: (
        Annotated[JobsList, tyro.conf.subcommand("list")]
        | Annotated[JobsClean, tyro.conf.subcommand("clean")]
    )

    def run(self) -> None:
        self.action.run()


def _line(job: "UnfinishedJob") -> str:
    parts = [f"{job.share:4.0%} done", f"{_age(job.age)} old", _size(job.bytes)]
    if job.running:
        parts.append("running")
    if job.differs:
        parts.append("cannot go on: " + ", ".join(job.differs))
    return f"{job.output}: {', '.join(parts)}"


def _age(seconds: float) -> str:
    for name, length in (("days", _DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return "a moment" if seconds < 2 else f"{seconds:.0f} seconds"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
