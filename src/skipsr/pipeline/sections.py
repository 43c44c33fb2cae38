"""A long job shared by several workers: each makes a section, some of its segments in a row.

Sections begin and end where the segments of the whole job do, so that it makes no difference to the
result who made what. Each is kept like a job of its own, in a folder within the job's, and the job
itself, run at last, takes over what is finished and makes what is missing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Self

from skipsr.backbones.contract import Upscaler
from skipsr.errors import SettingsError
from skipsr.pipeline.identity import differences
from skipsr.pipeline.manifest import Stretch, job_folder, load_manifest, section_folder
from skipsr.pipeline.plan import JobPlan
from skipsr.pipeline.segments import SegmentedWork
from skipsr.shots import ListedShots
from skipsr.timeline import Window, split_shots
from skipsr.video import open_source
from skipsr.video.container import media_errors

_LONG = 10  # windows, of a section: the one before it is run again


class SectionWork(SegmentedWork):
    """The segments of a section; they stay for the job to take over."""

    def __init__(self, plan: JobPlan, upscaler: Upscaler) -> None:
        super().__init__(plan, upscaler, section_folder(plan.target, plan.stretch))

    def __enter__(self) -> Self:
        job = load_manifest(job_folder(self._plan.target))
        if job is None or differences(job.identity, self._identity):
            raise SettingsError(
                f"{self._plan.target} was begun otherwise than this worker would go on with it"
            )
        with media_errors(self._folder, "write"):
            self._folder.parent.mkdir(exist_ok=True)
        return super().__enter__()

    def _complete(self) -> None:
        """They are joined with those of the other sections; where they end is noted."""
        with media_errors(self._folder, "write"):
            self._manifest.save(self._folder)


class _Division(SegmentedWork):
    """A job whose missing frames others will make."""

    @property
    def holes(self) -> list[Stretch]:
        return list(self._manifest.holes())

    def _complete(self) -> None:
        """What is finished stays, and the manifest, from which sections have their windows."""


def divide(
    plan: JobPlan, upscaler: Upscaler, workers: int, look: Callable[[int], None]
) -> list[Stretch]:
    """Begin a long job, or go on with it, by dividing what is missing into sections.

    To find where shots begin the source is read to its end, unless they are listed.

    Args:
        workers: that will make them. There are two sections for each, since contents take their
            time, or one, where sections are short; all are about as long as one another.
        look: told of every frame that is read.

    Returns:
        Nothing for a job that is not made in segments, or has but one to make.

    Raises:
        MediaError: when the source cannot be read or the job's folder not written.
        SettingsError: for settings that differ from those of the job that is kept.
    """
    if not plan.in_segments:
        return []
    with _Division(plan, upscaler) as work:
        holes = work.holes
        windows = _found_windows(plan, look) if holes else []
    segments = [one for hole in holes for one in _segments(hole, windows, plan.segment)]
    each = sum(map(_length, segments)) / workers
    sections = _joined(segments, each / 2 if each >= 2 * _LONG * plan.window else each)
    if len(sections) < 2:
        return []
    if holes[-1].end is None and sections[-1].start >= holes[-1].start:
        sections[-1] = replace(sections[-1], end=None)  # whatever is there beyond
    return sections


def _found_windows(plan: JobPlan, look: Callable[[int], None]) -> list[Window]:
    """Those of the whole job."""
    if isinstance(plan.shots, ListedShots):
        return list(plan.windows)
    with open_source(plan.source) as reader:

        def begins() -> Iterator[tuple[None, bool]]:
            for place, (_, first) in enumerate(reader.frames(plan.shots)):
                look(place)
                yield None, first

        return [window for window, _ in split_shots(begins(), plan.window, plan.overlap)]


def _segments(hole: Stretch, windows: Sequence[Window], least: int) -> Iterator[Stretch]:
    """The segments that `SegmentedWork` makes of missing frames: so many, and up to a window."""
    start, first, last = hole.start, hole.first, windows[-1].end
    ends = [*(window.start for window in windows[1:]), last]  # of the frames that each passes on
    for window, end in zip(windows, ends, strict=True):
        if start < end <= (hole.end or last) and (end - start >= least or end in (hole.end, last)):
            yield Stretch(start, end, first)
            start, first = end, window.start if window.end > end else end


def _joined(segments: Sequence[Stretch], each: float) -> list[Stretch]:
    """Neighbours put together, about so many frames each."""
    found: list[Stretch] = []
    last, done = 0, 0
    for segment in segments:
        number = int((done + _length(segment) / 2) / each)
        done += _length(segment)
        if found and found[-1].end == segment.start and number == last:
            found[-1] = replace(found[-1], end=segment.end)
        else:
            found.append(segment)
        last = number
    return found


def _length(stretch: Stretch) -> int:
    assert stretch.end is not None
    return stretch.end - stretch.start
