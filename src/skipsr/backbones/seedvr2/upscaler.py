"""Clip in, larger clip out: resize, encode, predict, sample the kept tokens, compose, decode, match
the tone."""

import dataclasses
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from skipsr.backbones.contract import Upscaled
from skipsr.backbones.seedvr2 import frames as framing
from skipsr.backbones.seedvr2.diffusion import add_noise, shift_timestep
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.sampler import denoise
from skipsr.clip import Clip, extend
from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.oracle import TAU
from skipsr.skipping.route import THRESHOLD, Route
from skipsr.skipping.tone import match_tone
from skipsr.skipping.work import Work
from skipsr.timeline import Limits
from skipsr.tracing import span

LIMITS = Limits(step=4, side=framing.SIDE, smallest=8)
_TIME = 4  # frames of a latent frame after the first


@dataclass(frozen=True, slots=True)
class Prepared:
    """A clip at its final size, ready for the transformer."""

    frames: Tensor  # 1 3 t h w in [0, 1], padded, float32
    latent: Tensor  # t' h/8 w/8 c, the LR condition
    route: Route


class SeedVR2Upscaler:
    """A loaded SeedVR2 model with its skipping; see `Upscaler`.

    Raises:
        SettingsError: for a budget when no predictor says where to spend it, or for patches.
    """

    limits = LIMITS

    def __init__(
        self, name: str, model: SeedVR2, skip: SkipSettings, steps: int | None = None
    ) -> None:
        if skip.budget is not None and not model.predicts:
            raise SettingsError(f"{name} has no mask predictor here: leave out --budget")
        if skip.patches:
            raise SettingsError(f"--patches is not for {name}: it is for recurrent models")
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.skip = skip
        self.sampling = model.config.sampling
        if steps is not None:
            self.sampling = dataclasses.replace(self.sampling, steps=steps)
        self._weight = model.text.positive

    @property
    def device(self) -> str:
        return str(self._weight.device)

    @property
    def dtype(self) -> str:
        return str(self._weight.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        """Enlarge `clip` to `size` = `(height, width)`.

        Noise is drawn per latent frame from the seed and the frame's place in the source, so that
        neighbouring windows start from the same noise where they overlap.
        """
        ready = self._prepare(clip, size)
        with span("denoise"):
            latent = self._denoise(ready, clip.start, seed)
        with span("decode"):
            result = self.model.decode(latent[None], ready.frames)
            result, source = (rearrange(x, "1 c t h w -> t c h w") for x in (result, ready.frames))
            result = match_tone(result, source)[: len(clip), :, : size[0], : size[1]].clamp(0, 1)
            done = Clip(result.cpu().contiguous(), clip.start)
            return Upscaled(done, Work.of_route(ready.route, len(clip)))

    @torch.inference_mode()
    def work(self, clip: Clip, size: tuple[int, int]) -> Work:
        """The tokens that `upscale` would compute."""
        return Work.of_route(self._prepare(clip, size).route, len(clip))

    def enlarge(self, clip: Clip, size: tuple[int, int]) -> Clip:
        """The plainly upsampled clip, which is what skipped cells show."""
        return Clip(framing.resize(clip.frames, size), clip.start)

    def _prepare(self, clip: Clip, size: tuple[int, int]) -> Prepared:
        with span("encode"):
            padded = self.limits.pad_side(size[0]), self.limits.pad_side(size[1])
            frames = framing.resize(clip.frames.to(self._weight.device), size)
            frames = extend(frames, framing.padded_count(len(clip)), padded)
            frames = rearrange(frames, "t c h w -> 1 c t h w")
            latent = self.model.encode(frames)[0]
        with span("predict"):
            return Prepared(frames, latent, self._route(latent))

    def _route(self, latent: Tensor) -> Route:
        t, h, w, _ = latent.shape
        if self.skip.dense or not self.model.predicts:
            return Route.dense((t, h // 2, w // 2), latent.device)
        tau = TAU if self.skip.tau is None else self.skip.tau
        scores = self.model.scores(latent[None], tau)[0].float().sigmoid()
        if self.skip.budget is not None:
            return Route.from_budget(scores, self.skip.budget)
        threshold = THRESHOLD if self.skip.threshold is None else self.skip.threshold
        return Route.from_scores(scores, threshold)

    def _denoise(self, ready: Prepared, start: int, seed: int) -> Tensor:
        condition = base = ready.latent
        if self.sampling.condition_noise:
            t, h, w, _ = base.shape
            level = shift_timestep(torch.tensor(1000 * self.sampling.condition_noise), (t, h, w))
            condition = add_noise(base, _noise(base, start, seed, draw=1), level)
        noise = _noise(base, start, seed, draw=0)
        text = self.model.conditioning
        return denoise(self.model.dit, noise, base, text, ready.route, self.sampling, condition)


def _noise(like: Tensor, start: int, seed: int, draw: int) -> Tensor:
    """Normal noise in float32 shaped like `t h w c`; a function of the seed and of each frame's
    place."""
    first = start // _TIME
    frames: list[Tensor] = []
    for place in range(first, first + like.shape[0]):
        generator = torch.Generator().manual_seed((seed * 2 + draw) * 1_000_003 + place)
        frames.append(torch.randn(like.shape[1:], generator=generator))
    return torch.stack(frames).to(like.device)
