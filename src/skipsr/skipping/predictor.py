"""SkipSR's mask predictor (section 3.2): from the upsampled clip's latent, which tokens to keep."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.errors import SettingsError
from skipsr.skipping.oracle import TAU


class MaskPredictor(nn.Module):
    """3x3x3 convolutions with ReLU between; the first halves height and width.

    The paper's predictor answers one question: does the error of plain upsampling exceed `TAU`?
    With `any_tau` the last layer gives ln(error / TAU) and one learned number says how sure that
    is, so that the same weights answer for every tau:
    P(error > tau) = sigmoid(ln(error / tau) / spread).

    Weights are stored as `layers.{i}.{weight,bias}`, and `log_spread` with `any_tau`.
    """

    def __init__(
        self, latent_channels: int, width: int, layers: int, *, any_tau: bool = False
    ) -> None:
        super().__init__()
        sizes = [latent_channels, *[width] * (layers - 1), 1]
        self.layers = nn.ModuleList(
            nn.Conv3d(a, b, 3, stride=(1, 1, 1) if i else (1, 2, 2), padding=1)
            for i, (a, b) in enumerate(pairwise(sizes))
        )
        self.log_spread = nn.Parameter(torch.zeros(())) if any_tau else None

    def forward(self, latent: Tensor, tau: float = TAU) -> Tensor:
        """Logits that a token needs computing.

        Args:
            latent: `b t h w c`, scaled as the transformer reads it.
            tau: mean squared error above which a token needs computing, pixels in [0, 1].

        Returns:
            `b t h/2 w/2`.

        Raises:
            SettingsError: for a tau other than `TAU` when the weights know only that one.
        """
        x = rearrange(latent, "b t h w c -> b c t h w")
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        x = rearrange(self.layers[-1](x), "b 1 t h w -> b t h w")
        if self.log_spread is not None:
            return (x - math.log(tau / TAU)) * torch.exp(-self.log_spread)
        if tau != TAU:
            raise SettingsError(
                f"this model's mask predictor was trained for tau {TAU:g} alone: leave out `tau`, "
                "and move `threshold` instead"
            )
        return x
