"""One frame of a source, upsampled and enlarged, to look at before a whole job is begun."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch

from skipsr.backbones.contract import Upscaled, Upscaler, arranged
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.limits import Limits
from skipsr.nn.resize import resize_bicubic
from skipsr.pipeline.job import Progress
from skipsr.pipeline.plan import JobPlan, checked_target, plan_frames
from skipsr.settings import JobSettings
from skipsr.shots import Shots
from skipsr.tracing import Trace
from skipsr.video import SourceInfo, open_source, open_target, probe, target_kind

_BEFORE, _LENGTH = 4, 9  # frames that are run: as many before the one that is asked for, and in all


@dataclass(frozen=True, slots=True)
class Still:
    """A frame and its neighbours, upsampled and enlarged; `place` is where it is among them."""

    place: int
    base: Clip
    result: Upscaled

    @property
    def frame(self) -> int:
        """Its index in the source."""
        return self.base.start + self.place

    @property
    def sides(self) -> tuple[Clip, Clip]:
        """The frame alone: upsampled, and enlarged."""
        clips = self.base, self.result.clip
        before, after = (clip.part(self.place, self.place + 1) for clip in clips)
        return before, after


@dataclass(frozen=True, slots=True, kw_only=True)
class StillReport:
    """What a preview showed, and what it says of the whole job."""

    model: str
    frame: int
    at: float  # seconds at which it is shown
    width: int  # of the enlarged frame
    height: int
    computed: float  # share of the model's units that ran for it and its neighbours
    seconds_per_frame: float  # that these took; a model is slowest when it begins
    job_seconds: float  # that all frames would take so

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def plan_still(source: Path, target: Path, limits: Limits, settings: JobSettings) -> JobPlan:
    """The plan of a whole job whose target is an image, for one frame of it.

    Raises:
        MediaError, SettingsError: as `plan_job`.
    """
    if target_kind(target) != "image":
        raise SettingsError(f"{target} is no image: give a name such as {target.stem}.png")
    info = probe(source, settings.deinterlace, rate=settings.rate)
    target = checked_target(target, replace(info, frames=1), settings)
    plan = plan_frames(info, limits, settings, frames=min(_LENGTH, info.frames))
    return replace(plan, target=target)


def preview_still(
    plan: JobPlan,
    upscaler: Upscaler,
    seconds: Fraction | None = None,
    watch: Callable[[Progress], None] = lambda _: None,
) -> StillReport:
    """Write one frame twice, side by side: upsampled, and enlarged by the model.

    Args:
        plan: see `plan_still`.
        seconds: at which the frame is shown; None: in the middle of the source.

    Raises:
        MediaError: when the source cannot be read or the target not written.
        SettingsError: for a time beyond the end.
    """
    info = plan.source

    def tell(stage: str) -> None:
        watch(Progress(stage, 0, 1, trace.share))

    with arranged(upscaler, plan.memory), Trace(tell, upscaler.device) as trace:
        frame = info.frames // 2 if seconds is None else frame_at(info, seconds)
        clip, place = frames_around(info, frame, plan.shots, plan.window)
        began = time.perf_counter()
        still = enlarge_still(clip, place, upscaler, plan.size, plan.settings.seed)
        each = (time.perf_counter() - began) / len(clip)
        before, after = still.sides
        both = Clip(torch.cat((before.frames, after.frames), 3), still.frame)
        size = plan.size[0], 2 * plan.size[1]
        alone = replace(info, frames=1, transparent=False)  # no image's transparency fits both
        with open_target(plan.target, alone, size, overwrite=plan.settings.overwrite) as target:
            target.write(both)
    return StillReport(
        model=upscaler.name,
        frame=still.frame,
        at=round(float((clip.times[place] - info.origin) * info.time_base), 3),
        width=plan.size[1],
        height=plan.size[0],
        computed=round(still.result.computed, 4),
        seconds_per_frame=round(each, 3),
        job_seconds=round(each * info.frames, 1),
    )


def frame_at(info: SourceInfo, seconds: Fraction) -> int:
    """The index of the frame that is shown at a time of the source.

    Raises:
        MediaError: if the source cannot be read.
        SettingsError: for a time that it does not reach.
    """
    start = (info.first_time - info.origin) * info.time_base
    end = start + info.frames / info.rate
    if info.last_time is not None:
        last = (info.last_time - info.origin + (info.last_duration or info.step)) * info.time_base
        end = max(last, start)
    if seconds > end:
        raise SettingsError(
            f"`at` {float(seconds):g} is beyond the end of {info.path}: give 0 to "
            f"{float(end):.2f} seconds"
        )
    if info.constant_rate:
        return max(0, min(info.frames - 1, int((seconds - start) * info.rate)))
    count = 0
    with open_source(info) as reader:
        for frame, _ in reader.frames():
            if (frame.time - info.origin) * info.time_base > seconds:
                break
            count += 1
    return max(0, count - 1)


def frames_around(
    info: SourceInfo, frame: int, shots: Shots, most: int = _LENGTH
) -> tuple[Clip, int]:
    """A clip around a frame of a source, and the frame's place in it.

    Args:
        frame: its index; one beyond the end stands for the last frame.
        most: frames of the clip, which are all of one shot.

    Raises:
        MediaError: if the source cannot be read.
    """
    first = max(0, min(frame, info.frames - 1) - _BEFORE)
    clip: Clip | None = None
    with open_source(info) as reader:
        while clip is None:
            for clip in reader.clips(min(most, _LENGTH), 0, shots, first):
                if frame < clip.end:
                    break
            first = 0
    return clip, min(frame - clip.start, len(clip) - 1)


def enlarge_still(
    clip: Clip, place: int, upscaler: Upscaler, size: tuple[int, int], seed: int
) -> Still:
    """Both ways to `size`, `(height, width)`."""
    plain = Clip(resize_bicubic(clip.frames, size), clip.start)
    return Still(place, plain, upscaler.upscale(clip, size, seed=seed))
