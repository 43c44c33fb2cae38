"""Bicubic resizing: torch's, and MATLAB's `imresize`, on which published figures rest."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_A = -0.5  # of the cubic kernel (Keys 1981), as Pillow has it too; interpolate of torch has -0.75


def resize_bicubic(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with antialias to `(height, width)`: `t c h w` in [0, 1], clamped to it."""
    if frames.shape[-2:] == size:
        return frames
    sized = F.interpolate(frames, size, mode="bicubic", align_corners=False, antialias=True)
    return sized.clamp(0, 1)


def imresize(x: Tensor, scale: float) -> Tensor:
    """Bicubic resize; the kernel is stretched when shrinking, so nothing aliases.

    The middle of output pixel i lies at (i + 0.5) / scale - 0.5 of the input; the border is
    mirrored with its edge pixel. Rows first, then columns; nothing is clipped or rounded.

    Args:
        x: `... h w`, float32 or float64, any range.
        scale: of both sides, above 0.

    Returns:
        `... ceil(h scale) ceil(w scale)`, of the dtype and on the device of `x`.

    Raises:
        ValueError: for a scale that is not above 0, or for integers.
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"a scale is above 0, not {scale}")
    if not x.is_floating_point():
        raise ValueError(f"resizing takes floating point, not {x.dtype}")
    return _resize(_resize(x, scale, -2), scale, -1)


def _resize(x: Tensor, scale: float, axis: int) -> Tensor:
    """Along one axis: one weighted selection per tap."""
    taps, weights = _taps(x.shape[axis], scale)
    taps, weights = taps.to(x.device), weights.to(x)
    if axis == -2:
        weights = weights[:, :, None]
    out = x.index_select(axis, taps[0]) * weights[0]
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        out.addcmul_(x.index_select(axis, tap), weight)
    return out


def _taps(size: int, scale: float) -> tuple[Tensor, Tensor]:
    """Source pixels and weights (float64) of every output pixel, both `taps out`."""
    stretch = min(scale, 1.0)  # below 1 the kernel grows with the shrinking
    middle = (torch.arange(math.ceil(size * scale)).double() + 0.5) / scale - 0.5
    reach = 2 / stretch
    first = torch.floor(middle - reach)
    pixels = first + torch.arange(math.ceil(2 * reach) + 2)[:, None]
    weights = cubic(stretch * (middle - pixels))
    weights = weights / weights.sum(0)
    used = weights.abs().amax(1) > 0
    around = pixels[used].long() % (2 * size)  # the mirrored line repeats itself after 2 size
    return torch.minimum(around, 2 * size - 1 - around), weights[used]


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, zero from distance 2 on."""
    x = x.abs()
    near = (_A + 2) * x**3 - (_A + 3) * x**2 + 1
    far = _A * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
