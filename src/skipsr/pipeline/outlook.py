"""A dry run: sizes, windows and planned memory of a job, without loading a model."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from skipsr.errors import SettingsError
from skipsr.limits import Limits
from skipsr.memory import free_memory
from skipsr.pipeline.plan import JobPlan, plan_frames
from skipsr.settings import JobSettings
from skipsr.shots import FoundShots
from skipsr.video import check_format, default_suffix, probe, side_step

_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Sizes, windows and planned memory of a job; nothing of it was measured."""

    model: str
    device: str
    frames: int
    width: int
    height: int
    window: int  # frames that are run together
    overlap: int  # frames that neighbouring windows share
    windows: int
    peak_gib: float  # of the stage that takes most
    stages_gib: dict[str, float]
    host_gib: float  # beside a card's; 0 where all runs in the host's memory
    reasons: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a terminal, a choice a line."""
        stages = ", ".join(f"{stage} {size:.1f}" for stage, size in self.stages_gib.items())
        host = f"; {self.host_gib:.1f} GiB in the host's memory" if self.host_gib else ""
        frames = f"{self.frames} frame{'s' * (self.frames != 1)}"
        cut = f"{self.windows} windows that share {self.overlap} frames"
        return [
            f"{self.model} on {self.device}: {frames} of {self.width}x{self.height} in "
            f"{cut if self.windows > 1 else 'one window'}",
            *self.reasons,
            f"memory, planned: {self.peak_gib:.1f} GiB at most ({stages}){host}",
        ]

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def foresee(source: Path, name: str, device: str, limits: Limits, settings: JobSettings) -> Outlook:
    """Plan a job as `plan_job` does, without a target: one of the source's kind.

    Raises:
        MediaError: for a source that cannot be read, or is too small to enlarge.
        SettingsError: for settings that do not fit, or less memory than is needed.
    """
    info = probe(source, settings.deinterlace, settings.trim, settings.rate)
    suffixes = {"video": default_suffix(settings.codec), "image": ".png"}
    like = Path(f"result{suffixes.get(info.kind, '')}")
    check_format(like, settings.encoding)
    step = side_step(like, settings.codec)
    plan = plan_frames(info, limits, settings, step, frames=info.frames)
    if plan.memory is None:
        raise SettingsError(_unplanned(device, plan, limits))
    found = isinstance(plan.shots, FoundShots) and info.frames > 1
    return Outlook(
        model=name,
        device=device,
        frames=info.frames,
        width=plan.size[1],
        height=plan.size[0],
        window=plan.window,
        overlap=plan.overlap,
        windows=len(plan.windows),
        peak_gib=_gib(plan.memory.peak),
        stages_gib={stage: _gib(size) for stage, size in plan.memory.stages.items()},
        host_gib=_gib(plan.memory.host),
        reasons=(*plan.memory.reasons, *(["shots that are found cut it further"] * found)),
    )


def _unplanned(device: str, plan: JobPlan, limits: Limits) -> str:
    """Why there is no plan: memory is not known, or too little."""
    source = plan.source.height, plan.source.width
    law = limits.towards(source, plan.size).footprint
    planned = None if law is None else law.budget(free_memory())
    if law is None or planned is None:
        return f"how much memory {device} has is not known here: give `max_memory`, such as 12GiB"
    least = law.least(source, plan.size, plan.settings.window)
    return (
        f"{_gib(planned)} GiB of {device}'s free memory are planned with, and this needs at least "
        f"{_gib(least)}: give `max_memory` {math.ceil(least / 2**20)}MiB if there is as much, or a "
        "smaller `scale` or `height`"
    )


def _gib(size: int) -> float:
    return round(size / _GIB, 2)
