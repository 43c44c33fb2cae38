"""Clips as a BasicVSR takes them, and all of their frames through it."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from skipsr.backbones.basicvsr.network import BasicVSR, Step
from skipsr.backbones.basicvsr.planes import to_whole_places
from skipsr.clip import Clip
from skipsr.nn.color_fix import keep_grey
from skipsr.nn.landing import land
from skipsr.nn.resize import resize_bicubic
from skipsr.tracing import span

_HOST_FROM = 100  # frames of a clip from which its states wait in the host's memory


def run_steps(
    model: BasicVSR,
    steps: Sequence[Step],
    clip: Clip,
    size: tuple[int, int],
    strength: Tensor | None,
) -> Clip:
    """Every frame through the given steps of the two directions."""
    frames = frames_of(model, clip)
    in_place = frames.is_cpu and size == native_size(model, frames[0])
    result = torch.empty(len(clip), 3, *size, dtype=torch.float32)
    out = result[:, None] if in_place else None
    run = model.run(frames, *steps, host=waits_on_host(frames[0]), out=out, strength=strength)
    if in_place:
        deque(run, 0)  # frames are written where they belong
    else:
        land(fitted(model, run, clip, size), result)
    return Clip(keep_grey(result, clip.frames), clip.start)


def fitted(
    model: BasicVSR, run: Iterable[Tensor], clip: Clip, size: tuple[int, int]
) -> Iterator[Tensor]:
    """Frames `1 3 h w` of a run at the size that was asked for."""
    for frame in run:
        with span("reconstruct"):  # what becomes of them included
            yield fit_size(model, frame, clip, size)


def waits_on_host(frames: Tensor) -> bool:
    """Whether flows and backward states wait in the host's memory: of long clips on a card."""
    return not frames.is_cpu and len(frames) > _HOST_FROM


def frames_of(model: BasicVSR, clip: Clip) -> Tensor:
    """A clip as its network takes it: `1 t 3 h w`, where that is."""
    frames = clip.frames.to(model.fusion.weight.device)
    return to_whole_places(frames, model.config.unshuffle)[None]


def native_size(model: BasicVSR, frames: Tensor) -> tuple[int, ...]:
    """The size at which frames `t 3 h w` come out."""
    return tuple(model.config.scale * side for side in frames.shape[2:])


def fit_size(model: BasicVSR, frames: Tensor, clip: Clip, size: tuple[int, int]) -> Tensor:
    """Frames of a result, `n 3 h w`, as the clip's at the size that was asked for: what was added
    to its sides is cut off, and the rest resized, bicubic with antialias."""
    high, wide = (model.config.scale * side for side in clip.size)
    return resize_bicubic(frames[..., :high, :wide], size).clamp(0, 1)
