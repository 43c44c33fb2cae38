"""What a network would hold just beyond what is run of it, guessed by a linear map.

Its layers look one pixel beyond. There the light upsampler, which is run everywhere, has seen the
picture, and its hidden layers tell about half of what the network's own would hold.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from skipsr.skipping.light import FOLDS, HIDDEN, load_for, preset_of

CHANNELS, LAYERS = 48, 27
"""What is guessed of the networks of `FOLDS`: see `Backbone.trace`."""
CODE = 32  # values of a place that all guesses are made from


class Surroundings(nn.Module):
    """From the light upsampler's hidden layers to a network's, by way of a short code.

    An untrained one guesses zeros.

    Weights are stored as `code.{weight,bias}`, `layers` and `network`.

    Attributes:
        layers: what makes a layer of a code, `27 32 48`; one value of the code is always 1.
        network: the biases of the network's fusion, by which it is known: of other weights nothing
            can be guessed.
    """

    network: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(HIDDEN, CODE)
        self.layers = nn.Parameter(torch.zeros(LAYERS, CODE, CHANNELS))
        self.register_buffer("network", torch.zeros(CHANNELS))

    def forward(self, hidden: Tensor) -> Tensor:
        """`k 80` of some places, see `rows_at` -> what all layers hold of them, `27 k 48`."""
        return self.code(hidden) @ self.layers


class SurroundingsByModel(nn.ModuleDict):
    """One of each model, by its preset."""

    def __init__(self) -> None:
        super().__init__({preset_of(model): Surroundings() for model in FOLDS})


def load_surroundings(model: str, path: Path | None = None) -> Surroundings | None:
    """A model's, from a file or the bundled one, float32 on the CPU; None: it has none.

    Raises:
        WeightsError: when the file is missing, damaged, or holds other networks.
    """
    name, asset = "the surroundings", "skipvsr-surroundings.safetensors"
    return load_for(model, SurroundingsByModel, Surroundings, name, asset, path)
