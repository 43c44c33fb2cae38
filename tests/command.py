"""Runs of the command line.

Most are forked off one process that has torch loaded, to save the seconds of importing it; each is
still a process of its own, with files of its own as stdout and stderr. It ends as one does that
`multiprocessing` forks: threads, what is registered for the end, streams; modules are not torn
down, which would copy all of torch's memory.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

PLAIN = [sys.executable, "-c", "from skipsr.cli.main import main; main()"]
_SERVER = """
import atexit, gc, json, os, signal, sys, threading, traceback
import skipsr.backbones.basicvsr.backbone, skipsr.backbones.seedvr2.backbone
import skipsr.cli.progress, skipsr.loading, skipsr.pipeline.preview, skipsr.train.run
from skipsr.cli.main import main, parse
parse(["upscale", "in", "out"])
gc.freeze()  # or a child's collector writes to, and so copies, what it shares with this process
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        # even below a background job, which ignores Ctrl-C, or nohup
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.chdir(job["cwd"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = 1
        try:
            main(job["arguments"])
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines of stderr but those of the progress bar."""
        lines = [line for line in self.err.replace("\r", "\n").splitlines() if line.strip()]
        return [line for line in lines if "frames/s" not in line]

    @property
    def report(self) -> dict[str, Any]:
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


def plainly(*arguments: object, cwd: Path) -> Result:
    """Run the command from nothing."""
    done = subprocess.run(
        [*PLAIN, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=240
    )
    return Result(done.returncode, done.stdout, done.stderr)


def loaded_after(*codes: str) -> list[set[str]]:
    """Modules that are there when a fresh interpreter has run each, one after the other."""
    told = "import sys;" + ";".join(f"{code}; print(*sys.modules)" for code in codes)
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [set(line.split()) for line in done.stdout.splitlines()]


class Forks:
    """Run the command forked off a process that has its modules loaded. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._out, self._err = folder / "out", folder / "err"
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object, cwd: Path) -> Result:
        self.start(*arguments, cwd=cwd)
        return self.result()

    def start(self, *arguments: object, cwd: Path) -> int:
        """Returns the process's number; `result` has to follow before anything else is run."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "out": str(self._out),
            "err": str(self._err),
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def result(self) -> Result:
        assert self._server.stdout is not None
        code = int(self._server.stdout.readline())
        return Result(code, self._out.read_text(), self._err.read_text())

    def __enter__(self) -> "Forks":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.communicate()  # closes its input, which ends it
