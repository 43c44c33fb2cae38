"""A job takes over the segments that others have made of it, each in a section's folder."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from skipsr.errors import SettingsError
from skipsr.files import sole_hold
from skipsr.pipeline.manifest import (
    LOCK,
    Manifest,
    being_made,
    readable_manifest,
    remove_folder,
    sections_of,
)
from skipsr.video import Parts


def take_over(
    folder: Path, found: Manifest, parts: Parts, parts_in: Callable[[Path], Parts]
) -> Manifest:
    """Move finished segments from every section to `parts`, and note them in the job's manifest.

    A section is removed once that is noted; if this is interrupted, it can be done again.

    Args:
        folder: the job's.
        parts_in: gives the parts of a section, by its folder.

    Raises:
        SettingsError: while another process is at a section.
    """
    for section in sections_of(folder):
        with _held(section, folder):
            if (made := readable_manifest(section)) is not None:
                found = _with_section(found, made, parts, parts_in(section))
                found.save(folder)
            remove_folder(section)
    return found


def remove_sections(folder: Path) -> None:
    """Remove what sections of a job hold.

    Raises:
        SettingsError: while another process is at one.
    """
    for section in sections_of(folder):
        with _held(section, folder):
            remove_folder(section)


@contextmanager
def _held(section: Path, folder: Path) -> Generator[None]:
    try:
        with sole_hold(section / LOCK):
            yield
    except BlockingIOError as error:
        raise SettingsError(being_made(folder.with_suffix(""))) from error


def _with_section(found: Manifest, section: Manifest, ours: Parts, theirs: Parts) -> Manifest:
    have = {segment.start for segment in found.segments}
    more = [segment for segment in section.segments if segment.start not in have]
    for segment in more:
        ours.take(theirs, segment.start, segment.end)
    segments = tuple(sorted((*found.segments, *more), key=attrgetter("start")))
    # one that began beyond the end does not tell where that is
    reached = section.stretch.end is None and bool(section.segments)
    return replace(found, segments=segments, total=section.total if reached else found.total)
