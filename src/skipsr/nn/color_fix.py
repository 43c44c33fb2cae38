"""Colour fix: high frequencies of one clip, low frequencies of another.

SeedVR2's published scripts have it as wavelet reconstruction in their `color_fix`.
"""

import torch.nn.functional as F
from torch import Tensor

_LEVELS = 5  # blur radii 1, 2, 4, 8, 16


def low_frequencies(frames: Tensor) -> Tensor:
    """What five dilated 3x3 binomial blurs leave of `t c h w`; borders replicated."""
    for level in range(_LEVELS):
        frames = _blur(_blur(frames, 2**level, -1), 2**level, -2)
    return frames


def transfer_low_frequencies(frames: Tensor, source: Tensor) -> Tensor:
    """high(frames) + low(source), both `t c h w`; not clamped.

    The colours of a model drift, and the input's low frequencies hold the true ones. The blurs are
    linear, so one pass over the difference does what two would.
    """
    return frames + low_frequencies(source - frames)


def _blur(x: Tensor, radius: int, axis: int) -> Tensor:
    """[1, 2, 1] / 4 along one axis, taps `radius` apart."""
    length = x.shape[axis]
    padding = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
    padded = F.pad(x, padding, mode="replicate")
    ends = padded.narrow(axis, 0, length) + padded.narrow(axis, 2 * radius, length)
    return ends.add_(x, alpha=2).mul_(0.25)
