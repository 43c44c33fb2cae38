"""Norms that leave the dtype as it is."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor, eps: float | None, weight: Tensor | None = None) -> Tensor:
    """`x / sqrt(mean(x^2) + eps)` over the last axis, times `weight`, in the dtype of `x`.

    Autocast on CUDA would give float32, as would a float32 weight: twice the memory from there on,
    and no fast attention.
    """
    weight = None if weight is None else weight.to(x.dtype)
    kind, shape = x.device.type, x.shape[-1:]
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return F.rms_norm(x, shape, weight, eps)
    with torch.autocast(kind, enabled=False):
        return F.rms_norm(x, shape, weight, eps)


def affine_of(norm: nn.GroupNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """A group norm with given statistics, `... groups` each, as `x * scale + shift`, `... c` each,
    float32."""
    size = norm.num_channels // norm.num_groups
    scale = (variance.clamp_min(0) + norm.eps).rsqrt().repeat_interleave(size, -1) * norm.weight
    return scale, norm.bias - mean.repeat_interleave(size, -1) * scale


class RMSNorm(nn.RMSNorm):
    """`rms_norm` with a learned weight."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.eps, self.weight)
