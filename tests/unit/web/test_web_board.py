"""What pages are told of a job while it runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from skipsr.web import board
from skipsr.web.board import Board, Job
from skipsr.web.form import Asked
from skipsr.web.process import Worker
from skipsr.web.settings import Caps


def test_the_time_left_is_told_by_computing_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not by loading the model and reading, which come once, and before."""
    now = 100.0
    told: list[float] = []

    class Pretended:
        async def start(self) -> None:
            """It is there."""

        async def ask(self, _: object, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
            nonlocal now
            for stage, done in (("load", 0), ("read", 0), ("need", 0), ("read", 4), ("write", 8)):
                now += 10
                tell({"stage": stage, "frames": 0, "of": 40, "done": done})
                told.append(job.shown(None)["seconds"])
            return {"files": {}}

    monkeypatch.setattr(board, "time", SimpleNamespace(monotonic=lambda: now))
    job = Job(id="a", name="a", folder=tmp_path, source=tmp_path / "a", info={})

    async def run() -> None:
        own = Board(tmp_path, Caps(), cast(Worker, Pretended()))
        own.add(job)
        own.start(job, "upscale", cast(Asked, SimpleNamespace(given={}, told={})), {})
        working = asyncio.create_task(own.work())
        while job.state != "done":
            await own.changed(own.version)
        working.cancel()

    asyncio.run(run())
    assert told == [0, 0, 0, 10, 20]
