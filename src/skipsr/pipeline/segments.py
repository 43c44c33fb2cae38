"""Resumable jobs: a long result is made in segments, which are kept until all are there.

In the job's folder lie the lock, the manifest, the segments, and the frames after the last of them
that the next window will be blended into. A segment is written under another name, synced to the
disk and renamed, and then noted in the manifest, so that what is noted is there whatever happens,
and what is not noted is made again.

Where several workers share a job, each makes a section of it: some of its segments, in a folder
within the job's (see `skipsr.pipeline.sections`).
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

from skipsr.backbones.contract import Upscaled, Upscaler
from skipsr.clip import Clip
from skipsr.errors import Cancelled, MediaError, SettingsError, Suspended, lacks_memory
from skipsr.files import LEFT_BY_SYSTEMS, check_free, digest, sole_hold, sync
from skipsr.pipeline.crossfade import Joined
from skipsr.pipeline.identity import differences, job_identity, video_ends
from skipsr.pipeline.manifest import (
    BEGUN,
    LOCK,
    NAME,
    REST,
    SECTIONS,
    Manifest,
    Segment,
    Stretch,
    being_made,
    job_folder,
    load_manifest,
    remove_folder,
    remove_lock,
)
from skipsr.pipeline.plan import JobPlan
from skipsr.pipeline.rest import load_rest, save_rest, tidy_rests
from skipsr.pipeline.stream import Tally
from skipsr.pipeline.takeover import remove_sections, take_over
from skipsr.pipeline.work import Work
from skipsr.shots import ListedShots
from skipsr.tracing import span
from skipsr.video import Parts, Target, open_parts
from skipsr.video.container import media_errors
from skipsr.video.formats import target_kind

log = logging.getLogger(__name__)


def goes_in_segments(plan: JobPlan) -> bool:
    """Whether a job is long, or has begun as one."""
    return plan.in_segments or (job_folder(plan.target) / NAME).exists()


class SegmentedWork(Work):
    """An output written in segments, which resumes where an earlier run of the same job stopped.

    The folder is removed when the result has its name, and after `Cancelled`: whoever cancels a job
    does not want it, while one that is interrupted may be wanted.
    """

    def __init__(self, plan: JobPlan, upscaler: Upscaler, folder: Path | None = None) -> None:
        """`folder` in place of the job's."""
        super().__init__(plan)
        self._folder = folder or job_folder(plan.target)
        runs = {"device": upscaler.device.partition(":")[0], "dtype": upscaler.dtype}
        with media_errors(plan.source.path):
            self._identity = job_identity(
                plan.source.path,
                plan.source.files,
                plan.settings,
                {**upscaler.identity(), **runs},
                plan.shots.firsts if isinstance(plan.shots, ListedShots) else None,
            )
        self._ends = video_ends(plan.source.path, plan.source.files)
        self._replaced = False  # the source was
        self._parts = self._parts_in(self._folder)
        self._windows: dict[int, tuple[int, Tally]] = {}  # by start: the end, and what was computed
        self._stretch = plan.stretch
        self._open: _OpenSegment | None = None
        self._placed = False

    def _parts_in(self, folder: Path) -> Parts:
        plan = self._plan
        kind = "frames" if target_kind(plan.target) == "folder" else "segments"
        encoding = plan.settings.encoding
        return open_parts(folder / kind, plan.target, plan.source, plan.size, encoding)

    def __enter__(self) -> Self:
        with media_errors(self._folder, "write"), ExitStack() as stack:
            self._folder.mkdir(exist_ok=True)
            try:
                stack.enter_context(sole_hold(self._folder / LOCK))
            except (BlockingIOError, FileNotFoundError) as error:
                raise SettingsError(being_made(self._plan.target)) from error
            self._manifest = self._begin()
            self._hold = stack.pop_all()
        self.window, self.overlap = self._manifest.window, self._manifest.overlap
        self.written = self._manifest.frames
        for segment in self._manifest.segments:
            self.tally.merge(Tally(**segment.tally))
            self.shots.update(segment.shots)
        return self

    def _begin(self) -> Manifest:
        """The manifest that is there, without segments that were damaged, or a new one."""
        plan = self._plan
        fresh = Manifest(
            identity=self._identity,
            window=plan.window,
            overlap=plan.overlap,
            expected=plan.source.frames,
            stretch=plan.stretch,
        )
        found = None if plan.settings.restart else load_manifest(self._folder)
        if found is None:
            self._refuse_foreign_files()
            remove_sections(self._folder)
            found = fresh
            found.save(self._folder)
            sync(self._folder.parent)
        elif differs := differences(found.identity, self._identity):
            raise SettingsError(
                f"{self._folder} holds the beginning of another job: {', '.join(differs)}; give "
                "`restart` to begin anew, or the same as before to go on"
            )
        if not found.placing:
            found = take_over(self._folder, found, self._parts, self._parts_in)
            whole = tuple(filter(self._is_whole, found.segments))
            found = replace(found, segments=whole)
            self._parts.tidy([(segment.start, segment.end) for segment in whole])
            tidy_rests(self._folder, found.rest)
        return found

    def _refuse_foreign_files(self) -> None:
        known = (LOCK, NAME, SECTIONS, "segments", "frames", *LEFT_BY_SYSTEMS)
        for path in self._folder.iterdir():
            ours = path.name in known or path.name.startswith((REST, BEGUN))
            if not ours and not path.name.endswith(".part"):
                raise SettingsError(
                    f"{self._folder} is needed to keep what is finished, and holds {path.name}: "
                    "move it elsewhere, or give another output"
                )

    def _is_whole(self, segment: Segment) -> bool:
        try:
            whole = digest(self._parts.files(segment.start, segment.end)) == segment.digest
        except OSError:
            whole = False
        if not whole:
            place = f"{segment.start} to {segment.end - 1}"
            log.warning("%s: frames %s are damaged and made again", self._folder, place)
        return whole

    def stretches(self) -> Iterator[Stretch]:
        """What is missing. The last segment of each stretch ends with it, however short."""
        if self._manifest.placing:
            return
        for hole in tuple(self._manifest.holes()):
            self._rest = load_rest(self._folder, self._manifest.rest, hole.start)
            self._stretch = replace(hole, first=hole.start) if self._rest else hole
            yield self._stretch
            self._close(None)
        last = self._manifest.segments[-1].end if self._manifest.segments else 0
        self._manifest = replace(self._manifest, total=last)

    def note(self, result: Upscaled) -> None:
        start, end, tally = result.clip.start, result.clip.end, Tally()
        tally.add(result.compute_map)
        ours = start >= self._plan.stretch.start  # that before a section is noted with another
        if start >= self._stretch.start:
            self._windows[start] = end, tally
        elif ours and not any((start, end) in one.windows for one in self._manifest.segments):
            raise MediaError(
                f"{self._plan.source.path} is cut into other windows than when the job was begun: "
                "give `restart` to begin anew"
            )

    def write(self, joined: Joined) -> None:
        clip = joined.clip
        if self._open is None:
            self._open = _OpenSegment(self._parts.open(clip.start), clip)
        self._open.write(clip)
        self.written += len(clip)
        if self._open.frames >= self._plan.segment:
            self._close(joined.rest)

    def _close(self, rest: Clip | None) -> None:
        """Finish the segment that is being written, and note it and what follows it."""
        if self._open is None:
            return
        self._check_source()
        done, self._open = self._open, None
        done.finish()
        with span("write"), media_errors(self._folder, "write"):
            start, end = done.start, done.start + done.frames
            windows, tally = self._windows_before(end)
            files = self._parts.files(start, end)
            segment = Segment(
                start=start,
                end=end,
                times=done.times,
                windows=windows,
                shots=tuple(sorted(shot for shot in self.shots if start <= shot < end)),
                digest=digest(files),
                bytes=sum(file.stat().st_size for file in files),
                tally=asdict(tally),
            )
            every = sorted((*self._manifest.segments, segment), key=lambda one: one.start)
            manifest = replace(self._manifest, segments=tuple(every))
            if every[-1] is segment:
                ends = end == self._plan.stretch.end  # others make what follows
                kept = None if rest is None or ends else save_rest(self._folder, rest)
                manifest = replace(manifest, rest=kept)
            manifest.save(self._folder)
            self._manifest = manifest
            tidy_rests(self._folder, manifest.rest)
        self.tally.merge(tally)

    def _check_source(self) -> None:
        """Raises MediaError for a video that was replaced: its sound, which is read at the end,
        does not belong to the frames that were made."""
        source = self._plan.source
        ends = video_ends(source.path, source.files)
        if ends is not None and ends != self._ends:
            self._replaced = True
            raise MediaError(
                f"{source.path} was changed while it was read: put back what it was, or give "
                "`restart` to begin anew"
            )

    def _windows_before(self, end: int) -> tuple[tuple[tuple[int, int], ...], Tally]:
        """Windows that ran since the last segment and begin before `end`, and what that took."""
        inside = sorted(start for start in self._windows if start < end)
        found = [(start, *self._windows.pop(start)) for start in inside]
        tally = Tally()
        for _, _, computed in found:
            tally.merge(computed)
        return tuple((start, stop) for start, stop, _ in found), tally

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._hold:
            try:
                if error is None:
                    self._complete()
            except BaseException as late:
                error = late
                raise
            finally:
                if error is not None:
                    self._leave(error)
        remove_lock(self._folder)

    def _complete(self) -> None:
        """Join the segments, which are all there, and check that they are; then the folder goes."""
        segments = self._manifest.segments
        if not segments:
            raise MediaError(f"no frame was written to {self._plan.target}")
        if any(self._manifest.holes()):
            raise MediaError(f"{self._folder} lacks frames: start the same job again")
        if not self._manifest.placing:
            check_free(self._plan.target, overwrite=self._plan.settings.overwrite)
            self._parts.join(
                [(segment.start, segment.end) for segment in segments],
                [segment.times for segment in segments],
            )
            self._manifest = replace(self._manifest, placing=True)
            with span("write"), media_errors(self._folder, "write"):
                self._manifest.save(self._folder)
        self._parts.place()
        self._placed = True
        remove_folder(self._folder)

    def _leave(self, error: BaseException) -> None:
        if self._open is not None:
            self._open.drop(error)
        kept = self._manifest.frames
        unwanted = isinstance(error, Cancelled) and not isinstance(error, Suspended)
        if unwanted or not kept or self._placed:
            remove_folder(self._folder)
            if self._placed:
                error.add_note(f"{self._plan.target} was finished before")
        else:
            again = "start the same job again to go on"
            if self._replaced:
                again = "they are of what it was"
            if lacks_memory(error):  # its advice makes it another job
                again = "with more memory free the same job goes on, another begins with `restart`"
            error.add_note(f"{kept} finished frames are kept in {self._folder}: {again}")


class _OpenSegment:
    """A segment that is being written."""

    def __init__(self, target: Target, first: Clip) -> None:
        self._target = target.__enter__()
        self.start = first.start
        self.times = first.times[0], first.times[-1]

    @property
    def frames(self) -> int:
        return self._target.written

    def write(self, clip: Clip) -> None:
        self._target.write(clip)
        self.times = self.times[0], clip.times[-1]

    def finish(self) -> None:
        self._target.__exit__(None, None, None)

    def drop(self, error: BaseException) -> None:
        self._target.__exit__(type(error), error, None)
