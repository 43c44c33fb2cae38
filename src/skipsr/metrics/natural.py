"""Statistics of natural scenes: what NIQE and BRISQUE have in common."""

from collections.abc import Callable
from functools import cache
from importlib.resources import as_file, files
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from skipsr.metrics.gaussian import gaussian
from skipsr.metrics.metric import MetricError

WINDOW = gaussian(7, 7 / 6)


class Moments(NamedTuple):
    """Moments of samples `... n` to fit an asymmetric generalised Gaussian by, each `...`."""

    left: Tensor  # root mean square of one side
    right: Tensor
    shape: Tensor  # the ratio that decides alpha


def moments(left: Tensor, right: Tensor, x: Tensor) -> Moments:
    """Moments of samples `... n`, given which belong to which side (bool `... n`), float64.

    Lasmar, Stitou and Berthoumieu 2009. Not a number where a side has no samples.
    """
    square = x.square()
    sides = [((square * side).sum(-1) / side.sum(-1)).sqrt() for side in (left, right)]
    ratio = sides[0] / sides[1]
    plain = x.abs().mean(-1).square() / square.mean(-1)
    shape = plain * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    return Moments(sides[0], sides[1], shape)


def gamma(x: Tensor) -> Tensor:
    """The gamma function of positive numbers."""
    return torch.exp(torch.lgamma(x))


def shape_of(alpha: Tensor) -> Tensor:
    """Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)), which grows with alpha."""
    a = 1 / alpha
    return torch.exp(2 * torch.lgamma(2 * a) - torch.lgamma(a) - torch.lgamma(3 * a))


def mean_score(name: str, frames: Tensor, score: Callable[[Tensor], Tensor]) -> float:
    """Mean of `score` over the frames of `t 3 h w` that have one; flat ones have none.

    Raises:
        MetricError: when no frame has one.
    """
    values = torch.stack([score(frame) for frame in frames])
    found = values[values.isfinite()]
    if not len(found):
        raise MetricError(f"{name} is not defined for these frames: they are flat")
    return found.mean().item()


@cache
def parameters(name: str) -> dict[str, Tensor]:
    """The tensors of `assets/<name>.safetensors`; do not change them."""
    with as_file(files("skipsr.assets") / f"{name}.safetensors") as path:
        return load_file(path)
