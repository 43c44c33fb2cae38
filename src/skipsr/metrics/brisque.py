"""BRISQUE: quality from scene statistics and a trained regressor (Mittal et al. 2012).

The support vectors in `assets/brisque.safetensors` are those published by LIVE, University of Texas
at Austin. Implementations differ by several points; this one computes what the package `brisque`
0.2.0 does. In flat regions the sign of rounding errors decides on which side a sample counts, so
sums are taken in the order in which that package's libraries take them, in float64 on the CPU.
"""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.metrics.metric import Metric, check_frames, levels
from skipsr.metrics.natural import gamma, mean_score, moments, parameters, shape_of

_GREY = np.array([0.2125, 0.7154, 0.0721])
_GAMMA, _RHO = 0.05, -155.845  # of the regressor's kernel, and its offset
_SMALLEST = 16  # pixels a side: below, the half-size picture has no statistics to speak of
_CUBIC = (-0.09375, 0.59375, 0.59375, -0.09375)  # of a = -0.75, half-way between pixels
_ALPHAS = (0.05, 50.0)  # where alpha is looked for
_HALVINGS = 60


def brisque(frames: Tensor) -> float:
    """BRISQUE, about 0 to 100, lower is better; the mean over frames, flat ones left out.

    Args:
        frames: `t 3 h w` in [0, 1], rounded to 8 bits.

    Raises:
        MetricError: for frames below 16 pixels a side, or for flat ones alone.
    """
    check_frames(frames, what="BRISQUE", smallest=_SMALLEST)
    return mean_score("BRISQUE", frames, lambda f: _regress(features(grey(levels(f)))))


def grey(pixels: Tensor) -> Tensor:
    """8-bit levels `3 h w` to grey `h w` in [0, 1], float64."""
    colours = np.ascontiguousarray(rearrange(pixels, "c h w -> h w c").double().cpu().numpy())
    return torch.from_numpy(colours * (1 / 255) @ _GREY)


def features(plane: Tensor) -> Tensor:
    """The 36 features of `h w` in [0, 1], float64: 18 at full size, 18 at half."""
    return torch.cat((_of_scale(plane), _of_scale(_halve(plane))))


def scale(values: Tensor) -> Tensor:
    """Features `36` in the ranges that the regressor was trained on: -1 to 1."""
    svr = parameters("brisque")
    low, high = svr["feature_min"], svr["feature_max"]
    return 2 * (values - low) / (high - low) - 1


def _regress(values: Tensor) -> Tensor:
    svr = parameters("brisque")
    distance = (svr["support_vectors"] - scale(values)).square().sum(1)
    return svr["dual_coef"] @ torch.exp(-_GAMMA * distance) - _RHO


def _of_scale(plane: Tensor) -> Tensor:
    normal = _normalise(plane)
    alpha, left, right = _fit(normal)
    found = [alpha, (left**2 + right**2) / 2]
    pairs = (
        (normal[:, :-1], normal[:, 1:]),
        (normal[:-1], normal[1:]),
        (normal[:-1, :-1], normal[1:, 1:]),
        (normal[1:, :-1], normal[:-1, 1:]),
    )
    for one, other in pairs:
        alpha, left, right = _fit(one * other)
        spread = (gamma(1 / alpha) / gamma(3 / alpha)).sqrt()
        mean = (right - left) * spread * gamma(2 / alpha) / gamma(1 / alpha)
        found += [alpha, mean, left**2, right**2]
    return torch.stack(found)


def _normalise(plane: Tensor) -> Tensor:
    """Local mean removed and divided by the local deviation plus 1/255; zeros beyond the border."""
    mean = _local_mean(plane)
    deviation = (mean.square() - _local_mean(plane.square())).abs().sqrt()
    return (plane - mean) / (deviation + 1 / 255)


def _local_mean(plane: Tensor) -> Tensor:
    """Under the 7x7 Gaussian of sigma 7/6, in the order of SciPy's `convolve2d`.

    Rows and columns from last to first; the last four of each row are summed before they join.
    """
    window = parameters("brisque")["window"]
    side = len(window)
    h, w = plane.shape
    padded = F.pad(plane, (side // 2,) * 4)
    mean = torch.zeros_like(plane)
    for row in reversed(range(side)):
        weights = window[row].tolist()
        taps = [padded[row : row + h, i : i + w] for i in range(side)]
        four = taps[6] * weights[6]
        for i in (5, 4, 3):
            four += taps[i] * weights[i]
        mean += four
        for i in (2, 1, 0):
            mean += taps[i] * weights[i]
    return mean


def _fit(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Alpha, and the root mean squares left and right, of all samples; zeros count as right."""
    flat = x.flatten()
    found = moments(flat < 0, flat >= 0, flat)
    low, high = (flat.new_tensor(bound) for bound in _ALPHAS)
    for _ in range(_HALVINGS):  # the shape grows with alpha, so halving the interval finds it
        middle = (low + high) / 2
        above = shape_of(middle) < found.shape
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2, found.left, found.right


def _halve(plane: Tensor) -> Tensor:
    """Bicubic to half size without antialias (a = -0.75, border replicated), as OpenCV resizes.

    Every output pixel lies between two of the input, so that four weights serve all. Columns first,
    then rows; odd sides are rounded half to even.
    """
    return _halve_rows(_halve_rows(plane.T).T)


def _halve_rows(plane: Tensor) -> Tensor:
    count, last = round(plane.shape[0] / 2), plane.shape[0] - 1
    first = 2 * torch.arange(count) - 1
    half = torch.zeros(count, plane.shape[1], dtype=plane.dtype)
    for tap, weight in enumerate(_CUBIC):
        half += plane[(first + tap).clamp(0, last)] * weight
    return half


BRISQUE = Metric(
    name="brisque",
    columns={"brisque": "lower"},
    needs_truth=False,
    default=True,
    measure=lambda frames, _truth: {"brisque": brisque(frames)},
)
