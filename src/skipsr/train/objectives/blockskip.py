"""Training with block skipping (SkipVSR): the network and its routers, with a dense teacher.

The teacher says how far features are from done, routers learn to predict that, and the network
learns to do with fewer blocks.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.routing_targets import feature_distances
from skipsr.backbones.trainable import RoutedRecurrent, RoutingTrace
from skipsr.train.objective import Batch, Generators, Losses, Phase, Reads, to_clips
from skipsr.train.pixels import charbonnier, psnr


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSkipObjective:
    """L_rec + `mask` L_mask + `error` L_error.

    In each step a share `dense` of the clips runs every block; the others skip a share of theirs,
    drawn anew up to `most`, where they are least sure.
    """

    reads: ClassVar[Reads] = "clips"
    mask: float = 0.1
    error: float = 0.1
    gain: float = 1.0  # of the distance to the dense network's features, before the tanh
    dense: float = 0.25
    most: float = 0.75
    tile: int | None = None
    """Side of the patches, LR pixels, so that neighbours meet whose blocks ran and did not; by
    default, as in the paper, a crop is one patch."""
    router_rate: float = 10.0  # of the network's learning rate

    def phases(self, model: RoutedRecurrent) -> Sequence[Phase]:
        assert isinstance(model, nn.Module)
        model.routers()  # before anything is copied or counted: they may begin here
        teacher = copy.deepcopy(model)
        assert isinstance(teacher, RoutedRecurrent)

        def losses(batch: Batch) -> Losses:
            clips = to_clips(batch)
            return self._losses(model, teacher, clips.base, clips.high, clips.generators)

        rates = {"router": self.router_rate, "spynet": 0.0}
        return [Phase("routing", model.part("all"), losses, auxiliary=[teacher], rates=rates)]

    def _losses(
        self,
        model: RoutedRecurrent,
        teacher: RoutedRecurrent,
        low: Tensor,
        high: Tensor,
        generators: Generators,
    ) -> Losses:
        frames = rearrange(low, "b c t h w -> b t c h w")
        everything = frames.new_zeros(len(frames))
        with torch.no_grad():
            dense = teacher.forward_traced(frames, everything, model.routers(), tile=self.tile)
        limits = self._thresholds(dense.confidences, generators)
        routed = model.forward_traced(frames, limits, tile=self.tile)
        result = rearrange(routed.frames, "b t c h w -> b c t h w").float()
        target = torch.tanh(self.gain * feature_distances(model, routed, dense))
        known = routed.confidences[:, 1:]  # first frames are not decided
        mask = F.mse_loss(known, target)
        error = feature_error(routed, dense, model.aligned_layers)
        loss = charbonnier(result, high) + self.mask * mask + self.error * error
        figures = {
            "psnr": psnr(result, high),
            "mask": mask.item(),
            "spread": target.std().item(),
            "level": target.mean().item(),
            "error": error.item(),
            "executed": routed.executed[:, 1:].float().mean().item(),
        }
        return Losses(loss, figures)

    def _thresholds(self, confidences: Tensor, generators: Generators) -> Tensor:
        """For each clip one that skips a share of its blocks; 0 keeps all."""
        chosen: list[Tensor] = []
        clips = confidences[:, 1:].unflatten(3, (len(generators), -1)).unbind(3)
        for sure, generator in zip(clips, generators, strict=True):
            run_all = torch.rand((), generator=generator).item() < self.dense
            share = torch.rand((), generator=generator).item() * self.most
            found = sure.flatten()
            keep_all = run_all or not len(found)
            chosen.append(found.new_zeros(()) if keep_all else found.quantile(share))
        return torch.stack(chosen)


def feature_error(
    routed: RoutingTrace, dense: RoutingTrace, aligned_layers: Sequence[int]
) -> Tensor:
    """Eq. 11: squared distance of the features' energy per pixel from the teacher's.

    It is a mean over pixels and frames, and a sum over aligned layers and directions.
    """
    total = routed.frames.new_zeros((), dtype=torch.float32)
    for ours, theirs in zip(routed.features, dense.features, strict=True):
        for features, goals in zip(ours, theirs, strict=True):
            for depth in aligned_layers:
                a, b = (x[depth].float().square().mean(1) for x in (features, goals))
                total = total + (a - b).square().mean() / len(ours)
    return total
