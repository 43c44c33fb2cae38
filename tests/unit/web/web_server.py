"""A server for tests, without a network: requests are given to the application itself.

They are given asynchronously, so that uploads can stand still in the middle and be many at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from skipsr.settings import RuntimeSettings
from skipsr.web.app import Server, make_app
from skipsr.web.settings import Caps

T = TypeVar("T")
HOME = "http://127.0.0.1:7860"


@dataclass
class Web:
    server: Server
    client: httpx.AsyncClient
    run: Callable[[Awaitable[Any]], Any]

    @property
    def folder(self) -> Path:
        return self.server.board.folder

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.run(self.client.get(path, headers=headers))

    def post(self, path: str, answers: object = None, **headers: str) -> httpx.Response:
        return self.run(self.client.post(path, json=answers or {}, headers=headers))

    def send(self, name: str, body: bytes | AsyncIterator[bytes]) -> httpx.Response:
        return self.run(self.client.post("/api/files", params={"name": name}, content=body))

    def add(self, path: Path) -> dict[str, Any]:
        """The job of a file that is taken."""
        answer = self.send(path.name, path.read_bytes())
        assert answer.status_code == 201, answer.text
        return answer.json()

    def job(self, id: str) -> dict[str, Any]:
        return next(job for job in self.get("/api/jobs").json()["jobs"] if job["id"] == id)

    def until(self, id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The job, as soon as that holds."""

        async def wait() -> None:
            async with asyncio.timeout(60):
                while not holds(self.server.board.find(id).shown(None)):
                    await self.server.board.changed(self.server.board.version)

        self.run(wait())
        return self.job(id)

    def settled(self, id: str) -> dict[str, Any]:
        return self.until(id, lambda job: job["state"] not in ("queued", "running"))

    def upscaled(self, id: str, **answers: object) -> dict[str, Any]:
        started = self.post(f"/api/jobs/{id}/upscale", answers)
        assert started.status_code == 202, started.text
        return self.settled(id)

    def left(self) -> list[Path]:
        """All files of all jobs."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@contextmanager
def serving(folder: Path, caps: Caps | None = None, token: str | None = None) -> Iterator[Web]:
    """A server that runs until the block ends."""
    with asyncio.Runner() as runner:

        def run(waited: Awaitable[T]) -> T:
            async def wait() -> T:
                return await waited

            return runner.run(wait())

        async def make() -> Server:
            return Server(folder, caps or Caps(), RuntimeSettings(device="cpu"))

        server = run(make())
        transport = httpx.ASGITransport(make_app(server, token))
        client = httpx.AsyncClient(
            transport=transport, base_url=HOME, headers={"origin": HOME}, timeout=60
        )
        running = server.running()
        run(running.__aenter__())
        try:
            yield Web(server, client, run)
        finally:
            run(client.aclose())
            run(running.__aexit__(None, None, None))
