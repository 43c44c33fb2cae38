"""What the page shows of a job: the plainly upsampled input beside the result, frame by frame, and
where the model ran."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skipsr.backbones.contract import Upscaled, Upscaler
from skipsr.backbones.wrapper import UpscalerWrapper
from skipsr.clip import Clip
from skipsr.nn.resize import resize_bicubic
from skipsr.pipeline.plan import JobPlan
from skipsr.pipeline.still import enlarge_still, frames_around
from skipsr.settings import Codec, Encoding
from skipsr.skipping.compute_map import ComputeMap
from skipsr.video import SourceInfo, Target, open_source, open_target
from skipsr.video.images import write_image

Tell = Callable[[dict[str, Any]], None]
_PAUSE = 0.7  # seconds from one live picture to the next
_SUFFIX = {"h264": ".mp4", "av1": ".webm"}
_SHOWN_BITS = 8
_COPIED = 16  # frames at a time when a result is encoded anew for a browser


class Comparison:
    """Writes the input at the result's size, masks, times and live pictures. A context manager.

    Files, in the folder of the plan's target: `before` and, unless browsers can show the target
    itself, `after`, of one codec and with the same frame times; `mask.bin`, a byte for every cell
    of every frame, 255 where nothing was computed; `times.json`, the seconds of the frames.
    """

    def __init__(self, plan: JobPlan, tell: Tell, codec: str) -> None:
        self._plan, self._tell = plan, tell
        self._codec: Codec = "av1" if codec == "av1" else "h264"
        self._folder = plan.target.parent
        self._is_image = plan.source.kind == "image"
        self._times: list[int] = []
        self._shown = 0.0
        self._count = 0
        self.grid: dict[str, int] = {}
        """How the mask's cells lie on the picture: rows, columns, height and width."""
        self._open = ExitStack()

    def __enter__(self) -> "Comparison":
        with ExitStack() as opening:
            self._before = opening.enter_context(self._target("before", self._plan.source))
            self._mask = opening.enter_context((self._folder / "mask.bin").open("wb"))
            self._open = opening.pop_all()
        return self

    def __exit__(self, *fault: Any) -> None:
        self._open.__exit__(*fault)

    def add(self, clip: Clip, base: Clip, result: Upscaled) -> None:
        """Keep what is new in a window: the source's frames, upsampled, and the result."""
        new = self._before.written - clip.start
        fresh = replace(base, start=clip.start, times=clip.times).part(new, len(clip))
        if len(fresh):
            self._before.write(fresh)
            self._times += fresh.times
        now = time.monotonic()
        if not self._is_image and now - self._shown > _PAUSE:
            self._shown = now
            self._show(base, result)

    def note(self, result: Upscaled) -> None:
        """Keep the mask of a window; the later of two that share a frame counts."""
        masks, self.grid = _mask(result.compute_map)
        self._mask.seek(result.clip.start * masks[0].size)
        self._mask.write(masks.tobytes())

    def finish(self) -> dict[str, str]:
        """Complete the files, after the target is; says which there are, by what they are for."""
        self._open.close()
        info = self._plan.source
        seconds = [float((time - info.origin) * info.time_base) for time in self._times]
        (self._folder / "times.json").write_text(json.dumps(seconds))
        return {
            "before": self._path("before").name,
            "after": self._after().name,
            "mask": "mask.bin",
            "times": "times.json",
            "result": self._plan.target.name,
        }

    def _target(self, name: str, info: SourceInfo) -> Target:
        """A file that browsers show, of the result's size: without sound, and of 8 bits."""
        return open_target(
            self._path(name),
            replace(info, kind="frames", bits=8, light=None),
            self._plan.size,
            Encoding() if self._is_image else Encoding(codec=self._codec),
            overwrite=True,
        )

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{'.png' if self._is_image else _SUFFIX[self._codec]}"

    def _after(self) -> Path:
        """The target, or a copy where browsers cannot show it: hardly one has H.264 of 10 bits."""
        target, source = self._plan.target, self._plan.source
        if self._is_image or (self._codec == "h264" and source.bits <= _SHOWN_BITS):
            return target
        with open_source(target) as reader:
            own = replace(source, time_base=reader.info.time_base, origin=reader.info.origin)
            with self._target("after", own) as writer:
                for clip in reader.clips(_COPIED, 0):
                    writer.write(clip)
        return self._path("after")

    def _show(self, base: Clip, result: Upscaled) -> None:
        self._count += 1
        middle = len(base) // 2
        for name, clip in (("before", base), ("after", result.clip)):
            part = self._folder / f"live-{name}.part.jpg"
            write_image(part, clip.part(middle, middle + 1).to_array()[0], None)
            with suppress(PermissionError):  # on Windows, while the one before is being sent
                part.replace(self._folder / f"live-{name}.jpg")
        self._tell({"live": self._count})


class Watched(UpscalerWrapper):
    """An upscaler that shows its windows, with their upsampled input, to somebody as it goes."""

    def __init__(self, inner: Upscaler, show: Callable[[Clip, Clip, Upscaled], None]) -> None:
        super().__init__(inner)
        self._show = show

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        result = super().upscale(clip, size, seed=seed)
        self._show(clip, Clip(resize_bicubic(clip.frames, size), clip.start), result)
        return result


def preview_frame(plan: JobPlan, upscaler: Upscaler, frame: int, tell: Tell) -> dict[str, Any]:
    """Write one frame, upsampled and enlarged with its neighbours, and its mask."""
    tell({"stage": "read"})
    clip, place = frames_around(plan.source, frame, plan.shots, plan.window)
    tell({"stage": "compute"})
    still = enlarge_still(clip, place, upscaler, plan.size, plan.settings.seed)
    folder = plan.target.parent
    for name, shown in zip(("before", "after"), still.sides, strict=True):
        write_image(folder / f"preview-{name}.png", shown.to_array()[0], None)
    masks, grid = _mask(still.result.compute_map)
    (folder / "preview-mask.bin").write_bytes(masks[place].tobytes())
    return {"frame": still.frame, "grid": grid}


def _mask(computed: ComputeMap) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], dict[str, int]]:
    """What was left out of each cell, 0 to 255, `t h w`; and how cells lie on the picture."""
    left = computed.fractions.neg().add(1).mul(255).round_().numpy().astype(np.uint8)
    rows, columns = left.shape[1:]
    height, width = computed.cell_size
    return left, {"rows": rows, "columns": columns, "height": height, "width": width}
