"""Self-supervised optical flow: photometric error, and smoothness where the picture is smooth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.trainable import Recurrent
from skipsr.nn.warp import warp
from skipsr.train.objective import Batch, Losses, Phase, Reads, to_clips
from skipsr.train.pixels import deviations

_EPS = 0.01
_EDGE = 10.0  # smoothness is weighted by exp(-_EDGE * gradient of the picture)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowObjective:
    """Robust photometric error + `smooth` times edge-aware smoothness, in both directions."""

    reads: ClassVar[Reads] = "clips"
    smooth: float = 0.02

    def phases(self, model: Recurrent) -> Sequence[Phase]:
        def losses(batch: Batch) -> Losses:
            frames = rearrange(to_clips(batch).base, "b c t h w -> b t c h w")
            to_next, to_previous = model.flows(frames)
            size = list(to_next.shape[3:])  # smaller than the frames where these are folded
            seen = F.interpolate(frames.flatten(0, 1), size, mode="area")
            seen = seen.unflatten(0, frames.shape[:2])
            return flow_losses(seen, to_next, to_previous, smooth=self.smooth)

        return [Phase("flow", model.part("flow"), losses, static=True)]


def flow_losses(frames: Tensor, to_next: Tensor, to_previous: Tensor, *, smooth: float) -> Losses:
    """Photometric error and roughness of flows between frames `b t 3 h w`, see `Recurrent.flows`.

    Errors are Charbonnier, so that what is hidden in the other frame weighs little.
    """
    first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    error, still, rough = [], [], []
    for ref, supp, flow in ((first, second, to_next), (second, first, to_previous)):
        flow = flow.flatten(0, 1).float()
        warped = warp(supp, flow.permute(0, 2, 3, 1), padding="border")
        error.append(deviations(warped - ref, _EPS).mean())
        still.append(deviations(supp - ref, _EPS).mean())
        rough.append(_roughness(flow, ref))
    photometric, roughness = torch.stack(error).mean(), torch.stack(rough).mean()
    figures = {
        "photometric": photometric,
        "unwarped": torch.stack(still).mean(),
        "roughness": roughness,
    }
    return Losses(photometric + smooth * roughness, figures)


def _roughness(flow: Tensor, image: Tensor) -> Tensor:
    total = flow.new_zeros(())
    for axis in (2, 3):
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (deviations(flow.diff(dim=axis), _EPS) * torch.exp(-_EDGE * edge)).mean()
    return total
