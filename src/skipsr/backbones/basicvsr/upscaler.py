"""Clip in, larger clip out: flows, two recurrences over the blocks that are needed, upsampling."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones import public_name
from skipsr.backbones.basicvsr.calibrate import routed_steps, threshold_for
from skipsr.backbones.basicvsr.config import SCALE
from skipsr.backbones.basicvsr.gates import RoutedTrunk
from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR, Step
from skipsr.backbones.basicvsr.patches import Patches, run_patches
from skipsr.backbones.basicvsr.tiles import Canvas, Grid, Rows
from skipsr.backbones.basicvsr.weights import read_model
from skipsr.backbones.contract import Upscaled
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.work import Work
from skipsr.timeline import Limits
from skipsr.tracing import span

LIMITS = Limits(smallest=8, window_pixels=128_000_000, longest_window=60)
_HOST_FROM = 100  # frames of a clip from which an accelerator's memory is spared


class BasicVSRUpscaler:
    """A loaded BasicVSR with its skipping; see `Upscaler`.

    It enlarges by four, and resizes from there to what is asked.
    """

    limits = LIMITS

    def __init__(self, name: str, model: BasicVSR, skip: SkipSettings) -> None:
        """Raises:
        SettingsError: for settings of another family, or a budget below what always runs.
        WeightsError: when routing is asked for and the weights hold none.
        """
        if skip.tau is not None:
            raise SettingsError(f"--tau is not for {name}: give --budget")
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self._threshold = self._threshold_of(skip)
        self._patches = skip.patches
        self._weight = model.fusion.weight

    def _threshold_of(self, skip: SkipSettings) -> float | None:
        """None: every block."""
        if skip.threshold is not None:
            return skip.threshold
        if skip.budget is not None:
            return threshold_for(self.model.calibration, skip.budget)
        usual = self.model.config.routing.budget
        if skip.dense or usual == 1 or self.model.router_forward is None:
            return None
        return threshold_for(self.model.calibration, usual)

    @property
    def device(self) -> str:
        return str(self._weight.device)

    @property
    def dtype(self) -> str:
        return str(self._weight.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        """Enlarge `clip` to `size` = `(height, width)`; nothing is drawn, so `seed` changes
        nothing."""
        frames = clip.frames[None].to(self._weight.device)
        steps = self._steps()
        host = not frames.is_cpu and len(clip) > _HOST_FROM
        result = torch.empty(len(clip), 3, *size)
        in_place = (
            not self._patches
            and frames.is_cpu
            and size == tuple(SCALE * side for side in clip.size)
        )
        if self._patches:
            run = run_patches(self.model, frames, *steps, host=host)
        else:
            out = result[:, None] if in_place else None
            run = self.model.run(frames, *steps, host=host, out=out)
        for i, frame in enumerate(run):
            if not in_place:
                with span("reconstruct"):
                    result[i] = _fit(frame, size)[0].clamp(0, 1)
        return Upscaled(Clip(result, clip.start), self._work(clip, size, steps))

    @torch.inference_mode()
    def work(self, clip: Clip, size: tuple[int, int]) -> Work:
        """The blocks that `upscale` would run: the trunks are run, frames are not."""
        if self._patches:
            return self.upscale(clip, size).work
        frames = clip.frames[None].to(self._weight.device)
        steps = self._steps()
        ahead, back = self.model.flows(frames)
        for step, seen, flows in zip(
            steps, (frames.flip(1), frames), (ahead.flip(1), back), strict=True
        ):
            for _ in self.model.propagate(seen, flows, step):
                pass
        return self._work(clip, size, steps)

    def enlarge(self, clip: Clip, size: tuple[int, int]) -> Clip:
        """Bicubic."""
        return Clip(_fit(clip.frames, size).clamp(0, 1), clip.start)

    def _steps(self) -> Sequence[Step]:
        if self._threshold is None:
            return [self.model.dense_step(direction) for direction in DIRECTIONS]
        return routed_steps(self.model, self._threshold, Rows if self._patches else Canvas)

    def _work(self, clip: Clip, size: tuple[int, int], steps: Sequence[Step]) -> Work:
        routing = self.model.config.routing
        grid: Grid | Patches = Grid.of(*clip.size, routing.tile, routing.thin)
        if self._patches:
            grid = Patches(*clip.size)
        ran = torch.ones(2 * self.model.config.num_block, len(clip), grid.rows * grid.columns)
        if self._threshold is not None:
            backward, forward = (_executed(step) for step in steps)
            ran = torch.cat((backward.flip(1), forward)).cpu()
        scale = [to / side for to, side in zip(size, clip.size, strict=True)]
        return Work(
            share=rearrange(ran.float().mean(0), "t (r c) -> t r c", r=grid.rows),
            cell=(
                max(1, round(grid.pitch[0] * scale[0])),
                max(1, round(grid.pitch[1] * scale[1])),
            ),
            computed=int(ran.sum()),
            total=ran.numel(),
        )


def _executed(step: Step) -> Tensor:
    """bool `m t places`, frames in order of travel; the places are tiles, or patches."""
    assert isinstance(step, RoutedTrunk)
    return rearrange(torch.stack(step.executed), "t m n r c -> m t (n r c)")


def _fit(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames `n 3 h w` at the size that was asked for, bicubic with antialias."""
    if frame.shape[2:] == size:
        return frame
    return F.interpolate(frame, size, mode="bicubic", align_corners=False, antialias=True)


def load(
    preset: str,
    source: Path,
    device: torch.device,
    dtype: torch.dtype,
    skip: SkipSettings,
    steps: int | None,
) -> BasicVSRUpscaler:
    """An upscaler from a file, or from a folder that holds one.

    Raises:
        SettingsError: for settings of another family.
        WeightsError: when files are missing or do not fit.
    """
    name = public_name("basicvsr", preset)
    if steps is not None:
        raise SettingsError(f"--steps is not for {name}: it is no diffusion model")
    model = read_model(preset, source)
    for key, parameter in model.named_parameters():  # not the buffers: constants stay exact
        # confidences of bfloat16 are too coarse for a threshold to meet a budget
        own = torch.float32 if key.startswith("router_") else dtype
        parameter.data = parameter.data.to(device, own)
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return BasicVSRUpscaler(name, model.to(device), skip)
