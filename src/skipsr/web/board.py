"""The job queue: uploaded files, their results, and the order in which they run."""

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from skipsr.web.errors import UNFORESEEN, RequestError
from skipsr.web.form import Asked
from skipsr.web.process import JobError, Worker
from skipsr.web.settings import Caps

log = logging.getLogger(__name__)
State = Literal["ready", "queued", "running", "done", "failed", "cancelled"]
Kind = Literal["upscale", "preview"]
_KEPT = ("source", "poster")  # of a job's files, when what was made of it goes
_BEFORE = ("load", "read")  # stages before anything is computed
_OF_PREVIEWS = "preview-"


@dataclass(slots=True, kw_only=True)
class Job:
    """A file and what is made of it. Everything lies in a folder of its own."""

    id: str
    name: str  # as its owner calls it: shown, never a path
    folder: Path
    source: Path
    info: Mapping[str, Any]  # kind, width, height, frames, rate
    state: State = "ready"
    doing: Kind = "upscale"
    asked: Mapping[str, object] = field(default_factory=dict[str, object])
    progress: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])
    error: str = ""
    result: dict[str, Any] | None = None  # grid of the mask, report, asked
    preview: dict[str, Any] | None = None  # frame, grid, asked
    live: int = 0  # pictures shown so far
    began: float = 0.0  # computing, after the model was loaded; 0 before
    version: int = 0  # of the files, so that browsers do not show old ones
    files: dict[str, str] = field(default_factory=dict[str, str])  # names in the folder, by role
    touched: float = field(default_factory=time.monotonic)

    @property
    def is_active(self) -> bool:
        return self.state in ("queued", "running")

    def shown(self, place: int | None) -> dict[str, Any]:
        """What pages are told."""
        own = ("id", "name", "info", "state", "doing", "asked", "progress", "notes", "error",
               "result", "preview", "live", "version")  # fmt: skip
        computes = self.state == "running" and self.began > 0
        seconds = time.monotonic() - self.began if computes else 0.0
        return {name: getattr(self, name) for name in own} | {"place": place, "seconds": seconds}


@dataclass(frozen=True, slots=True)
class _Turn:
    job: Job
    request: Mapping[str, object]


class Board:
    """Runs queued jobs one after the other in a worker, and wakes listeners when one changes."""

    def __init__(self, folder: Path, caps: Caps, worker: Worker) -> None:
        self.folder, self.caps = folder, caps
        self.version = 0
        self.worker = worker
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[_Turn] = deque()
        self._current: tuple[Job, asyncio.Task[dict[str, Any]]] | None = None
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def new_folder(self) -> Path:
        """An empty folder under a name that cannot be guessed."""
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        self.tell()

    def find(self, id: str) -> Job:
        """Raises RequestError for one that is not there."""
        if id not in self._jobs:
            raise RequestError(404, "there is no such job: it was removed, or the server restarted")
        return self._jobs[id]

    def shown(self) -> list[dict[str, Any]]:
        """What pages are told, the newest job first."""
        places = {turn.job.id: place for place, turn in enumerate(self._waiting, 1)}
        return [job.shown(places.get(job.id)) for job in reversed(self._jobs.values())]

    def start(self, job: Job, kind: Kind, asked: Asked, more: Mapping[str, object]) -> None:
        """Put a job in the queue; a preview goes before whole files."""
        if job.is_active:
            raise RequestError(409, f"{job.name} is being worked on already: wait, or cancel it")
        if len(self._waiting) >= self.caps.waiting:
            raise RequestError(
                429, f"{self.caps.waiting} jobs wait already: try again after one of them"
            )
        self._clear(job, "preview" if kind == "preview" else "all")
        job.state, job.doing, job.asked, job.error = "queued", kind, asked.given, ""
        job.notes, job.progress, job.live = [], {}, 0
        job.version += 1
        paths = {"source": str(job.source), "folder": str(job.folder)}
        turn = _Turn(job, {"do": kind, **paths, **asked.told, **more})
        if kind == "preview":
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        self.tell()

    async def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or end it at once."""
        self._waiting = deque(turn for turn in self._waiting if turn.job is not job)
        if self._current is not None and self._current[0] is job:
            task = self._current[1]
            task.cancel()
            await asyncio.wait([task])
        if job.is_active:
            self._end(job, "cancelled")

    async def remove(self, job: Job) -> None:
        """Delete a job and its files."""
        self._jobs.pop(job.id, None)  # first: nobody starts it any more
        await self.cancel(job)
        shutil.rmtree(job.folder, ignore_errors=True)
        self.tell()

    async def remove_old(self) -> None:
        """Delete what nobody touched for as long as jobs are kept."""
        before = time.monotonic() - self.caps.keep_seconds
        for job in [job for job in self._jobs.values() if job.touched < before]:
            if not job.is_active:
                await self.remove(job)

    async def work(self) -> None:
        """Run jobs as they come, forever."""
        while True:
            while not self._waiting:
                await self.changed(self.version)
            turn = self._waiting.popleft()
            await self._run(turn)

    async def changed(self, version: int) -> None:
        """Wait until there is a later version than this."""
        while self.version == version:
            await self._changed.wait()

    async def _run(self, turn: _Turn) -> None:
        job = turn.job
        task = asyncio.create_task(
            self.worker.ask(turn.request, lambda event: self._note(job, event))
        )
        self._current = job, task
        job.state = "running"
        job.progress, job.began = {"stage": "load"}, 0.0
        self.tell()
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            self._current = None
        if task.cancelled() or not job.is_active:
            if job.is_active:  # else whoever cancelled it was first
                self._end(job, "cancelled")
        elif (problem := task.exception()) is None:
            self._finish(job, task.result())
        else:
            if not isinstance(problem, JobError):
                log.error("a job failed", exc_info=problem)
                problem = UNFORESEEN
            job.error = _by_name(str(problem), job)
            self._end(job, "failed")
        with contextlib.suppress(OSError):  # the next job tries again, and says why it fails
            await self.worker.start()

    def _note(self, job: Job, event: dict[str, Any]) -> None:
        """Something happened in the worker."""
        match event:
            case {"note": str(text)}:
                note = _by_name(text, job)
                if note not in job.notes:
                    job.notes.append(note)
            case {"live": int(count)}:
                job.live = count
                job.files |= {f"live-{side}": f"live-{side}.jpg" for side in ("before", "after")}
            case _:
                job.progress |= event
                begins = event.get("done") or event.get("stage") not in _BEFORE
                if begins and not job.began:
                    job.began = time.monotonic()
        self.tell()

    def _finish(self, job: Job, answer: dict[str, Any]) -> None:
        if job.doing == "preview":
            job.preview = answer | {"asked": job.asked}
            job.files |= {f"preview-{side}": f"preview-{side}.png" for side in ("before", "after")}
            job.files["preview-mask"] = "preview-mask.bin"
            self._end(job, "ready")
            return
        job.files |= answer.pop("files")
        job.result = answer | {"asked": job.asked}
        self._end(job, "done")

    def _end(self, job: Job, state: State) -> None:
        if job.doing == "preview":  # whatever became of it, the job is as it was before
            state = "done" if job.result else "ready"
        elif state != "done":
            self._clear(job, "all")
        job.state, job.touched = state, time.monotonic()
        self.tell()

    def _clear(self, job: Job, what: Literal["all", "preview"]) -> None:
        """Delete what was made of a file, or its preview alone."""
        job.preview = None
        if what == "all":
            job.result = None
        gone = {
            role: name
            for role, name in job.files.items()
            if role not in _KEPT and (what == "all" or role.startswith(_OF_PREVIEWS))
        }
        for role in gone:
            del job.files[role]
        kept = {*job.files.values(), job.source.name}
        for path in job.folder.iterdir():
            if path.name not in kept:  # a killed worker leaves parts under names of its own
                with contextlib.suppress(OSError):
                    path.unlink()

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _by_name(text: str, job: Job) -> str:
    """A sentence about a file, under the name that its owner knows."""
    return text.replace(str(job.source), job.name).replace(str(job.folder), "its folder")
