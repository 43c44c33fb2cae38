"""NIQE: how far a picture's statistics are from those of pristine ones (Mittal et al. 2013).

The pristine model in `assets/niqe.safetensors` is the one published with the paper by LIVE,
University of Texas at Austin. Numbers are those of the common Python port of the authors' MATLAB
code, which works in float32: in flat regions the local deviation is rounding noise, so that another
precision gives another score there.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.metrics.fidelity import luma
from skipsr.metrics.gaussian import smooth
from skipsr.metrics.metric import Metric, MetricError, check_frames, levels
from skipsr.metrics.natural import WINDOW, gamma, mean_score, moments, parameters, shape_of
from skipsr.nn.resize import imresize

BLOCK = 96  # pixels of a block's side; half of it at the second scale
_GRID = torch.arange(200, 10001).double() / 1000  # of alpha
_SHAPES = shape_of(_GRID)
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # rolls by rows and columns


def niqe(frames: Tensor, *, border: int = 0) -> float:
    """NIQE of luma, lower is better; the mean over frames, flat ones left out.

    Args:
        frames: `t 3 h w` in [0, 1]; rounded to 8 bits, luma rounded again.
        border: pixels left out on each side.

    Raises:
        MetricError: for frames of fewer than two blocks of 96x96, or for flat ones alone.
    """
    check_frames(frames)
    h, w = (max(0, n - 2 * border) for n in frames.shape[-2:])
    if border < 0 or (h // BLOCK) * (w // BLOCK) < 2:
        raise MetricError(f"NIQE needs two {BLOCK}x{BLOCK} blocks of pixels; {w}x{h} has fewer")
    inner = frames[..., border : border + h, border : border + w]
    return mean_score("NIQE", inner, lambda f: niqe_of_plane(luma(levels(f))))


def niqe_of_plane(plane: Tensor) -> Tensor:
    """NIQE of one grey picture `h w` in 0..255, rounded here; a number, nan when too flat."""
    h, w = (n // BLOCK * BLOCK for n in plane.shape)
    return _distance(features(plane[:h, :w].float().round()))


def features(plane: Tensor) -> Tensor:
    """Features of each block, `n 36` float64: 18 at full size, 18 at half.

    `plane` is `h w` in 0..255, float32, sides multiples of 96. The blocks of the first block column
    come first.
    """
    half = imresize(plane / 255, 0.5) * 255
    return torch.cat((_of_blocks(plane, BLOCK), _of_blocks(half, BLOCK // 2)), 1)


def _of_blocks(plane: Tensor, side: int) -> Tensor:
    normal = _normalise(plane)
    blocks = rearrange(normal, "(r h) (c w) -> (c r) h w", h=side, w=side)
    columns: list[Tensor] = []
    alpha, left, right = _fit(blocks)
    columns += [alpha, (left + right) / 2]
    for roll in _NEIGHBOURS:
        alpha, left, right = _fit(blocks * blocks.roll(roll, (1, 2)))
        mean = (right - left) * gamma(2 / alpha) / gamma(1 / alpha)
        columns += [alpha, mean, left, right]
    return torch.stack(columns, 1)


def _normalise(plane: Tensor) -> Tensor:
    """Local mean removed and divided by the local deviation plus one, all float32."""
    radius = len(WINDOW) // 2
    padded = F.pad(plane[None, None], (radius,) * 4, mode="replicate")[0, 0]
    mean = smooth(padded, WINDOW)
    deviation = (smooth(padded.square(), WINDOW) - mean.square()).abs().sqrt()
    return (plane - mean) / (deviation + 1)


def _fit(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Alpha and both betas of each block `n h w`; alpha is the best entry of the grid."""
    x = blocks.flatten(1).double()
    found = moments(x < 0, x > 0, x)
    grid, shapes = _GRID.to(x), _SHAPES.to(x)
    alpha = grid[(shapes - found.shape[:, None]).abs().argmin(1)]
    spread = (gamma(1 / alpha) / gamma(3 / alpha)).sqrt()
    return alpha, found.left * spread, found.right * spread


def _distance(rows: Tensor) -> Tensor:
    """Distance of the blocks' statistics `n 36` from the pristine ones."""
    whole = rows[rows.isfinite().all(1)]
    if len(whole) < 2:
        return rows.new_tensor(float("nan"))
    pristine = {name: tensor.to(rows) for name, tensor in parameters("niqe").items()}
    away = pristine["mean"] - rows.nanmean(0)
    mixed = (pristine["covariance"] + torch.cov(whole.T)) / 2
    return (away @ torch.linalg.pinv(mixed, rtol=1e-15) @ away).sqrt()


NIQE = Metric(
    name="niqe",
    columns={"niqe": "lower"},
    needs_truth=False,
    default=True,
    measure=lambda frames, _truth: {"niqe": niqe(frames)},
)
