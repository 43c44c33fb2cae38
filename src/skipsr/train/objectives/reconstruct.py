"""A recurrent network end to end: its frames against the HR ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.trainable import Recurrent
from skipsr.train.objective import Batch, Losses, Phase, Reads, to_clips
from skipsr.train.pixels import psnr

_EPS = 1e-6  # its square is the 1e-12 of the published training


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructObjective:
    """The Charbonnier loss."""

    flow_rate: float = 1.0  # of the flow network, as a share of the learning rate

    @property
    def reads(self) -> Reads:
        return "clips"

    def phases(self, model: Recurrent) -> Sequence[Phase]:
        def losses(batch: Batch) -> Losses:
            clips = to_clips(batch)
            frames = rearrange(clips.base, "b c t h w -> b t c h w")
            result = rearrange(model(frames), "b t c h w -> b c t h w").float()
            loss = charbonnier(result, clips.high)
            figures = {
                "psnr": psnr(result, clips.high),
                "psnr_base": _base_psnr(clips.high, clips.base),
            }
            return Losses(loss, figures)

        rates = {"spynet": self.flow_rate}
        return [Phase("model", model.part("all"), losses, rates=rates)]


def charbonnier(result: Tensor, target: Tensor) -> Tensor:
    """Mean of `deviations`."""
    return deviations(result, target).mean()


def deviations(result: Tensor, target: Tensor) -> Tensor:
    """`sqrt(d^2 + 1e-12)` of every value."""
    return ((result - target).square() + _EPS**2).sqrt()


def _base_psnr(high: Tensor, low: Tensor) -> float:
    size = (low.shape[2], *high.shape[3:])
    return psnr(F.interpolate(low, size, mode="trilinear", align_corners=False), high)
