"""Sampling a latent: the transformer over the kept cells, one step or many."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skipsr.backbones.seedvr2.config import Sampling
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.errors import WeightsError
from skipsr.nn import diffusion
from skipsr.skipping.route import Route, to_cells
from skipsr.timeline import TOKEN_FRAMES


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Conditioning tokens; the negative ones are needed for guidance other than 1."""

    positive: Tensor  # l width
    negative: Tensor | None = None  # l' width


def denoise(
    dit: DiT,
    noise: Tensor,
    base: Tensor,
    text: Conditioning,
    route: Route,
    sampling: Sampling,
    condition: Tensor | None = None,
) -> Tensor:
    """Sample the kept cells and compose them with the base.

    Args:
        noise: `t h w c`, what sampling starts from.
        base: `t h w c`, the LR latent; skipped cells of the result are its, unchanged.
        route: over the token grid `(t, h/2, w/2)`; when it keeps nothing the transformer is not
            called.
        condition: `t h w c`, what the transformer reads, if not `base` itself (noise added to it).

    Returns:
        `t h w c` in the dtype of `noise`.
    """
    base = base.to(noise.dtype)
    if route.kept == 0:
        return base
    seen = route.pack(to_cells(base if condition is None else condition))
    predict = Velocity(dit, seen, text, route, sampling)
    refined = diffusion.sample(predict, route.pack(to_cells(noise)), sampling.steps)
    return route.compose(refined, base)


class Velocity:
    """`(x, timestep) -> velocity` of the kept cells `k 4 c`, guided if so asked."""

    def __init__(
        self, dit: DiT, seen: Tensor, text: Conditioning, route: Route, sampling: Sampling
    ) -> None:
        self._dit = dit
        self._sampling = sampling
        self._condition = diffusion.condition(seen)
        texts = [text.positive] if sampling.guidance or sampling.rescale else []
        if sampling.guidance != 1:
            if text.negative is None:
                raise WeightsError(
                    "guidance needs negative conditioning tokens: put neg_emb.pt beside the model"
                )
            texts.append(text.negative)
        self._branches = [(tokens, dit.geometry(route, len(tokens))) for tokens in texts]

    def __call__(self, x: Tensor, timestep: Tensor) -> Tensor:
        dtype = self._dit.txt_in.bias.dtype  # the matrix may be quantised
        cells = torch.cat((x.to(dtype), self._condition.to(dtype)), -1)
        time = timestep.to(x.device)
        out = [
            self._dit(cells, text.to(dtype), time, geometry) for text, geometry in self._branches
        ]
        out = [velocity.to(x.dtype) for velocity in out]  # steps add up in the sampler's precision
        if len(out) == 1:
            return out[0]
        return diffusion.guide(out[0], out[1], self._sampling.guidance, self._sampling.rescale)


def noise_places(shown: Sequence[int], count: int) -> list[int]:
    """Where the noise of each of `count` latent frames belongs, so that windows of one source draw
    the same.

    Args:
        shown: indices, in the source, of the frames that latents were made of.
    """
    known = [index // TOKEN_FRAMES for index in shown[::TOKEN_FRAMES]]
    return known + [known[-1] + 1 + extra for extra in range(count - len(known))]  # of padding


def frame_noise(like: Tensor, places: Sequence[int], seed: int, stream: int) -> Tensor:
    """Float32 noise shaped like `t h w c`; a function of the seed and each frame's place."""
    frames: list[Tensor] = []
    for place in places:
        value = ((seed * 2 + stream) * 1_000_003 + place) % 2**64  # what a generator takes
        generator = torch.Generator().manual_seed(value)
        frames.append(torch.randn(like.shape[1:], generator=generator, dtype=torch.float32))
    return torch.stack(frames).to(like.device)
