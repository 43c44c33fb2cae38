"""The server's side of a worker process: one request at a time; it is killed to cancel one."""

import asyncio
import dataclasses
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from typing import Any

from skipsr.errors import SkipsrError
from skipsr.settings import RuntimeSettings
from skipsr.web.errors import UNFORESEEN

_LONGEST_LINE = 2**22  # bytes of a message


class JobError(SkipsrError):
    """What was asked cannot be done; the message says why."""


class Worker:
    """Starts `skipsr.web.worker` when it is needed, and again after it was killed."""

    def __init__(self, runtime: RuntimeSettings) -> None:
        self._runtime = json.dumps(dataclasses.asdict(runtime), default=str)
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._process.pid if self._process is not None else None

    async def ask(
        self,
        request: Mapping[str, object],
        tell: Callable[[dict[str, Any]], None] = lambda _: None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """The answer; `tell` is told what happens before it. Cancelling this kills the process.

        Raises:
            JobError: with a sentence, for what cannot be done.
            TimeoutError: if it takes longer than `seconds`.
        """
        async with self._turn, asyncio.timeout(seconds):
            try:
                return await self._ask(request, tell)
            except JobError:
                raise
            except BaseException:
                await self.kill()
                raise

    async def start(self) -> None:
        """Start the process before it is asked anything: it takes seconds."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "skipsr.web.worker", self._runtime),
                stdin=PIPE,
                stdout=PIPE,
                limit=_LONGEST_LINE,
            )

    async def kill(self) -> None:
        """End the process, whatever it does; when this returns it no longer writes anything."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _ask(
        self, request: Mapping[str, object], tell: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        await self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
            while line := await process.stdout.readline():
                message = json.loads(line)
                if "event" in message:
                    tell(message["event"])
                elif "answer" in message:
                    return message["answer"]
                else:
                    if message["error"] == UNFORESEEN:
                        await self.kill()  # whatever is wrong in it, a fresh process has it not
                    raise JobError(message["error"])
        except ConnectionError:
            pass
        await self.kill()
        raise JobError(
            "the process that did this ended at once, most likely for want of memory: give a "
            "smaller `scale` or `height`"
        )
