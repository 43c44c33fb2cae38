"""Clip in, larger clip out: masks, optical flow, two recurrences over the kept part, upsampling."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from skipsr.backbones.basicvsr.compute_maps import cell_map, dense_map
from skipsr.backbones.basicvsr.config import JUDGED_AS
from skipsr.backbones.basicvsr.cost import region_cost
from skipsr.backbones.basicvsr.frame_masks import FrameMasks, choose_masks
from skipsr.backbones.basicvsr.limits import limits_of
from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR
from skipsr.backbones.basicvsr.planes import to_whole_places, upsample_bicubic
from skipsr.backbones.basicvsr.regional import run_regions
from skipsr.backbones.basicvsr.whole_frames import (
    fit_size,
    fitted,
    frames_of,
    native_size,
    run_steps,
    waits_on_host,
)
from skipsr.backbones.contract import Identity, Upscaled
from skipsr.clip import Clip
from skipsr.devices import has_matrix_unit, undisturbed
from skipsr.nn.color_fix import keep_grey
from skipsr.nn.landing import land
from skipsr.settings import SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.dial import DEFAULT_QUALITY, Dial, default_dial
from skipsr.skipping.light import load_light
from skipsr.skipping.need import Decider, head_of, load_need
from skipsr.skipping.reuse import firsts, repeats
from skipsr.skipping.surroundings import Surroundings
from skipsr.strength import Strength
from skipsr.tracing import span


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
        in_place = frames.is_cpu and size == native_size(self.model, frames)
        out = result if in_place else None
        run = run_regions(
            self.model, frames, masks, out,
            light=self._light, surroundings=self._surroundings, host=waits_on_host(frames),
            strength=strength,
        )  # fmt: skip
        if in_place:
            deque(run, 0)  # frames are written where they belong
        else:
            land(fitted(self.model, (frame[None] for frame in run), clip, size), result)
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
        light, frames = self._light, frames_of(self.model, clip)
        folded = self.model.fold(frames)[0]
        strength = None if light is None else self._strength_of(clip)

        def refine(i: int, planes: Tensor) -> None:
            if light is not None:
                light.add_to(planes, light.hidden(folded[i : i + 1])[-1], strength)

        shown = upsample_bicubic(frames[0], self.model.config.unshuffle, refine)
        shown = fit_size(self.model, shown, clip, size).to(clip.frames.device)
        return Clip(keep_grey(shown, clip.frames), clip.start)

    def _upscale_densely(self, clip: Clip, size: tuple[int, int]) -> Upscaled:
        steps = [self.model.dense_step(direction) for direction in DIRECTIONS]
        done = run_steps(self.model, steps, clip, size, self._strength_of(clip))
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
        cost = self._cost.of_frames(frames.shape[2] * frames.shape[3] // fold**2)
        dial = self._dial.among(len(frames), len(clip), cost)
        masks = choose_masks(
            need, self._head, frames, dial, cost.crossover, reuse=self._reuse, fold=fold
        )
        return which, frames, masks
