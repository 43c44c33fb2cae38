"""Training on masked regions: a network learns to do without features beyond its mask.

Masks are those that the need predictor gives at run time, at shares drawn anew for each clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.trainable import Regional
from skipsr.skipping.decide import STRIP, needed
from skipsr.skipping.dial import Dial
from skipsr.skipping.need import CELL, NeedPredictor, head_of, load_need
from skipsr.skipping.route import over_pixels
from skipsr.train.objective import Batch, Generators, Losses, Phase, Reads, to_clips
from skipsr.train.pixels import deviations, psnr

_SCALE = 4  # pixels of the result on each axis of a place, which a mask decides on
_HEADS = {1: "skipvsr:nano", 2: "skipvsr:nano-x2"}  # of the need predictor, by what is folded


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionObjective:
    """Charbonnier loss over the places that are run: the mean over clips of each clip's mean.

    A share `dense` of the clips is run everywhere; of the others a share is skipped that is drawn
    between `least` and `most`.
    """

    reads: ClassVar[Reads] = "clips"
    dense: float = 0.4
    least: float = 0.1
    most: float = 0.8

    def phases(self, model: Regional) -> Sequence[Phase]:
        predictor = load_need()

        def losses(batch: Batch) -> Losses:
            clips = to_clips(batch)
            frames = rearrange(clips.base, "b c t h w -> b t c h w")
            high = clips.high
            fold = _SCALE * frames.shape[-1] // high.shape[-1]
            masks = self._masks(predictor.to(frames.device), frames, clips.generators, fold)
            result = rearrange(model.masked(frames, masks), "b t c h w -> b c t h w").float()
            shown = rearrange(masks, "b t 1 h w -> b 1 t h w")
            shown = over_pixels(shown, _SCALE, high.shape[3:])
            off = (deviations(result - high) * shown).flatten(1).sum(1)
            count = 3 * shown.flatten(1).sum(1)  # none in a clip of one colour
            loss = (off / count.clamp_min(1)).mean()  # each clip alike, however divided
            whole = masks.flatten(1).mean(1) == 1
            figures: dict[str, float | Tensor] = {"kept": masks.mean()}
            if bool(whole.any()):
                figures["psnr_dense"] = psnr(result[whole], high[whole])
            return Losses(loss, figures)

        return [Phase("model", model.part("all"), losses)]

    @torch.no_grad()
    def _masks(
        self, predictor: NeedPredictor, frames: Tensor, generators: Generators, fold: int
    ) -> Tensor:
        """`b t 1 h/fold w/fold`."""
        head, (h, w) = head_of(_HEADS[fold]), (side // fold for side in frames.shape[3:])
        found: list[Tensor] = []
        for clip, generator in zip(frames, generators, strict=True):
            everything = torch.rand((), generator=generator).item() < self.dense
            share = self.least + torch.rand((), generator=generator).item() * (
                self.most - self.least
            )
            dial = Dial(tau=0.0, share=1.0 if everything else 1 - share)
            with torch.autocast(frames.device.type, enabled=False):
                need = predictor(F.avg_pool2d(clip, fold))
                keep = needed(need, head, dial, STRIP).float()[:, None]
            found.append(over_pixels(keep, CELL, (h, w)))
        return torch.stack(found).to(frames.device)
