"""The need predictor: the error of each cell without a model, from LR frames alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.nn.box import box_mean
from skipsr.nn.convolution import convolve_relu
from skipsr.weights.load import load_bundled

CELL = 4  # pixels a side of what is a quarter of the result: 16 of that
HEADS = ("lost", "skipvsr:nano", "seedvr2:nano", "skipvsr:nano-x2")
"""What is predicted: the error of plain upsampling, and what whole models change about it."""
LOST = HEADS.index("lost")
_USUAL, _SCALE = -9.0, 2.0  # about where ln errors lie, and how far they spread
_MOST = math.log(0.25)  # what grey is off from black and white: ln errors stay below
_SPREADS = (-3.0, 1.5)  # bounds of ln spread
_WIDTH, _LAYERS = 48, 4
_NEAR = 2  # pixels on each side that a pixel is compared with
_GAIN = 4.0  # of the pixels, so that training starts fast
_FAINT = 1e-6  # mean squared contrast of a grey level's quarter


@dataclass(frozen=True, slots=True)
class Need:
    """The predicted error of the upsampled picture: per cell a logistic distribution of its ln.

    Errors are mean squared, pixels in 0 to 1.
    """

    mean: Tensor
    """`b k h w`, float32: ln error, for every head."""
    spread: Tensor
    """The same shape, above 0: how far off that may be."""

    def probability(self, tau: float) -> Tensor:
        """P(error > tau), `b k h w`."""
        return ((self.mean - math.log(tau)) / self.spread).sigmoid()

    def larger(self, other: "Need") -> "Need":
        """For every cell and head the one that expects more."""
        more = other.mean > self.mean
        return Need(
            torch.where(more, other.mean, self.mean), torch.where(more, other.spread, self.spread)
        )


Decider = Callable[[Tensor], Need | Tensor]
"""From a clip's frames `t 3 h w` in [0, 1], at a quarter of the result's size, to the need of their
cells, or to the mask itself: bool `t h/4 w/4`, sides rounded up, True = computed."""


class NeedPredictor(nn.Module):
    """3x3 convolutions over cells of 4x4 LR pixels, each frame by itself.

    They see the luma of a cell's pixels, the signed square roots of what sets it off from its
    neighbourhood, so that faint texture counts, and the logarithm of how much that is in all. The
    same weights answer for every tau and every budget. Borders are repeated, and so are frames up
    to whole cells.

    Weights are stored as `layers.{i}.{weight,bias}`.
    """

    def __init__(self, heads: Sequence[str] = HEADS) -> None:
        super().__init__()
        sizes = [2 * CELL**2 + 3, *[_WIDTH] * _LAYERS]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in pairwise(sizes))
        self.layers.append(nn.Conv2d(_WIDTH, 2 * len(heads), 1))

    def forward(self, frames: Tensor) -> Need:
        """The need of every cell.

        Args:
            frames: `b 3 h w` in [0, 1], of any size; each is a frame of its own.

        Returns:
            `b k h/4 w/4`, sides rounded up.
        """
        first, *inner, last = self.layers
        dtype = next(self.parameters()).dtype
        x = _convolve(features(frames.float()).to(dtype, memory_format=torch.channels_last), first)
        for layer in inner:
            x = x + _convolve(x, layer)
        mean, spread = rearrange(last(x).float(), "b (two k) h w -> two b k h w", two=2)
        mean = _MOST - F.softplus(_MOST - _USUAL - _SCALE * mean)  # bends below it, keeps the order
        return Need(mean, spread.clamp(*_SPREADS).exp())


def _convolve(x: Tensor, layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    return convolve_relu(F.pad(x, (1, 1, 1, 1), mode="replicate"), layer, (0, 0))


def features(frames: Tensor) -> Tensor:
    """`b 3 h w` -> `b 2*16+3 h/4 w/4`: brightness and contrast of a cell's pixels, and how much
    contrast it has in each colour."""
    h, w = frames.shape[-2:]
    frames = F.pad(frames, (0, -w % CELL, 0, -h % CELL), mode="replicate")
    gap = frames - box_mean(frames, _NEAR)
    contrast = _luma(gap)
    contrast = contrast.sign() * contrast.abs().sqrt()
    pixels = F.pixel_unshuffle(torch.cat((contrast, _luma(frames) - 0.5), 1), CELL)
    energy = (F.avg_pool2d(gap.square(), CELL) + _FAINT).log() - math.log(_FAINT)
    return torch.cat((_GAIN * pixels, energy / 2 - 2), 1)


def _luma(frames: Tensor) -> Tensor:
    red, green, blue = frames.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def load_need(path: Path | None = None) -> NeedPredictor:
    """The predictor from a file, or the bundled one; float32, on the CPU.

    Raises:
        WeightsError: when the file is missing, damaged, or holds another network.
    """
    return load_bundled(NeedPredictor, "the need predictor", "need.safetensors", path)


def ask(decider: Decider, frames: Tensor) -> Need | Tensor:
    """What it decides of frames `t 3 h w`.

    Raises:
        TypeError: for what is neither a mask nor a need.
        ValueError: for a mask that is not bool, or one that is not of the frames' cells, as a need.
    """
    found = cast(object, decider(frames))  # by a function of the user
    rows, columns = (-(-side // CELL) for side in frames.shape[2:])
    if isinstance(found, Need):
        shape = len(frames), len(HEADS), rows, columns
        for each in (found.mean, found.spread):
            if each.shape != shape:
                raise ValueError(f"the need of these frames is {shape}, not {tuple(each.shape)}")
        return found
    if not isinstance(found, Tensor):
        raise TypeError(f"a mask is a tensor, or a Need, not of type {type(found).__name__}")
    grid = len(frames), rows, columns
    if found.dtype != torch.bool or found.shape != grid:
        raise ValueError(
            f"a mask of these frames is bool {grid}, not {found.dtype} {tuple(found.shape)}"
        )
    return found


def head_of(model: str) -> int:
    """The head to go by for a model: its own, or what plain upsampling loses."""
    return HEADS.index(model) if model in HEADS else LOST
