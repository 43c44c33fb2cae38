"""Gaussian windows, which SSIM, NIQE and BRISQUE share."""

import torch
from torch import Tensor


def gaussian(size: int, sigma: float) -> Tensor:
    """`size` samples about the middle, of sum 1, float64; a window is their outer product."""
    offsets = torch.arange(size).double() - (size - 1) / 2
    line = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return line / line.sum()


def smooth(x: Tensor, line: Tensor) -> Tensor:
    """Mean of `... h w` under the symmetric window of a line, where the window fits.

    Computed in float64 and returned as the dtype of `x`: `... h-n+1 w-n+1` for a line of n.
    """
    return _along(_along(x.double(), line, -2), line, -1).to(x.dtype)


def _along(x: Tensor, line: Tensor, axis: int) -> Tensor:
    weights = line.tolist()
    last = len(weights) - 1
    length = x.shape[axis] - last
    out = x.narrow(axis, last // 2, length) * weights[last // 2]
    for i in range(last // 2):  # both ends of a symmetric line share their weight
        ends = x.narrow(axis, i, length) + x.narrow(axis, last - i, length)
        out.add_(ends, alpha=weights[i])
    return out
