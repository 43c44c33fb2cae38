"""A job takes over the segments that others have made of it, each in a section's folder."""

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from skipsr.errors import SettingsError
from skipsr.files import sole_hold
from skipsr.pipeline.manifest import (
    LOCK,
    Manifest,
    being_made,
    differences,
    load_manifest,
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
        try:
            with sole_hold(section / LOCK):
                made = load_manifest(section)
                found = _with_section(folder, found, made, parts, parts_in(section))
                remove_folder(section)
        except (BlockingIOError, FileNotFoundError) as error:
            raise SettingsError(being_made(folder.with_suffix(""))) from error
    return found


def _with_section(
    folder: Path, found: Manifest, section: Manifest | None, ours: Parts, theirs: Parts
) -> Manifest:
    if section is None or not _is_of(section, found):
        return found
    have = {segment.start for segment in found.segments}
    more = [segment for segment in section.segments if segment.start not in have]
    for segment in more:
        ours.take(theirs, segment.start, segment.end)
    segments = tuple(sorted((*found.segments, *more), key=attrgetter("start")))
    reached = section.stretch.end is None and section.total is not None
    found = replace(found, segments=segments, total=section.total if reached else found.total)
    found.save(folder)
    return found


def _is_of(section: Manifest, job: Manifest) -> bool:
    same = (section.window, section.overlap) == (job.window, job.overlap)
    return same and not differences(section.identity, job.identity)
