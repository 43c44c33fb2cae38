"""Clip in, larger clip out, with single residual blocks skipped (`routing`)."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from skipsr.backbones.basicvsr.calibrate import routed_steps, threshold_for
from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR, Step
from skipsr.backbones.basicvsr.patches import Patches, run_patches
from skipsr.backbones.basicvsr.routing import RoutedTrunk
from skipsr.backbones.basicvsr.tiles import BatchExecutor, RegionExecutor, TileGrid
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.backbones.basicvsr.whole_frames import fitted, frames_of, run_steps, waits_on_host
from skipsr.backbones.contract import Upscaled
from skipsr.clip import Clip
from skipsr.devices import undisturbed
from skipsr.errors import SettingsError
from skipsr.nn.color_fix import keep_grey
from skipsr.nn.landing import land
from skipsr.settings import SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.strength import Strength


class BlockSkippingUpscaler(BasicVSRUpscaler):
    """Single residual blocks are skipped by tiles, as the paper has it, by the model's routers."""

    def __init__(
        self,
        name: str,
        model: BasicVSR,
        skip: SkipSettings,
        strength: Strength | None = None,
        *,
        patches: bool = False,
    ) -> None:
        """Raises:
        SettingsError: for what is not for blocks, or a budget below what always runs.
        WeightsError: when routing is asked for and the weights hold none.
        """
        for dial in ("tau", "quality", "speed"):
            if getattr(skip, dial) is not None:
                raise SettingsError(f"`{dial}` is not for skipped blocks: give `budget`")
        super().__init__(name, model, SkipSettings(dense=True), strength)
        self.asked = skip.asked or {"budget": model.config.routing.budget}
        self._threshold = self._threshold_of(skip)
        self._patches = patches

    def _threshold_of(self, skip: SkipSettings) -> float | None:
        """The confidence above which a block runs; None: every block does."""
        if skip.threshold is not None:
            return skip.threshold
        if skip.budget is not None:
            return threshold_for(self.model.calibration, skip.budget)
        usual = self.model.config.routing.budget
        if skip.dense or usual == 1 or self.model.router_forward is None:
            return None
        return threshold_for(self.model.calibration, usual)

    @undisturbed()
    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        """See `BasicVSRUpscaler.upscale`."""
        steps, strength = self._steps(), self._strength_of(clip)
        if not self._patches:
            done = run_steps(self.model, steps, clip, size, strength)
            return Upscaled(done, self._compute_map(clip, size, steps))
        frames = frames_of(self.model, clip)
        result = torch.empty(len(clip), 3, *size, dtype=torch.float32)
        host = waits_on_host(frames[0])
        run = run_patches(self.model, frames, *steps, host=host, strength=strength)
        land(fitted(self.model, run, clip, size), result)
        result = keep_grey(result, clip.frames)
        return Upscaled(Clip(result, clip.start), self._compute_map(clip, size, steps))

    @undisturbed()
    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        """The blocks that `upscale` would run: the trunks are run, frames are not."""
        if self._patches:
            return self.upscale(clip, size).compute_map
        steps = self._steps()
        self.model.advance(frames_of(self.model, clip), *steps)
        return self._compute_map(clip, size, steps)

    def _steps(self) -> Sequence[Step]:
        if self._threshold is None:
            return [self.model.dense_step(direction) for direction in DIRECTIONS]
        return routed_steps(
            self.model, self._threshold, BatchExecutor if self._patches else RegionExecutor
        )

    def _compute_map(self, clip: Clip, size: tuple[int, int], steps: Sequence[Step]) -> ComputeMap:
        routing, fold = self.model.config.routing, self.model.config.unshuffle
        high, wide = (-(-side // fold) for side in clip.size)
        grid: TileGrid | Patches = TileGrid.of(high, wide, routing.tile, routing.stride)
        if self._patches:
            grid = Patches(fold * high, fold * wide).folded(fold)
        blocks = 2 * self.model.config.num_block
        ran = torch.ones(blocks, len(clip), grid.rows * grid.columns, dtype=torch.bool)
        if self._threshold is not None:
            backward, forward = (_executed(step) for step in steps)
            ran = torch.cat((backward.flip(1), forward)).cpu()
        scale = [fold * to / side for to, side in zip(size, clip.size, strict=True)]
        return ComputeMap(
            fractions=rearrange(ran.float().mean(0), "t (r c) -> t r c", r=grid.rows),
            cell_size=(
                max(1, round(grid.pitch[0] * scale[0])),
                max(1, round(grid.pitch[1] * scale[1])),
            ),
            units_run=int(ran.sum()),
            units_total=ran.numel(),
            spent=cost_of(self.model.config).share(ran.float().mean().item()),
            always=cost_of(self.model.config).share(0.0),
        )


def _executed(step: Step) -> Tensor:
    """bool `m t places`, frames in order of travel; the places are tiles, or patches."""
    assert isinstance(step, RoutedTrunk)
    return rearrange(torch.stack(step.executed), "t m n r c -> m t (n r c)")
