"""Colour fix: high frequencies of one clip, low frequencies of another; and grey stays grey.

SeedVR2's published scripts have the former as wavelet reconstruction in their `color_fix`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 5  # blur radii 1, 2, 4, 8, 16
_WEIGHT = 0.25 ** (2 * _LEVELS)  # of sums of [1, 2, 1] along both axes


def low_frequencies(frames: Tensor) -> Tensor:
    """What five dilated 3x3 binomial blurs leave of `... c h w`, float32; borders replicated.

    The blurs' factors are powers of two and can wait, which saves a pass for each.
    """
    for level in range(_LEVELS):
        frames = _sum(_sum(frames, 2**level, -1), 2**level, -2)
    return frames.mul_(_WEIGHT)


def transfer_low_frequencies(frames: Tensor, source: Tensor) -> Tensor:
    """high(frames) + low(source), both `t c h w`, float32; not clamped.

    The colours of a model drift, and the input's low frequencies hold the true ones. The blurs are
    linear, so one pass over the difference does what two would. They take a frame at a time, which
    on a processor is nearer than the memory of a whole clip.
    """
    out = torch.empty_like(frames)
    for frame, seen, made in zip(frames, source, out, strict=True):
        torch.add(frame, low_frequencies(seen - frame), out=made)
    return out


def _sum(x: Tensor, radius: int, axis: int) -> Tensor:
    """[1, 2, 1] along one axis, taps `radius` apart."""
    length = x.shape[axis]
    padding = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
    padded = F.pad(x, padding, mode="replicate")
    ends = padded.narrow(axis, 0, length) + padded.narrow(axis, 2 * radius, length)
    return ends.add_(x, alpha=2)


def keep_grey(frames: Tensor, source: Tensor) -> Tensor:
    """Frames made of grey ones lose the tints that a network gave them, in place: each becomes its
    luma (ITU-R BT.601).

    Args:
        frames: `t 3 h w`, of any size.
        source: `t 3 h w`, what they were made of; grey is where all three colours are equal.
    """
    for made, seen in zip(frames, source, strict=True):
        if torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2]):
            red, green, blue = made
            luma = green + 0.299 * (red - green) + 0.114 * (blue - green)  # exact where it is grey
            made.copy_(luma)
    return frames
