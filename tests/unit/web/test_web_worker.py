"""The process behind the page, as its server sees it."""

import asyncio

import pytest

from skipsr.settings import RuntimeSettings
from skipsr.web.errors import UNFORESEEN
from skipsr.web.process import JobError, Worker


def test_after_a_fault_of_the_program_a_fresh_process_goes_on():
    """A CUDA error, for one, stays in the process that had it."""

    async def ask() -> tuple[int | None, int | None]:
        worker = Worker(RuntimeSettings(device="cpu"))
        try:
            assert (await worker.ask({"do": "models"}))["models"]
            first = worker.pid
            with pytest.raises(JobError, match=UNFORESEEN):
                await worker.ask({"do": "upscale"})  # of nothing: it stumbles over that
            assert (await worker.ask({"do": "models"}))["models"]
            return first, worker.pid
        finally:
            await worker.kill()

    first, second = asyncio.run(ask())
    assert first != second
