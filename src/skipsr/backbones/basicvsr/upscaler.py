"""Clip in, larger clip out: masks, optical flow, two recurrences over the kept part, upsampling."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from skipsr.backbones.basicvsr.beyond import surroundings_of
from skipsr.backbones.basicvsr.calibrate import routed_steps, threshold_for
from skipsr.backbones.basicvsr.compute_maps import cell_map, dense_map
from skipsr.backbones.basicvsr.config import JUDGED_AS
from skipsr.backbones.basicvsr.cost import cost_of, region_cost
from skipsr.backbones.basicvsr.frame_masks import FrameMasks, choose_masks
from skipsr.backbones.basicvsr.limits import limits_of
from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR, Step
from skipsr.backbones.basicvsr.options import DEFAULT_DETAIL, BasicVSROptions
from skipsr.backbones.basicvsr.patches import Patches, run_patches
from skipsr.backbones.basicvsr.planes import to_whole_places, upsample_bicubic
from skipsr.backbones.basicvsr.regional import run_regions
from skipsr.backbones.basicvsr.routing import RoutedTrunk
from skipsr.backbones.basicvsr.tiles import BatchExecutor, RegionExecutor, TileGrid
from skipsr.backbones.contract import Identity, Upscaled
from skipsr.clip import Clip
from skipsr.devices import has_matrix_unit, undisturbed
from skipsr.errors import SettingsError
from skipsr.nn.color_fix import keep_grey
from skipsr.nn.landing import land
from skipsr.nn.resize import resize_bicubic
from skipsr.settings import SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.dial import DEFAULT_QUALITY, Dial, default_dial
from skipsr.skipping.light import load_light
from skipsr.skipping.need import Decider, head_of, load_need
from skipsr.skipping.reuse import firsts, repeats
from skipsr.skipping.surroundings import Surroundings
from skipsr.strength import MODELS as DOUBTED
from skipsr.strength import Strength
from skipsr.tracing import span

log = logging.getLogger(__name__)
_HOST_FROM = 100  # frames of a clip from which its states wait in the host's memory


class BasicVSRUpscaler:
    """A loaded BasicVSR with its skipping; see `Upscaler`.

    It enlarges by its network's scale, and resizes from there to what is asked. By default nothing
    of it runs where the base serves; `BlockSkippingUpscaler` skips single blocks instead.
    """

    def __init__(
        self,
        name: str,
        model: BasicVSR,
        skip: SkipSettings,
        strength: Strength | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        """
        Args:
            strength: of what the network adds, from the clip's frames; None: as it is.
            surroundings: of this network, where and in the dtype that it is in.

        Raises:
            SettingsError: for a budget or speed out of reach.
        """
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self._weight = model.fusion.weight
        self.limits = limits_of(model.config, self.device)
        self.asked = skip.asked or {"quality": DEFAULT_QUALITY}
        self.identity: Callable[[], Mapping[str, Any]] = Identity(name, (model,), asdict(skip))
        self._reuse = skip.reuse == "auto"
        judged_as = JUDGED_AS.get(name, name)
        self._head = head_of(judged_as)
        by_unit = has_matrix_unit(self._weight.device, self._weight.dtype)
        self._cost = region_cost(model.config, by_unit=by_unit)
        self._dial = Dial.of(skip, default_dial(judged_as), self._cost)
        self.need: Decider | None = None  # may be replaced; None: everything is computed
        if not skip.dense:
            self.need = load_need().to(self._weight.device, self._weight.dtype)
        light = load_light(judged_as)
        self._light = None if light is None else light.to(self._weight.device, self._weight.dtype)
        self.strength = strength
        self._surroundings = surroundings

    @property
    def device(self) -> str:
        return str(self._weight.device)

    @property
    def dtype(self) -> str:
        return str(self._weight.dtype).removeprefix("torch.")

    @undisturbed()
    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        """Enlarge `clip` to `size` = `(height, width)`; `seed` changes nothing."""
        if self.need is None:
            return self._upscale_densely(clip, size)
        with span("predict"):
            which, frames, masks = self._decide(clip, self.need)
        if len(frames) == len(clip) and all(mask.regions.whole for mask in masks):
            return self._upscale_densely(clip, size)  # the same, and a little faster
        strength = self._strength_of(clip)
        result = torch.empty(len(frames), 3, *size, dtype=torch.float32)
        in_place = frames.is_cpu and size == _native(self.model, frames)
        out = result if in_place else None
        run = run_regions(
            self.model, frames, masks, out,
            light=self._light, surroundings=self._surroundings, host=_waits_on_host(frames),
            strength=strength,
        )  # fmt: skip
        if in_place:
            deque(run, 0)  # frames are written where they belong
        else:
            land(_fitted(self.model, (frame[None] for frame in run), clip, size), result)
        result = keep_grey(result[which] if len(clip) > len(frames) else result, clip.frames)
        return Upscaled(Clip(result, clip.start), self._region_map(masks, which, clip, size))

    @undisturbed()
    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        """The cells that `upscale` would run, which needs no more than a look at the frames."""
        if self.need is None:
            return dense_map(self.model, clip, size)
        which, _, masks = self._decide(clip, self.need)
        return self._region_map(masks, which, clip, size)

    def _region_map(
        self, masks: Sequence[FrameMasks], which: Tensor, clip: Clip, size: tuple[int, int]
    ) -> ComputeMap:
        keeps = [mask.regions.keep for mask in masks]
        computed = cell_map(self.model, keeps, which, clip, size)
        spent = self._cost.spent(computed.fraction)
        return replace(computed, spent=spent, always=self._cost.always)

    @undisturbed()
    def upsample(self, clip: Clip, size: tuple[int, int]) -> Clip:
        """Bicubic, and what a light network adds to it if there is one for this model."""
        light, frames = self._light, _frames(self.model, clip)
        folded = self.model.fold(frames)[0]
        strength = None if light is None else self._strength_of(clip)

        def refine(i: int, planes: Tensor) -> None:
            if light is not None:
                light.add_to(planes, light.hidden(folded[i : i + 1])[-1], strength)

        shown = upsample_bicubic(frames[0], self.model.config.unshuffle, refine)
        shown = _fit(self.model, shown, clip, size).to(clip.frames.device)
        return Clip(keep_grey(shown, clip.frames), clip.start)

    def _upscale_densely(self, clip: Clip, size: tuple[int, int]) -> Upscaled:
        steps = [self.model.dense_step(direction) for direction in DIRECTIONS]
        done = _run_steps(self.model, steps, clip, size, self._strength_of(clip))
        return Upscaled(done, dense_map(self.model, clip, size))

    def _strength_of(self, clip: Clip) -> Tensor | None:
        if self.strength is None:
            return None
        with span("predict"):
            return self.strength(clip.frames, self._weight.device)

    def _decide(self, clip: Clip, need: Decider) -> tuple[Tensor, Tensor, list[FrameMasks]]:
        """Which distinct frame each of the clip's is, these frames, and what becomes of them."""
        frames = clip.frames.to(self._weight.device)
        which = repeats(frames) if self._reuse else torch.arange(len(frames))
        fold = self.model.config.unshuffle
        frames = to_whole_places(frames[firsts(which).to(frames.device)], fold)
        dial = self._dial.among(len(frames), len(clip), self._cost)
        masks = choose_masks(
            need, self._head, frames, dial, self._cost.crossover, reuse=self._reuse, fold=fold
        )
        return which, frames, masks


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
            done = _run_steps(self.model, steps, clip, size, strength)
            return Upscaled(done, self._compute_map(clip, size, steps))
        frames = _frames(self.model, clip)
        result = torch.empty(len(clip), 3, *size, dtype=torch.float32)
        host = _waits_on_host(frames[0])
        run = run_patches(self.model, frames, *steps, host=host, strength=strength)
        land(_fitted(self.model, run, clip, size), result)
        result = keep_grey(result, clip.frames)
        return Upscaled(Clip(result, clip.start), self._compute_map(clip, size, steps))

    @undisturbed()
    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        """The blocks that `upscale` would run: the trunks are run, frames are not."""
        if self._patches:
            return self.upscale(clip, size).compute_map
        steps = self._steps()
        self.model.advance(_frames(self.model, clip), *steps)
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


def _run_steps(
    model: BasicVSR,
    steps: Sequence[Step],
    clip: Clip,
    size: tuple[int, int],
    strength: Tensor | None,
) -> Clip:
    """Every frame through the given steps of the two directions."""
    frames = _frames(model, clip)
    in_place = frames.is_cpu and size == _native(model, frames[0])
    result = torch.empty(len(clip), 3, *size, dtype=torch.float32)
    out = result[:, None] if in_place else None
    run = model.run(frames, *steps, host=_waits_on_host(frames[0]), out=out, strength=strength)
    if in_place:
        deque(run, 0)  # frames are written where they belong
    else:
        land(_fitted(model, run, clip, size), result)
    return Clip(keep_grey(result, clip.frames), clip.start)


def _fitted(
    model: BasicVSR, run: Iterable[Tensor], clip: Clip, size: tuple[int, int]
) -> Iterator[Tensor]:
    """Frames `1 3 h w` of a run at the size that was asked for."""
    for frame in run:
        with span("reconstruct"):  # what becomes of them included
            yield _fit(model, frame, clip, size)


def _waits_on_host(frames: Tensor) -> bool:
    """Whether flows and backward states wait in the host's memory: of long clips on a card."""
    return not frames.is_cpu and len(frames) > _HOST_FROM


def _executed(step: Step) -> Tensor:
    """bool `m t places`, frames in order of travel; the places are tiles, or patches."""
    assert isinstance(step, RoutedTrunk)
    return rearrange(torch.stack(step.executed), "t m n r c -> m t (n r c)")


def _frames(model: BasicVSR, clip: Clip) -> Tensor:
    """A clip as its network takes it: `1 t 3 h w`, where that is."""
    frames = clip.frames.to(model.fusion.weight.device)
    return to_whole_places(frames, model.config.unshuffle)[None]


def _native(model: BasicVSR, frames: Tensor) -> tuple[int, ...]:
    """The size at which frames `t 3 h w` come out."""
    return tuple(model.config.scale * side for side in frames.shape[2:])


def _fit(model: BasicVSR, frames: Tensor, clip: Clip, size: tuple[int, int]) -> Tensor:
    """Frames of a result, `n 3 h w`, as the clip's at the size that was asked for: what was added
    to its sides is cut off, and the rest resized, bicubic with antialias."""
    high, wide = (model.config.scale * side for side in clip.size)
    return resize_bicubic(frames[..., :high, :wide], size).clamp(0, 1)


def upscaler_for(
    name: str, skip: SkipSettings, options: BasicVSROptions
) -> Callable[[BasicVSR], BasicVSRUpscaler]:
    """See `UpscalerFactory`."""

    def finish(model: BasicVSR) -> BasicVSRUpscaler:
        detail = DEFAULT_DETAIL if options.detail is None else options.detail
        surroundings = surroundings_of(name, model)
        if model.crisp:
            model.blend(detail)
        elif detail > DEFAULT_DETAIL:
            raise SettingsError(
                f"{name} was trained in one way only: `detail` ends at {DEFAULT_DETAIL:g} here"
            )
        judged_as = JUDGED_AS.get(name, name)
        drawn = detail > 0 and (bool(model.crisp) or judged_as in DOUBTED)
        strength = Strength(judged_as, detail) if drawn else None
        if options.skip == "blocks" and not skip.dense:
            if model.router_forward is None:
                log.warning("%s has no routers here: every block will be run", name)
            return BlockSkippingUpscaler(name, model, skip, strength, patches=options.patches)
        # on a GPU so small a network is faster whole; DESIGN.md
        whole = not skip.asked and not model.fusion.weight.is_cpu
        if skip.speed is not None and not model.fusion.weight.is_cpu:
            log.warning("%s is fastest on a GPU with everything computed: leave out `speed`", name)
        settings = replace(skip, dense=True) if whole else skip
        return BasicVSRUpscaler(name, model, settings, strength, surroundings)

    return finish
