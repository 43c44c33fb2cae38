"""The web application: pages, files, and what may be asked of jobs."""

import asyncio
import contextlib
import dataclasses
import json
import mimetypes
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from skipsr.errors import SettingsError, SkipsrError
from skipsr.settings import RuntimeSettings
from skipsr.web.board import Board, Job
from skipsr.web.errors import RequestError
from skipsr.web.form import PREVIEW_CODECS, Asked, OfferedModel, controls, read_form
from skipsr.web.guard import Guard
from skipsr.web.process import Worker
from skipsr.web.settings import Caps
from skipsr.web.upload import receive, shown_name, source_name

_PAGE = Path(__file__).parent / "page"
_SAMPLE = "sample.mp4"
_LARGEST_FORM = 10_000  # bytes
_BEAT = 15.0  # seconds after which a silent stream says that it is alive
_PACE = 0.15  # seconds between two messages of a stream
_SWEEP = 60.0  # seconds from one look for old jobs to the next
_EVENTS = {"x-accel-buffering": "no"}  # or nginx keeps them back
_FILES = {"cache-control": "private, max-age=86400"}  # their addresses have a version


class Server:
    """What routes need: the board, two workers, and what is going on.

    One worker runs models; the other looks at files that come in meanwhile. Both can be killed.
    """

    def __init__(self, folder: Path, caps: Caps, runtime: RuntimeSettings) -> None:
        self.caps = caps
        self._looker, self._runner = Worker(runtime), Worker(runtime)
        self.board = Board(folder, caps, self._runner)
        self._closing = False
        self._models: asyncio.Task[list[OfferedModel]] | None = None
        self._receiving = 0
        self._listening = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Starts the workers, and ends them. The folder of all jobs goes with them."""
        await self._runner.start()
        tasks = [
            asyncio.create_task(forever)
            for forever in (self.board.work(), self._sweep(), self.models())
        ]
        try:
            yield
        finally:
            self.close()
            ending = [*tasks, *([self._models] if self._models else [])]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            await self._looker.kill()
            await self._runner.kill()
            shutil.rmtree(self.board.folder, ignore_errors=True)

    def close(self) -> None:
        """End what would go on forever: streams of events."""
        self._closing = True
        self.board.tell()

    async def models(self) -> list[OfferedModel]:
        """What can be asked for; found once, or again where that failed."""
        if self._models is None or (self._models.done() and self._models.exception()):
            self._models = asyncio.create_task(self._find_models())
        return await asyncio.shield(self._models)

    async def options(self, _request: Request) -> Response:
        """The form, and what is taken."""
        models = await self.models()
        return JSONResponse(
            {
                "models": [{"name": model.name} for model in models],
                "controls": controls(models),
                "codecs": PREVIEW_CODECS,
                "upload_bytes": self.caps.upload_bytes,
                "keep_hours": self.caps.keep_seconds / 3600,
            }
        )

    async def jobs(self, _request: Request) -> Response:
        return JSONResponse(self._snapshot())

    async def events(self, _request: Request) -> Response:
        """All jobs, again whenever something changes: server-sent events."""
        if self._listening >= self.caps.listeners:
            raise RequestError(503, f"{self.caps.listeners} pages are open already: close one")
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=_EVENTS)

    async def upload(self, request: Request) -> Response:
        """A file, as the body; `?name=` is what its owner calls it."""
        name = shown_name(request.query_params.get("name", ""))
        return await self._take(name, request.stream(), request.headers)

    async def sample(self, _request: Request) -> Response:
        """The clip that comes with the package."""

        async def clip() -> AsyncGenerator[bytes]:
            yield resources.files("skipsr.assets").joinpath(_SAMPLE).read_bytes()

        return await self._take(_SAMPLE, clip(), {})

    async def upscale(self, request: Request) -> Response:
        """Put a job in the queue."""
        answers, models = await _form(request), await self.models()
        job = self._job(request)  # nothing is waited for from here on: it may be removed then
        codec = answers.pop("codec", PREVIEW_CODECS[0])
        if codec not in PREVIEW_CODECS:
            raise SettingsError(f"results are shown as {' or '.join(PREVIEW_CODECS)}")
        asked = self._asked(job, answers, models)
        self.board.start(job, "upscale", asked, {"codec": codec})
        return JSONResponse(job.shown(None), 202)

    async def preview(self, request: Request) -> Response:
        """Put one frame of a job at the head of the queue."""
        answers, models = await _form(request), await self.models()
        job = self._job(request)
        frame = answers.pop("frame", 0)
        is_index = isinstance(frame, int) and not isinstance(frame, bool)
        if not (is_index and 0 <= frame < job.info["frames"]):
            raise SettingsError(f"there is no such frame: give 0 to {job.info['frames'] - 1}")
        asked = self._asked(job, answers, models)
        self.board.start(job, "preview", asked, {"frame": frame})
        return JSONResponse(job.shown(None), 202)

    async def cancel(self, request: Request) -> Response:
        job = self._job(request)
        await self.board.cancel(job)
        return JSONResponse(job.shown(None))

    async def remove(self, request: Request) -> Response:
        await self.board.remove(self._job(request))
        return Response(status_code=204)

    async def file(self, request: Request) -> Response:
        """One of a job's files, by what it is for."""
        job, role = self._job(request), request.path_params["role"]
        path = job.folder / job.files.get(role, "none")
        if not path.is_file():
            raise RequestError(404, "there is no such file, or not yet")
        name = None
        if role == "result" and "download" in request.query_params:
            report = (job.result or {})["report"]
            stem = Path(job.name).stem
            name = f"{stem}-{report['width']}x{report['height']}{path.suffix}"
        return FileResponse(path, filename=name, headers=_FILES)

    def _job(self, request: Request) -> Job:
        return self.board.find(request.path_params["id"])

    async def _take(
        self, name: str, pieces: AsyncGenerator[bytes], headers: Mapping[str, str]
    ) -> Response:
        """Make a job of a file as it comes in."""
        with self._slot():
            folder = self.board.new_folder()
            try:
                source = folder / source_name(name)
                await receive(pieces, headers, source, self.caps)
                job = await self._look(name, folder, source)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self.board.add(job)
        return JSONResponse(job.shown(None), 201)

    def _asked(self, job: Job, answers: dict[str, object], models: list[OfferedModel]) -> Asked:
        asked = read_form(answers, models)
        height, width = asked.job.size(job.info["height"], job.info["width"])
        if height * width > self.caps.pixels:
            raise SettingsError(
                f"the result would be {width}x{height}, more than the {self.caps.pixels / 1e6:.0f} "
                "megapixels that are made here: give a smaller `scale` or `height`"
            )
        return asked

    async def _look(self, name: str, folder: Path, source: Path) -> Job:
        """A job of a file that can be read, and is within the caps."""
        if not source.stat().st_size:
            raise RequestError(422, f"{name} is empty (0 bytes): choose another file")
        request = {
            "do": "look",
            "source": str(source),
            "folder": str(folder),
            "caps": dataclasses.asdict(self.caps),
        }
        try:
            info = await self._looker.ask(request, seconds=self.caps.look_seconds)
        except TimeoutError:
            raise RequestError(
                422, f"{name} could not be understood in time: convert it first"
            ) from None
        except SkipsrError as error:
            raise RequestError(422, str(error).replace(str(source), name)) from error
        files = {"poster": "poster.jpg"}
        return Job(id=folder.name, name=name, folder=folder, source=source, info=info, files=files)

    @contextlib.contextmanager
    def _slot(self) -> Generator[None]:
        """A place for a file that comes in."""
        if self._receiving >= self.caps.uploads:
            raise RequestError(429, f"{self.caps.uploads} files come in already: wait for one")
        if len(self.board) + self._receiving >= self.caps.jobs:
            raise RequestError(429, f"{self.caps.jobs} files are kept already: remove one first")
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    async def _find_models(self) -> list[OfferedModel]:
        answer = await self._looker.ask({"do": "models"})
        return [OfferedModel(name=name) for name in answer["models"]]

    async def _sweep(self) -> None:
        while True:
            os.utime(self.board.folder)  # says that somebody still uses it
            await asyncio.sleep(_SWEEP)
            await self.board.remove_old()

    def _snapshot(self) -> dict[str, Any]:
        """`server` changes when it is started anew, and all jobs are gone."""
        return {"server": self.board.folder.name, "jobs": self.board.shown()}

    async def _stream(self) -> AsyncIterator[str]:
        self._listening += 1
        try:
            while not self._closing:
                version = self.board.version
                yield f"data: {json.dumps(self._snapshot())}\n\n"
                await asyncio.sleep(_PACE)
                while self.board.version == version:
                    try:
                        await asyncio.wait_for(self.board.changed(version), _BEAT)
                    except TimeoutError:
                        yield ": still here\n\n"
        finally:
            self._listening -= 1


async def _form(request: Request) -> dict[str, Any]:
    """A small JSON object."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LARGEST_FORM:
            raise RequestError(413, "that is no form of this page")
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestError(400, "that is no form of this page")
    return found


async def _refuse(_request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RequestError) else 400
    return JSONResponse({"error": " ".join(str(error).split())}, status)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _page(_request: Request) -> Response:
    return FileResponse(_PAGE / "index.html", headers={"cache-control": "no-cache"})


for _kind, _suffix in (
    ("text/javascript", ".js"),
    ("text/css", ".css"),
    ("image/svg+xml", ".svg"),
):
    mimetypes.add_type(_kind, _suffix)  # Windows has them from its registry, where anybody writes


def make_app(server: Server, token: str | None = None) -> Starlette:
    """The application; `token` is what browsers have to know."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with server.running():
            yield

    job = "/api/jobs/{id}"
    return Starlette(
        routes=[
            Route("/", _page),
            Mount("/page", StaticFiles(directory=_PAGE)),
            Route("/api/options", server.options),
            Route("/api/events", server.events),
            Route("/api/jobs", server.jobs),
            Route("/api/files", server.upload, methods=["POST"]),
            Route("/api/sample", server.sample, methods=["POST"]),
            Route(f"{job}/upscale", server.upscale, methods=["POST"]),
            Route(f"{job}/preview", server.preview, methods=["POST"]),
            Route(f"{job}/cancel", server.cancel, methods=["POST"]),
            Route(job, server.remove, methods=["DELETE"]),
            Route(job + "/{role}", server.file),
        ],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={SkipsrError: _refuse, ClientDisconnect: _gone},
        lifespan=lifespan,
    )
