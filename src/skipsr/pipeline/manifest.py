"""The manifest of an unfinished job: of what its result is made, and which segments there are.

It is a JSON file in the job's folder, and is read without torch.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skipsr.errors import MediaError, SettingsError
from skipsr.files import LONGEST_NAME, durable_write
from skipsr.settings import JobSettings

SUFFIX = ".job"
NAME = "manifest.json"
LOCK = "lock"  # held by the process that is at the job
REST = "rest-"  # before the first of the frames that it holds
BEGUN = ".tmp"  # of the name under which safetensors begins a file
SECTIONS = "sections"  # with a folder for each section that another worker makes
_LONGEST_NAME = LONGEST_NAME - len(SUFFIX)  # bytes of a target's
_FORMAT = 3
_SEAL = "seal"  # of the rest of a manifest


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames `[start, end)` of a job that are still to be made; `end` None: to the source's end.

    Attributes:
        first: the frame at which their first window begins. That is before `start` where the first
            frames of the stretch are cross-faded with those of a window before it.
    """

    start: int = 0
    end: int | None = None
    first: int = 0


ALL = Stretch()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Finished frames `[start, end)` of a result.

    Attributes:
        times: of the first and the last frame, in units of the source's time base.
        windows: `(start, end)` of the windows that begin in it.
        shots: first frames of the shots that begin in it.
        digest: of its files.
        bytes: of its files.
        tally: what was computed for its windows, see `skipsr.pipeline.stream.Tally`.
    """

    start: int
    end: int
    times: tuple[int, int]
    windows: tuple[tuple[int, int], ...]
    shots: tuple[int, ...]
    digest: str
    bytes: int
    tally: Mapping[str, Any]

    @property
    def frames(self) -> int:
        return self.end - self.start

    @property
    def resumes_at(self) -> int:
        """The frame at which a window has to begin to go on after this segment without `rest`.

        That is its last window again, if it reaches beyond the segment, for its share of the blend.
        """
        start, end = self.windows[-1]
        return start if end > self.end else self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Frames after the last segment, as its last window made them (`crossfade`).

    With them the next window can be blended, without running the last one again.

    Attributes:
        start: the first of them.
        digest: of the file that holds them.
    """

    start: int
    digest: str

    @staticmethod
    def file_of(start: int) -> str:
        """The name of that file in the job's folder."""
        return f"{REST}{start}.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Of what a result is made, and how far it is.

    Attributes:
        identity: all that the result depends on, by topic: source, settings, model, program.
        window, overlap: as the job was begun; where they are not given, memory decides them.
        expected: frames that the source says to have.
        stretch: those that are made here: all, or a section of a job.
        total: where they end; None before that was reached.
        rest: of the last segment, where neighbouring windows share frames.
        placing: whether all is joined, and nothing left to do but to give it its name.
    """

    identity: Mapping[str, Mapping[str, Any]]
    window: int
    overlap: int
    expected: int
    stretch: Stretch = ALL
    segments: tuple[Segment, ...] = ()
    total: int | None = None
    rest: Rest | None = None
    placing: bool = False

    @property
    def frames(self) -> int:
        """Those that are finished."""
        return sum(segment.frames for segment in self.segments)

    def holes(self) -> Iterator[Stretch]:
        """Frames that are missing, and where windows have to begin for them without `rest`."""
        start, resume = self.stretch.start, self.stretch.first
        for segment in self.segments:
            if segment.start > start:
                yield Stretch(start, segment.start, resume)
            start, resume = segment.end, segment.resumes_at
        end = self.stretch.end if self.total is None else self.total
        if end is None or start < end:
            yield Stretch(start, end, resume)

    def save(self, folder: Path) -> None:
        """Write it: whatever happens, what lies there is whole, the old one or this."""
        with durable_write(folder / NAME) as part:
            told = json.loads(json.dumps({"format": _FORMAT, **asdict(self)}))
            part.write_text(json.dumps({**told, _SEAL: _seal(told)}))


def remove_folder(folder: Path) -> None:
    """Remove a job's folder: at last the manifest, by which it is known."""
    for path in folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # Windows keeps a lock that is held
        (folder / LOCK).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_lock(folder: Path) -> None:
    """Remove what Windows kept of a folder that was removed while its lock was held."""
    if sys.platform == "win32" and not (folder / NAME).exists():
        remove_folder(folder)


def named_target(target: Path) -> Path:
    """A target under its own name: of `.` or `..` the folder's, of a link that of what it leads to.

    Raises:
        SettingsError: if nothing can be written beside it.
    """
    is_elsewhere = target.name in ("", "..") or target.is_symlink()
    named = Path(os.path.realpath(target)) if is_elsewhere else target  # also of a loop of links
    if not named.name:
        raise SettingsError(f"{named} cannot be the output: give a folder in it")
    if len(os.fsencode(named.name)) > _LONGEST_NAME:
        raise SettingsError(
            f"the name {named.name} is too long: give one of at most {_LONGEST_NAME} bytes"
        )
    return named


def job_folder(target: Path) -> Path:
    """Where a job keeps what is finished of `target`; see `named_target`."""
    named = named_target(target)
    return named.with_name(named.name + SUFFIX)


def section_folder(target: Path, stretch: Stretch) -> Path:
    """Where a worker keeps what is finished of a section of `target`."""
    return job_folder(target) / SECTIONS / f"{stretch.start:08d}"


def sections_of(folder: Path) -> list[Path]:
    """The folders of the sections in a job's folder, in order."""
    return sorted(path for path in (folder / SECTIONS).glob("*") if path.is_dir())


def being_made(target: Path) -> str:
    """What to say where another process is at a job."""
    return f"another process is making {target}: wait for it, or give another output"


def load_manifest(folder: Path) -> Manifest | None:
    """The manifest in a job's folder; None where there is none yet.

    Raises:
        MediaError: for one that cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        if found["format"] != _FORMAT:
            raise MediaError(
                f"{path} is of another version of skipsr: finish the job with that one, or give "
                "`restart` to begin anew"
            )
        if found.pop(_SEAL) != _seal(found):
            raise ValueError
        del found["format"]
        segments, rest = tuple(map(_segment, found.pop("segments"))), found.pop("rest")
        stretch = Stretch(**found.pop("stretch"))
        return Manifest(stretch=stretch, segments=segments, rest=rest and Rest(**rest), **found)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise MediaError(
            f"{path} is no manifest that can be read: give `restart` to begin anew"
        ) from error


def readable_manifest(folder: Path) -> Manifest | None:
    """The manifest in a job's folder; None where there is none that can be read."""
    try:
        return load_manifest(folder)
    except MediaError:
        return None


def _seal(told: Mapping[str, Any]) -> str:
    """A hash of what a manifest says: one that a disk has changed may still be JSON."""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _segment(found: Any) -> Segment:
    found["times"] = tuple(found["times"])
    found["windows"] = tuple(map(tuple, found["windows"]))
    found["shots"] = tuple(found["shots"])
    return Segment(**found)


def may_replace(target: Path, settings: JobSettings) -> bool:
    """Whether a target may exist: it is to be replaced, or is what a job has just finished."""
    if settings.overwrite or settings.restart:
        return settings.overwrite
    made = readable_manifest(job_folder(target))
    return made is not None and made.placing
