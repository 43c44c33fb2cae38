"""The process that reads files and runs models, so that it can be killed: one request a line in,
messages a line each out, as JSON.

A request is `{"do": NAME, ...}`. Messages are `{"event": {...}}`, any number of them, then
`{"answer": {...}}` or `{"error": SENTENCE}`.
"""

import dataclasses
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from skipsr.backbones.contract import Upscaler
from skipsr.catalog import list_models
from skipsr.clip import Clip
from skipsr.errors import MediaError, SkipsrError, lacks_memory
from skipsr.held import Held
from skipsr.loading import BUNDLED, Model, find_model
from skipsr.memory import ask_for_huge_pages
from skipsr.pipeline.job import Progress, run_job
from skipsr.pipeline.plan import JobPlan, plan_job
from skipsr.settings import AUTO, JobSettings, RuntimeSettings, SkipSettings
from skipsr.video import SourceInfo, open_source, probe
from skipsr.video.header import read_header
from skipsr.video.images import write_image
from skipsr.web.comparison import Comparison, Watched, preview_frame
from skipsr.web.errors import UNFORESEEN
from skipsr.web.settings import Caps

Tell = Callable[[dict[str, Any]], None]
Answer = dict[str, Any]
_PAUSE = 0.1  # seconds from one stage that is told to the next
_POSTER = 48  # the last frame that is shown of a file before anything is made of it
_NO_MEMORY = "out of memory: give a smaller `scale` or `height`"


class Studio:
    """Handles requests; the model of the last one stays loaded."""

    def __init__(self, runtime: RuntimeSettings) -> None:
        self._runtime = runtime
        self._held = Held()

    def models(self, _request: Mapping[str, Any], _tell: Tell) -> Answer:
        """The models that can be run here, the one that is meant by default first."""
        names = [model.name for model in list_models() if model.bundled]
        offered = dict.fromkeys((self._first or BUNDLED, BUNDLED, *names))
        return {"models": [*offered]}

    def look(self, request: Mapping[str, Any], _tell: Tell) -> Answer:
        """What a file is, if it is within the caps; writes a frame of it as `poster.jpg`."""
        path, caps = Path(request["source"]), Caps(**request["caps"])
        header = read_header(path)
        _check(path, header.pixels, header.seconds, caps)
        if header.streams > caps.streams:
            raise MediaError(
                f"{path} has {header.streams} streams, more than the {caps.streams} that are taken "
                "here"
            )
        info = probe(path)
        _check(path, info.width * info.height, float(info.frames / info.rate), caps)
        if info.frames > caps.frames:
            raise MediaError(
                f"{path} has {info.frames} frames, more than the {caps.frames} that are taken here"
            )
        shown = _poster(info)
        write_image(Path(request["folder"]) / "poster.jpg", shown.to_array()[0], None)
        return {
            "poster": shown.start,
            "kind": info.kind,
            "width": info.width,
            "height": info.height,
            "frames": info.frames,
            "rate": float(info.rate),
        }

    def upscale(self, request: Mapping[str, Any], tell: Tell) -> Answer:
        """The whole file, and what is shown of it beside the input."""
        tell({"stage": "load"})
        model = self._find(request)
        plan = _plan(request, model, "result")
        upscaler = self._load(request, model, plan)
        with Comparison(plan, tell, request["codec"]) as comparison:
            watch = _Watch(tell)
            report = run_job(plan, Watched(upscaler, comparison.add), watch, comparison.note)
            tell({"stage": "finish"})
            files = comparison.finish()
        return {
            "files": files,
            "grid": comparison.grid,
            "report": json.loads(report.to_json()),
        }

    def preview(self, request: Mapping[str, Any], tell: Tell) -> Answer:
        """One frame of a video."""
        tell({"stage": "load"})
        model = self._find(request)
        plan = _plan(request, model, "preview")
        upscaler = self._load(request, model, plan)
        return preview_frame(plan, upscaler, int(request["frame"]), tell)

    @cached_property
    def _first(self) -> str | None:
        """The model whose files were given."""
        return find_model(AUTO, self._runtime).name if self._runtime.weights is not None else None

    def _find(self, request: Mapping[str, Any]) -> Model:
        """The model that is asked for; the files that were given are those of one alone."""
        name, runtime = request["model"], self._runtime
        if name != self._first:
            runtime = dataclasses.replace(runtime, weights=None)
        return find_model(name, runtime, request["options"])

    def _load(self, request: Mapping[str, Any], model: Model, plan: JobPlan) -> Upscaler:
        asked = request["model"], request["options"]
        return self._held.upscaler(asked, model, SkipSettings(**request["skip"]), plan.memory)


def _poster(info: SourceInfo) -> Clip:
    """A frame to show: not the first, which is black often, unless later ones cannot be read."""
    with open_source(info) as reader:
        try:
            return next(reader.clips(1, 0, first=min(info.frames // 2, _POSTER)))
        except MediaError:
            return next(reader.clips(1, 0))


def _plan(request: Mapping[str, Any], model: Model, name: str) -> JobPlan:
    info = probe(Path(request["source"]))
    suffix = ".png" if info.kind == "image" else ".mp4"
    job = JobSettings(**request["job"], overwrite=True)
    return plan_job(info, Path(request["folder"]) / f"{name}{suffix}", model.limits, job)


class _Watch:
    """Passes progress on: all frames, and of stages, which may last microseconds, some."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told, self._frames = 0.0, -1

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.frames != self._frames or now - self._told > _PAUSE:
            self._told, self._frames = now, progress.frames
            done = progress.frames + progress.ahead
            told = {"stage": progress.stage, "frames": progress.frames, "of": progress.of}
            self._tell({**told, "done": done})


class _Notes(logging.Handler):
    """Passes on what is said of a result, such as what it cannot keep."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell({"note": record.getMessage()})


def _check(path: Path, pixels: int, seconds: float, caps: Caps) -> None:
    if pixels > caps.pixels:
        raise MediaError(
            f"{path} has pictures of {pixels / 1e6:.0f} megapixels, more than the "
            f"{caps.pixels / 1e6:.0f} that are taken here"
        )
    if seconds > caps.seconds:
        raise MediaError(
            f"{path} lasts {seconds / 60:.0f} minutes, longer than the {caps.seconds / 60:.0f} "
            "that are taken here: cut it into parts"
        )


def answer(studio: Studio, request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """The last message to a request."""
    work = {
        "models": studio.models,
        "look": studio.look,
        "upscale": studio.upscale,
        "preview": studio.preview,
    }[request["do"]]
    notes = _Notes(tell)
    log = logging.getLogger("skipsr")
    log.addHandler(notes)
    try:
        return {"answer": work(request, tell)}
    except SkipsrError as error:
        return {"error": " ".join(str(error).split())}
    except OSError as error:
        return {"error": f"{error.filename or 'file system'}: {error.strerror or error}"}
    except Exception as error:
        if lacks_memory(error):
            return {"error": _NO_MEMORY}
        traceback.print_exc()
        return {"error": UNFORESEEN}
    finally:
        log.removeHandler(notes)


def main(runtime: str) -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this
    out = _take_stdout()

    def send(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    told = json.loads(runtime)
    weights = None if told["weights"] is None else Path(told["weights"])
    studio = Studio(RuntimeSettings(**told | {"weights": weights}))
    try:
        for line in sys.stdin:
            send(answer(studio, json.loads(line), lambda event: send({"event": event})))
    except BrokenPipeError:  # the server is gone
        os._exit(1)


def _take_stdout() -> TextIO:
    """The way out, for messages alone: what libraries print goes to stderr."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(own, "w", encoding="utf-8")


if __name__ == "__main__":
    ask_for_huge_pages()
    main(sys.argv[1])
