"""A recurrent network end to end: its frames against the HR ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.trainable import Recurrent
from skipsr.data.degrade import downscale
from skipsr.train.objective import Batch, ClipBatch, Losses, Phase, Reads, to_clips
from skipsr.train.pixels import charbonnier, psnr, structure_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructObjective:
    """The Charbonnier loss, and `structure` times the structure loss."""

    reads: ClassVar[Reads] = "clips"
    structure: float = 0.0
    flow_rate: float = 1.0  # of the flow network, as a share of the learning rate

    def phases(self, model: Recurrent) -> Sequence[Phase]:
        def losses(batch: Batch) -> Losses:
            clips = to_clips(batch)
            result, high = enlarge(model, clips)
            loss = charbonnier(result, high)
            if self.structure:
                loss = loss + self.structure * structure_loss(result, high)
            figures = {"psnr": psnr(result, high), "psnr_base": _base_psnr(high, clips.base)}
            return Losses(loss, figures)

        rates = {"spynet": self.flow_rate}
        return [Phase("model", model.part("all"), losses, rates=rates, static=True)]


def enlarge(model: Recurrent, clips: ClipBatch) -> tuple[Tensor, Tensor]:
    """What the network makes of LR clips, float32, and its truth: `b 3 t h w` each."""
    frames = rearrange(clips.base, "b c t h w -> b t c h w")
    result = rearrange(model(frames), "b t c h w -> b c t h w").float()
    return result, truth_for(result, clips.high)


def truth_for(result: Tensor, high: Tensor) -> Tensor:
    """The HR clip at the size of what a network made of the LR one, `b 3 t h w`.

    Clips shrunk by four serve a network that enlarges by two as well: against half the HR one.
    """
    scale = high.shape[3] // result.shape[3]
    return high if scale == 1 else downscale(high, scale)


def _base_psnr(high: Tensor, low: Tensor) -> Tensor:
    size = (low.shape[2], *high.shape[3:])
    return psnr(F.interpolate(low, size, mode="trilinear", align_corners=False), high)
