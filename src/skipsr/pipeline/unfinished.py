"""The folders of unfinished jobs: found, described, removed, without torch."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skipsr.errors import MediaError
from skipsr.files import sole_hold
from skipsr.pipeline.identity import differences, program_identity, source_identity
from skipsr.pipeline.manifest import (
    LOCK,
    NAME,
    REST,
    SUFFIX,
    Manifest,
    readable_manifest,
    remove_folder,
    remove_lock,
    sections_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedJob:
    """A job's folder, as it was found.

    Attributes:
        output: what it is to become.
        age: seconds since something of it was finished.
        bytes: of what is finished.
        share: how much of the frames is finished, 0 to 1.
        running: whether a process is at it, or at a section of it.
        differs: what would keep it from going on, of the source and the program.
    """

    folder: Path
    output: Path
    age: float
    bytes: int
    share: float
    running: bool
    differs: tuple[str, ...]


def find_jobs(folder: Path) -> Iterator[UnfinishedJob]:
    """The unfinished jobs in a folder and those below it, by name.

    Raises:
        MediaError: when it is no folder.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder} is no folder: give the one that outputs are written to")
    for found in sorted(folder.rglob(f"*{SUFFIX}/{NAME}")):
        with suppress(FileNotFoundError):  # it has ended in the meantime
            yield _describe(found.parent)


def _describe(folder: Path) -> UnfinishedJob:
    sections = sections_of(folder)
    places = [folder, *sections]
    manifest, *others = map(readable_manifest, places)
    every = [found for found in (manifest, *others) if found is not None]
    noted = [folder / NAME, *filter(Path.exists, (section / NAME for section in sections))]
    frames = sum(found.frames for found in every)
    expected = max(1, manifest.total or manifest.expected) if manifest else 1
    differs = ["the manifest cannot be read"] if manifest is None else _differing(manifest)
    return UnfinishedJob(
        folder=folder,
        output=folder.with_name(folder.name.removesuffix(SUFFIX)),
        age=time.time() - max(path.stat().st_mtime for path in noted),
        bytes=sum(segment.bytes for found in every for segment in found.segments)
        + sum(path.stat().st_size for path in folder.rglob(f"{REST}*")),
        share=min(1.0, frames / expected) if manifest else 0.0,
        running=any(map(_is_running, places)),
        differs=tuple(differs),
    )


def _differing(manifest: Manifest) -> list[str]:
    then = manifest.identity
    source = Path(then["source"]["path"])
    now = {"program": program_identity()}
    try:
        files = [source / name for name in then["source"]["files"]]
        now["source"] = source_identity(source, files)
    except OSError as error:
        return [f"{error.filename} is not there", *differences(then, now)]
    return differences(then, now)


def _is_running(folder: Path) -> bool:
    try:
        with sole_hold(folder / LOCK):
            return False
    except BlockingIOError:
        return True


def remove_job(job: UnfinishedJob) -> bool:
    """Remove a job's folder; whether it could be, which it cannot while it is running."""
    try:
        with sole_hold(job.folder / LOCK):
            if any(map(_is_running, sections_of(job.folder))):
                return False
            remove_folder(job.folder)
    except BlockingIOError:
        return False
    except FileNotFoundError:  # the job has ended
        return True
    remove_lock(job.folder)
    return True
