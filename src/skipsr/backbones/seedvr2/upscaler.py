"""Clip in, larger clip out, with SeedVR2.

Resize, choose masks and encode; then, for what is kept, sample tokens, compose, decode and fix the
colours.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from skipsr.backbones.contract import Identity, Upscaled
from skipsr.backbones.seedvr2 import frames as framing
from skipsr.backbones.seedvr2.clip_masks import (
    CROSSOVER,
    CROSSOVER_BY_UNIT,
    ClipMasks,
    choose_masks,
    over_frames,
)
from skipsr.backbones.seedvr2.composition import Composition
from skipsr.backbones.seedvr2.cost_law import denoising, skipping_cost, stage_work
from skipsr.backbones.seedvr2.execution import TIGHTEST, Execution
from skipsr.backbones.seedvr2.limits import limits_of
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.options import SeedVR2Options
from skipsr.backbones.seedvr2.regional import decode_region_slices
from skipsr.backbones.seedvr2.sampler import denoise, frame_noise, noise_places
from skipsr.clip import Clip, extend
from skipsr.devices import has_matrix_unit, undisturbed
from skipsr.limits import MemoryPlan
from skipsr.nn.causal import Bounds
from skipsr.nn.color_fix import keep_grey
from skipsr.nn.diffusion import add_noise, shift_timestep
from skipsr.nn.landing import land
from skipsr.nn.resize import resize_bicubic
from skipsr.nn.transfer import send
from skipsr.settings import SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.decide import STRIP
from skipsr.skipping.dial import DEFAULT_QUALITY, Dial, default_dial
from skipsr.skipping.need import CELL, Decider, head_of, load_need
from skipsr.skipping.reuse import firsts, repeats, still_cells
from skipsr.skipping.route import Route
from skipsr.timeline import TOKEN_FRAMES, TOKEN_SIDE, token_layer
from skipsr.tracing import expect, span
from skipsr.weights.quantized import quantized_bytes

_SCALE = TOKEN_SIDE // CELL  # from the frames that the need is read from to the result


class SeedVR2Upscaler:
    """A loaded SeedVR2 model with its skipping; see `Upscaler`.

    By default nothing of it runs where the plain picture serves. `TokenSkippingUpscaler` skips in
    the transformer alone, as the paper does.
    """

    def __init__(
        self,
        name: str,
        model: SeedVR2,
        skip: SkipSettings,
        options: SeedVR2Options | None = None,
    ) -> None:
        """Sampling as the options say; by default as the model was trained.

        Raises:
            SettingsError: for a speed out of reach.
        """
        self.name = name
        self.model = model.eval().requires_grad_(False)
        options = options or SeedVR2Options()
        told = {"steps": options.steps, "guidance": options.guidance}
        given = {name: value for name, value in told.items() if value is not None}
        self.sampling = dataclasses.replace(model.config.sampling, **given)
        self._weight = model.text.positive
        stored = quantized_bytes(model.dit)
        self.limits = limits_of(
            model.config, self.device, self._weight.itemsize, stored, resident=model.residence
        )
        self._execution: Execution | None = None
        self.asked = skip.asked or {"quality": DEFAULT_QUALITY}
        self.identity: Callable[[], Mapping[str, Any]] = Identity(
            name, (model,), dataclasses.asdict(skip) | dataclasses.asdict(options)
        )
        self._reuse = skip.reuse == "auto"
        self._head = head_of(name)
        self._cost = skipping_cost(model.config, self.sampling)
        self._denoising = denoising(model.config, self.sampling)
        by_unit = has_matrix_unit(self._weight.device, self._weight.dtype)
        small = model.config.vae.base_conditioned
        self._crossover = CROSSOVER_BY_UNIT if small and by_unit else CROSSOVER
        self._dial = Dial.of(skip, default_dial(name), self._cost)
        self.need: Decider | None = None  # may be replaced; None: everything is computed
        if not skip.dense:
            self.need = load_need().to(self._weight.device)

    @property
    def device(self) -> str:
        return str(self._weight.device)

    @property
    def dtype(self) -> str:
        return str(self._weight.dtype).removeprefix("torch.")

    @undisturbed()
    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        """Enlarge `clip` to `size` = `(height, width)`.

        Noise is drawn per latent frame from the seed and the frame's index in the source, so that
        neighbouring windows start from the same noise where they overlap.
        """
        which, distinct, masks = torch.arange(len(clip)), clip, None
        if self.need is not None:
            which, distinct = self._distinct(clip)
            with span("predict"):
                masks = self._choose(distinct, size, len(clip))
            if not bool(masks.needed.any()):
                plain = self.upsample(distinct, size).frames[which]
                result = Clip(keep_grey(plain, clip.frames), clip.start)
                return Upscaled(result, self._compute_map(masks, which))
        execution = self._run_as(distinct, size)
        bounds = decoding = execution.bounds
        if masks is not None:
            on_canvases = execution.on_canvases(masks.kept)
            if bounds is None or on_canvases is not None:
                decoding = on_canvases
            else:
                masks = dataclasses.replace(masks, whole=True)
        self._expect(distinct, size, masks)
        with span("encode"), self.model.autoencoder_at_work:
            frames = self._frames(distinct, size, bounds)
            latent = self.model.encode(frames, bounds)[0]
        if masks is None:
            with span("predict"):
                route = self._route(latent)
        else:
            route = Route(masks.needed.to(latent.device))
        shown = (clip.start + firsts(which)).tolist()
        with span("denoise"), self.model.transformer_at_work:
            latent = self._denoise(latent, route, noise_places(shown, len(latent)), seed)
        with span("decode"), self.model.autoencoder_at_work:
            refined = self._refined(latent, frames, decoding, masks)
            result = _landed(refined, len(distinct), size)
            result = result if len(distinct) == len(clip) else result[which]
            result = Clip(keep_grey(result, clip.frames), clip.start)
        if masks is None:
            return Upscaled(result, self._whole_map(route, len(clip)))
        return Upscaled(result, self._compute_map(masks, which))

    @undisturbed()
    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        """What `upscale` would decode, which needs no more than a look at the frames."""
        if self.need is None:
            padded = tuple(self.limits.pad_side(side) // TOKEN_SIDE for side in size)
            layers = token_layer(self.limits.pad_frames(len(clip)) - 1) + 1
            return self._whole_map(Route.dense((layers, padded[0], padded[1])), len(clip))
        which, distinct = self._distinct(clip)
        return self._compute_map(self._choose(distinct, size, len(clip)), which)

    def upsample(self, clip: Clip, size: tuple[int, int]) -> Clip:
        """The base, by bicubic upsampling with antialias; skipped cells show it."""
        return Clip(resize_bicubic(clip.frames, size), clip.start)

    def _distinct(self, clip: Clip) -> tuple[Tensor, Clip]:
        """Which distinct frame each of the clip's is, and these frames."""
        which = repeats(clip.frames) if self._reuse else torch.arange(len(clip))
        return which, Clip(clip.frames[firsts(which)], clip.start)

    def _choose(self, clip: Clip, size: tuple[int, int], frames: int) -> ClipMasks:
        """Decide on the frames at a quarter of the result, whatever their size.

        Shrinking would hide noise and fine texture: then some of their own pixels are read as well.

        Args:
            frames: how many there were before those that repeat were left out.
        """
        assert self.need is not None
        quarter = -(-size[0] // _SCALE), -(-size[1] // _SCALE)
        padded = tuple(self.limits.pad_side(side) // _SCALE for side in size)
        device, count = self._weight.device, self.limits.pad_frames(len(clip))
        shrinks = quarter[0] < clip.size[0] and quarter[1] < clip.size[1]
        looks = (resize_bicubic, framing.thinned) if shrinks else (resize_bicubic,)
        ones = (frame[None].to(device) for frame in clip.frames)  # on a card one at a time
        seen = [[look(one, quarter) for look in looks] for one in ones]
        views = [
            extend(torch.cat(view), count, (padded[0], padded[1]))
            for view in zip(*seen, strict=True)
        ]
        still: list[Tensor | None] = [None] * count
        if self._reuse:
            down, across = (
                Fraction(TOKEN_SIDE * a, b) for a, b in zip(clip.size, size, strict=True)
            )
            own = [*clip.frames, *[clip.frames[-1]] * (count - len(clip))]
            still = still_cells((frame.to(device) for frame in own), (down, across))
        dial = self._dial.among(len(clip), frames, self._cost)
        return choose_masks(
            self.need, self._head, views, dial, still, self._denoising, self._crossover
        )

    def _expect(self, clip: Clip, size: tuple[int, int], masks: ClipMasks | None) -> None:
        """Say what the stages of a clip take."""
        height, width = (self.limits.pad_side(side) for side in size)
        frames = self.limits.pad_frames(len(clip))
        work = stage_work(self.model.config, self.sampling, frames * height * width)
        if masks is not None:
            work = {stage: work[stage] * share for stage, share in self._shares(masks).items()}
        expect(work)

    def _shares(self, masks: ClipMasks) -> dict[str, float]:
        """What runs of each stage."""
        refined = masks.needed.float().mean().item()
        decoded = masks.decoded(whole_first=bool(self.model.config.vae.groups))
        return {"encode": float(refined > 0), "denoise": refined, "decode": decoded}

    def arrange(self, plan: MemoryPlan | None) -> None:
        """Run windows as planned from now on; weights stay where they were put."""
        execution = None if plan is None else plan.execution
        assert execution is None or isinstance(execution, Execution)
        self._execution = execution

    def _run_as(self, clip: Clip, size: tuple[int, int]) -> Execution:
        """How to run a window: as planned, or on a card by what is free there."""
        if self._execution is not None or self._weight.device.type != "cuda":
            return self._execution or Execution()
        law, source = self.limits.footprint, clip.size
        memory = None if law is None else law.budget(None)
        if law is None or memory is None:
            return Execution()
        plan = law.fit(memory, source, size, len(clip), len(clip))
        found = plan.execution if plan else None
        return found if isinstance(found, Execution) else Execution(bounds=TIGHTEST)

    def _frames(self, clip: Clip, size: tuple[int, int], bounds: Bounds | None = None) -> Tensor:
        """The clip at its final size, padded: `1 3 t h w` in [0, 1], with bounds on the host."""
        padded = self.limits.pad_side(size[0]), self.limits.pad_side(size[1])
        device = self._weight.device
        parts = clip.frames.split(len(clip) if bounds is None else TOKEN_FRAMES)
        sized = [resize_bicubic(part.to(device), size) for part in parts]
        if bounds is not None:
            sized = [part.cpu() for part in sized]
        frames = extend(torch.cat(sized), self.limits.pad_frames(len(clip)), padded)
        return rearrange(frames, "t c h w -> 1 c t h w")

    def _refined(
        self,
        latent: Tensor,
        frames: Tensor,
        bounds: Bounds | None,
        masks: ClipMasks | None = None,
    ) -> Iterator[Tensor]:
        """Frames `t 3 h w` in [0, 1] on the device, a slice at a time, coloured as `frames`.

        Args:
            masks: where nothing is kept `frames` are shown; None: all of it is.
        """
        source = rearrange(frames, "1 c t h w -> t c h w")
        shown = composition = None
        if masks is not None:
            shown = send(over_frames(masks.kept, len(source)), latent.device)
            composition = Composition(masks, len(source), latent.device)
        done = 0
        for part in self._decoded(latent, frames, bounds, masks):
            now = slice(done, done + part.shape[2])
            done = now.stop
            own, cells = source[now].to(part.device), None if shown is None else shown[now]
            part = framing.finish(rearrange(part, "1 c t h w -> t c h w"), own, cells)
            yield part if composition is None else composition.next(part, own)

    def _decoded(
        self, latent: Tensor, frames: Tensor, bounds: Bounds | None, masks: ClipMasks | None
    ) -> Iterator[Tensor]:
        """Frames `1 3 t h w`, about [0, 1], a slice at a time."""
        if masks is None or masks.whole:
            yield from self.model.decode_slices(latent[None], frames, bounds)
            return
        scaled = rearrange(latent, "t h w c -> 1 c t h w") / self.model.config.latent_scale
        base = frames * 2 - 1 if self.model.config.vae.base_conditioned else None
        vae, kept = self.model.vae, masks.kept
        for part in decode_region_slices(vae, scaled, base, kept, STRIP, bounds=bounds):
            yield part.float() / 2 + 0.5

    def _compute_map(self, masks: ClipMasks, which: Tensor) -> ComputeMap:
        """What is kept of each frame; nothing of one that repeats another."""
        distinct = int(which[-1]) + 1
        kept = over_frames(masks.kept, distinct).float()
        share = torch.zeros(len(which), *kept.shape[1:], dtype=torch.float32)
        share[firsts(which)] = kept
        shares = self._shares(masks).items()
        stages = {stage: part * distinct / len(which) for stage, part in shares}
        return ComputeMap(
            fractions=share,
            cell_size=(TOKEN_SIDE, TOKEN_SIDE),
            units_run=int(share.sum()),
            units_total=share.numel(),
            spent=self._spent(stages),
            always=self._cost.always,
            stages=stages,
        )

    def _whole_map(self, route: Route, frames: int) -> ComputeMap:
        """Where the autoencoder saw everything."""
        found = ComputeMap.of_route(route, frames)
        stages = {"encode": 1.0, "denoise": found.fraction, "decode": 1.0}
        return dataclasses.replace(found, spent=self._spent(stages), stages=stages)

    def _spent(self, stages: Mapping[str, float]) -> float:
        """The share of the dense multiply-adds, from those of the stages."""
        work = stage_work(self.model.config, self.sampling, pixels=1)
        return sum(work[stage] * share for stage, share in stages.items()) / sum(work.values())

    def _route(self, latent: Tensor) -> Route:
        """The tokens that are computed where masks were not chosen beforehand."""
        t, h, w, _ = latent.shape
        return Route.dense((t, h // 2, w // 2), latent.device)

    def _denoise(self, base: Tensor, route: Route, places: Sequence[int], seed: int) -> Tensor:
        condition = base
        if self.sampling.condition_noise:
            t, h, w, _ = base.shape
            level = torch.tensor(1000 * self.sampling.condition_noise, dtype=torch.float32)
            level = shift_timestep(level, (t, h, w))
            condition = add_noise(base.float(), frame_noise(base, places, seed, stream=1), level)
        noise = frame_noise(base, places, seed, stream=0)
        text = self.model.conditioning
        return denoise(self.model.dit, noise, base, text, route, self.sampling, condition)


def _landed(slices: Iterable[Tensor], count: int, size: tuple[int, int]) -> Tensor:
    """The first frames of slices `t 3 h w`, and of their pixels, in the host's memory."""
    result = torch.empty(count, 3, *size, dtype=torch.float32)
    land(_trimmed(slices, count, size), result)
    return result


def _trimmed(slices: Iterable[Tensor], count: int, size: tuple[int, int]) -> Iterator[Tensor]:
    for part in slices:
        yield part[:count, :, : size[0], : size[1]]
        count -= min(count, len(part))
