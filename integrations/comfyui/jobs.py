"""The work of the nodes: files by skipsr's jobs, images through the same windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.v0_0_2 import Input
from torch import Tensor
from torch.nn.functional import interpolate

from skipsr.backbones.contract import Upscaled, Upscaler
from skipsr.backbones.wrapper import UpscalerWrapper
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.pipeline.job import enlarged, run_job
from skipsr.pipeline.plan import plan_frames, plan_job
from skipsr.pipeline.preview import draw_mask, draw_masks
from skipsr.pipeline.stream import Reach
from skipsr.settings import JobSettings, SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.route import over_pixels
from skipsr.tracing import Trace, reached
from skipsr.video import frames_info

from . import host
from .choice import Loaded, ModelChoice

_LEVELS = 65535  # images become 16 bits, in which all levels of 8 are exact
_loaded = Loaded()


@dataclass(frozen=True)
class Run:
    """What a node was asked: with which model, how much of it, what of it, and for which node."""

    choice: ModelChoice
    skip: SkipSettings
    job: JobSettings
    node: str | None


def run_file(video: Input.Video, run: Run, *, masks: bool) -> tuple[Path, str]:
    """The enlarged video as a file, and the report as JSON.

    Args:
        masks: draw what would be left out, blue, over the plainly upsampled video instead.
    """
    model, watch = run.choice.find(), host.Watch(run.node)
    target = host.new_file(".mp4")
    with host.video_file(video) as source:
        plan = plan_job(source, target, model.limits, run.job)
        with _loaded.upscaler(run.choice, model, run.skip, plan.memory) as upscaler:
            if masks:
                report = draw_masks(plan, upscaler, upscaler.name, watch)
            else:
                report = run_job(plan, upscaler, watch)
            return target, report.to_json()


def run_images(images: Tensor, run: Run, *, masks: bool) -> tuple[Tensor, Tensor]:
    """Enlarge the frames of one clip.

    Args:
        images: `b h w c`, float in [0, 1]; a fourth channel is alpha, and plainly upsampled.
        masks: draw what would be left out over the plainly upsampled images instead.

    Returns:
        Images `b h w c` and what was computed of them, `b h w`, 0 to 1, both float32 on the CPU.
    """
    if images.shape[-1] < 3:
        raise SettingsError(f"`images` have {images.shape[-1]} channels: give RGB")
    model, watch = run.choice.find(), host.Watch(run.node)
    count, info = images.shape[0], frames_info((images.shape[1], images.shape[2]), bits=16)
    plan = plan_frames(info, model.limits, run.job, frames=count)
    size = plan.size
    result = torch.empty(count, *size, min(4, images.shape[-1]))
    with _loaded.upscaler(run.choice, model, run.skip, plan.memory) as upscaler:
        seen = Seen(Overlay(upscaler) if masks else upscaler)
        results = enlarged(_integers(images), seen, plan)

        def tell(_: str) -> None:
            watch.tell(int(seen.reach.frames(trace.share)), count)

        with Trace(tell, upscaler.device) as trace:
            for place, frame in enumerate(results):
                result[place, ..., :3] = torch.from_numpy(frame.astype(np.float32) / _LEVELS)
                if result.shape[-1] > 3:
                    alpha = images[place, None, None, ..., 3].float().cpu()
                    larger = interpolate(alpha, size, mode="bicubic", antialias=True)
                    result[place, ..., 3] = larger[0, 0].clamp(0, 1)
    return result, seen.mask(count, size)


def _integers(images: Tensor) -> Iterator[Any]:
    """Images as frames of 16 bits, each made when it is asked for."""
    for image in images:
        levels = image[..., :3].float().clamp(0, 1).mul(_LEVELS).round()
        yield levels.cpu().numpy().astype(np.uint16)


class Overlay(UpscalerWrapper):
    """Draws what would be computed instead of computing it."""

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        return draw_mask(self, clip, size)


class Seen(UpscalerWrapper):
    """Remembers what was computed, and how far that is."""

    def __init__(self, inner: Upscaler) -> None:
        super().__init__(inner)
        self.reach = Reach()
        self._maps: list[tuple[int, ComputeMap]] = []

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        self.reach.enter(clip)
        reached(0)
        result = super().upscale(clip, size, seed=seed)
        reached(1)
        self._maps.append((clip.start, result.compute_map))
        return result

    def mask(self, count: int, size: tuple[int, int]) -> Tensor:
        """What was computed of each pixel, `t h w`; of two windows, what either computed."""
        mask = torch.zeros(count, *size)
        for start, computed in self._maps:
            for index, cells in enumerate(computed.fractions, start):
                pixels = over_pixels(cells, computed.cell_size, size)
                mask[index] = torch.maximum(mask[index], pixels)
        return mask
