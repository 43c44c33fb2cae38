"""The light upsampler: what is shown where nothing of a network is run.

It adds to bicubic upsampling what it can guess of the network's own picture from a few pixels of
one frame. Where the network would add little more, cells can be skipped which plain upsampling
would not serve.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.nn.convolution import convolve_onto, convolve_relu, fuses
from skipsr.weights.load import load_bundled

_Part = TypeVar("_Part", bound=nn.Module)
FOLDS = {"skipvsr:nano": 1, "skipvsr:nano-x2": 2}
"""Models whose pictures are guessed, and how many pixels along each axis make a place of theirs."""
PLACE = 4  # pixels of the result along each axis of a place
_WIDTH, _LAYERS = 16, 4
HIDDEN = _WIDTH * (_LAYERS + 1)
"""Values of a place in all hidden layers."""
_GREY = 0.5  # subtracted from the pixels


class LightUpsampler(nn.Module):
    """3x3 convolutions of few channels over a frame's places, LR pixels or squares of them.

    Borders are repeated. An untrained one adds nothing.

    Weights are stored as `layers.{i}.{weight,bias}`.
    """

    def __init__(self, inputs: int) -> None:
        """
        Args:
            inputs: values of a place.
        """
        super().__init__()
        sizes = [inputs, *[_WIDTH] * (_LAYERS + 1)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in pairwise(sizes))
        last = nn.Conv2d(_WIDTH, 3 * PLACE**2, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers.append(last)

    def forward(self, folded: Tensor) -> Tensor:
        """What is added to the 16 pixels of every place.

        Args:
            folded: `n inputs h w` in [0, 1], unshuffled frames where a place holds several pixels.

        Returns:
            `n 48 h w`, in the dtype of the weights.
        """
        return self.layers[-1](self.hidden(folded)[-1])

    def add_to(self, planes: Tensor, x: Tensor, strength: Tensor | None = None) -> None:
        """Add `strength` times what it gives to a picture, in its precision; that is not clamped.

        Args:
            planes: the picture, `h w 48` float32.
            x: `1 16 h w`, the last of its `hidden` layers.
            strength: scalar; None: 1.
        """
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        x, weight, bias = (each.to(planes.dtype) for each in (x, last.weight, last.bias))
        if strength is not None:
            weight, bias = weight * strength, bias * strength
        picture = planes.permute(2, 0, 1)[None]
        if fuses(x, weight):
            convolve_onto(x, weight, bias, (1, 1), (0, 0), picture)
        else:
            picture.add_(F.conv2d(x, weight, bias))

    def hidden(self, folded: Tensor, rows: slice = slice(None)) -> list[Tensor]:
        """What the hidden layers make of frames: `n 16 h+2m w+2m`, with a margin m that shrinks
        by one from layer to layer; the last has none.

        Args:
            folded: see `forward`.
            rows: of places; what lies around them is looked at, but not given.
        """
        *inner, _ = self.layers
        first, end, _ = rows.indices(folded.shape[2])
        x = folded.to(next(self.parameters()).dtype, memory_format=torch.channels_last)
        x = F.pad(x - _GREY, (len(inner),) * 4, mode="replicate")
        x = x[:, :, first : end + 2 * len(inner)]
        found: list[Tensor] = []
        for layer in inner:
            assert isinstance(layer, nn.Conv2d)
            x = convolve_relu(x, layer, (0, 0))
            found.append(x)
        return found


def rows_at(hidden: Sequence[Tensor], places: Tensor) -> Tensor:
    """What all hidden layers hold of some places of one frame, `k 80`; see `hidden`.

    Args:
        places: `k`, counted row by row from the first that is given.
    """
    width = hidden[-1].shape[3]
    y, x = places // width, places % width
    found: list[Tensor] = []
    for margin, layer in zip(reversed(range(len(hidden))), hidden, strict=True):
        rows = layer.permute(0, 2, 3, 1).reshape(-1, layer.shape[1])
        found.append(rows.index_select(0, (y + margin) * layer.shape[3] + x + margin))
    return torch.cat(found, 1)


class LightUpsamplers(nn.ModuleDict):
    """One of each model, by its preset."""

    def __init__(self) -> None:
        super().__init__(
            {preset_of(model): LightUpsampler(3 * fold**2) for model, fold in FOLDS.items()}
        )


def preset_of(model: str) -> str:
    """The name of a model in its family."""
    return model.partition(":")[2]


def load_light(model: str, path: Path | None = None) -> LightUpsampler | None:
    """A model's, from a file or the bundled one, float32 on the CPU; None: it has none.

    Raises:
        WeightsError: when the file is missing, damaged, or holds other networks.
    """
    name, asset = "the light upsampler", "skipvsr-light.safetensors"
    return load_for(model, LightUpsamplers, LightUpsampler, name, asset, path)


def load_for(
    model: str,
    one_of_each: type[nn.ModuleDict],
    kind: type[_Part],
    name: str,
    asset: str,
    path: Path | None,
) -> _Part | None:
    """What a file of `one_of_each` model of `FOLDS` holds for one; see `load_bundled`."""
    if model not in FOLDS:
        return None
    found = load_bundled(one_of_each, name, asset, path)[preset_of(model)]
    assert isinstance(found, kind)
    return found
