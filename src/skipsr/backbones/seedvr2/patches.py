"""The linear parts of the small autoencoder, whose decoder sees the base (DESIGN.md, "Decisions").

Its encoder is a linear map of patches: layers deeper than that learned to answer a constant beside
it, and a decoder that has the base needs little more. Beside the deep decoder runs the same map
back, so that latents carry detail from the first hundred steps on.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.nn.box import box_mean
from skipsr.nn.causal import CausalConv3d, Stream

START_LOG_VARIANCE = -6.0
"""Of an untrained posterior: a wide one would drown what the latent says."""


class PatchEncoder(nn.Module):
    """Encoder whose mean is a linear map of a cell's pixels, with one variance for all cells.

    The first frame is a patch by itself, repeated in time. It reads `emphasise_detail`.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.space, self.time = config.space, config.time
        values = 3 * self.time * self.space**2
        self.proj = CausalConv3d(values, config.latent_channels, (1, 1, 1))
        self.log_variance = nn.Parameter(torch.full((config.latent_channels,), START_LOG_VARIANCE))

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:  # b 3 t h w -> b 2c t' h/8 w/8
        if stream.begins(self):
            first = frames[:, :, :1].expand(-1, -1, self.time - 1, -1, -1)
            frames = torch.cat((first, frames), 2)
        patches = rearrange(
            frames,
            "b c (t frame) (h row) (w col) -> b (c frame row col) t h w",
            frame=self.time,
            row=self.space,
            col=self.space,
        )
        mean = self.proj(patches, stream)
        spread = self.log_variance.to(mean.dtype)[:, None, None, None]
        return torch.cat((mean, spread.expand_as(mean)), 1)


class PatchOut(nn.Module):
    """A linear map from every latent cell to its patch of pixels; starts at zero."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.space, self.time = config.space, config.time
        values = 3 * self.time * self.space**2
        self.proj = CausalConv3d(config.latent_channels, values, (1, 1, 1))

    def forward(self, latent: Tensor, stream: Stream) -> Tensor:  # b c t h w -> b 3 t' 8h 8w
        frames = rearrange(
            self.proj(latent, stream),
            "b (c frame row col) t h w -> b c (t frame) (h row) (w col)",
            c=3,
            frame=self.time,
            row=self.space,
        )
        return frames[:, :, self.time - 1 :] if stream.begins(self) else frames


def emphasise_detail(frames: Tensor) -> Tensor:
    """Input of an encoder whose decoder has the colours from the base: mostly local detail."""
    return frames / 4 + 4 * local_detail(frames)


def local_detail(frames: Tensor) -> Tensor:
    """`b c t h w` minus its mean over 7x7 pixels; borders replicated."""
    return frames - box_mean(frames, 3)
