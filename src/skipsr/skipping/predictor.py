"""The mask predictor: which tokens need the transformer, read off the latent of the upsampled clip
(paper section 3.2; spec/skipsr section 3)."""

from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class MaskPredictor(nn.Module):
    """3x3x3 convolutions with ReLU between; the first halves height and width.

    Weights are stored as `layers.{i}.{weight,bias}`.
    """

    def __init__(self, latent_channels: int, width: int, layers: int) -> None:
        super().__init__()
        sizes = [latent_channels, *[width] * (layers - 1), 1]
        self.layers = nn.ModuleList(
            nn.Conv3d(a, b, 3, stride=(1, 1, 1) if i else (1, 2, 2), padding=1)
            for i, (a, b) in enumerate(pairwise(sizes))
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Logits that a token needs computing.

        Args:
            latent: `b t h w c`, scaled as the transformer reads it.

        Returns:
            `b t h/2 w/2`.
        """
        x = rearrange(latent, "b t h w c -> b c t h w")
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return rearrange(self.layers[-1](x), "b 1 t h w -> b t h w")
