"""The gain on a network's residual, which is what it adds to the upsampled frames.

Trained on squared errors, networks add the less the more uncertain they are. The gain gives some of
that back, as far as a fixed share of the squared error pays for it.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.weights.load import load_bundled

MODELS = ("skipvsr:nano", "skipvsr:nano-x2")
"""Whose doubt is predicted."""
PRICE = 0.02  # of the squared error, that a result may gain by it; how chosen: nano-log.md
_USUAL = math.log(6.0)  # doubt of footage, for models of which none is predicted
_MOST = 1.6  # beyond edges ring
_SIDE, _STEP = 8, 4  # pixels: of a block, and from one to the next
_HIDDEN = 32
_FAINT = 0.1  # squared grey levels: less is as good as nothing
_EVERY = 8  # frames: quality changes slowly


class DoubtPredictor(nn.Module):
    """ln of a result's doubt, its error by its residual, from the spectrum of the LR frames.

    Both are mean squares over a clip: of the difference between result and truth, and of that
    between result and upsampled frames. Damage shows in a spectrum: coders quantise high
    frequencies away, blur dims them, noise lifts them. Of the coefficients of 8x8 DCTs, half a
    block apart, it sees the mean of the logarithms, in luma also the logarithm of the mean; rows
    and columns count alike.

    Weights are stored as `layers.{i}.{weight,bias}`.
    """

    def __init__(self, models: Sequence[str] = MODELS) -> None:
        super().__init__()
        pairs = _SIDE * (_SIDE + 1) // 2
        # a mean brightness says nothing
        self.layers = nn.Sequential(
            nn.Linear(3 * pairs - 2, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, len(models))
        )

    def forward(self, spectrum: Tensor) -> Tensor:
        """From spectra `... 106` to ln doubt of every model, `... k`."""
        return self.layers(spectrum)


def spectrum_of(frames: Tensor) -> Tensor:
    """What `DoubtPredictor` sees of a clip `t 3 h w` in [0, 1]: `106`, float32."""
    h, w = frames.shape[-2:]
    frames = 255 * F.pad(frames.float(), (0, max(0, _SIDE - w), 0, max(0, _SIDE - h)), "replicate")
    red, green, blue = frames.split(1, dim=1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    basis = _dct(frames.device)
    light = F.conv2d(luma, basis, stride=_STEP).square()
    colour = F.conv2d(torch.cat((blue - luma, red - luma)), basis, stride=_STEP).square()
    means = (
        (light.mean((0, 2, 3)) + _FAINT).log(),
        (light + _FAINT).log().mean((0, 2, 3)),
        (colour + _FAINT).log().mean((0, 2, 3)),
    )
    first, second, third = (_alike(mean) for mean in means)
    return torch.cat((first[1:], second[1:], third))


def _alike(values: Tensor) -> Tensor:
    """Of `64` values those of each pair of frequencies, whichever is across: `36`."""
    square = values.unflatten(0, (_SIDE, _SIDE))
    return torch.cat([((square + square.T) / 2)[row, row:] for row in range(_SIDE)])


def _dct(device: torch.device) -> Tensor:
    """The basis of the 8x8 DCT, `64 1 8 8`."""
    places = torch.arange(_SIDE, dtype=torch.float32, device=device)
    waves = torch.cos((2 * places + 1) * places[:, None] * math.pi / (2 * _SIDE))
    waves *= torch.where(places == 0, 1 / _SIDE, 2 / _SIDE).sqrt()[:, None]
    return torch.einsum("ui,vj->uvij", waves, waves).flatten(0, 1)[:, None]


class Strength:
    """What a model's residual is multiplied by, clip by clip.

    Drawn `c` times as strongly they add `(c - 1)**2` times their mean square to the squared error,
    if nothing of what is left could be known: so `c` is as large as a fixed share of the error
    allows.
    """

    def __init__(self, model: str, detail: float, predictor: DoubtPredictor | None = None) -> None:
        """
        Args:
            detail: 0 to 1; from 0.5 on all of `PRICE` may be paid.
            predictor: the bundled one, if none is given.
        """
        self._gain = min(1.0, 2 * detail) * math.sqrt(PRICE)
        self._head = MODELS.index(model) if model in MODELS else None
        self._predictor = None if self._head is None else predictor or load_doubt()

    def __call__(self, frames: Tensor, device: torch.device) -> Tensor:
        """For a clip's frames `t 3 h w` in [0, 1]: at least 1, a scalar on the device."""
        if self._head is None or self._predictor is None:
            doubt = torch.full((), _USUAL, device=device)
        else:
            seen = spectrum_of(frames[::_EVERY].to(device))
            doubt = self._predictor.to(device)(seen)[self._head]
        return (1 + self._gain * (doubt / 2).exp()).clamp(max=_MOST)


def load_doubt(path: Path | None = None) -> DoubtPredictor:
    """The predictor from a file, or the bundled one; float32, on the CPU.

    Raises:
        WeightsError: when the file is missing, damaged, or holds another network.
    """
    return load_bundled(DoubtPredictor, "the predictor of doubt", "doubt.safetensors", path)
