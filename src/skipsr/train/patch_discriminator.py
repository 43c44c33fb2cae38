"""A discriminator of pixels: how real each patch of three frames in a row looks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

FRAMES = 3  # seen together, so that flicker is told from motion
_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Convolutions with spectral norms, in the manner of SN-PatchGAN (arXiv 1802.05957).

    Args:
        channels: of the first level; later ones have twice as many.
    """

    def __init__(self, channels: int = 48) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.ModuleList(
            spectral_norm(layer)
            for layer in (
                nn.Conv2d(4 * 3 * FRAMES, channels, 3, padding=1),
                nn.Conv2d(channels, wide, 4, stride=2, padding=1),
                nn.Conv2d(wide, wide, 3, padding=1),
                nn.Conv2d(wide, wide, 4, stride=2, padding=1),
                nn.Conv2d(wide, wide, 3, padding=1),
            )
        )
        self.answer = spectral_norm(nn.Conv2d(wide, 1, 3, padding=1))

    def forward(self, frames: Tensor) -> Tensor:
        """Logits `n 1 h/8 w/8`, high = real, of frames `b 3 t h w` in [0, 1].

        n counts every second run of three frames of each clip; h and w are multiples of 8.
        """
        runs = frames.unfold(2, FRAMES, 2)  # b 3 n h w FRAMES
        x = runs.permute(0, 2, 1, 5, 3, 4).flatten(2, 3).flatten(0, 1)
        x = F.pixel_unshuffle(2 * x - 1, 2).contiguous(memory_format=torch.channels_last)
        with parametrize.cached():
            self._normalise(frames.device.type)
            for layer in self.layers:
                x = F.leaky_relu(layer(x), _SLOPE)
            return self.answer(x).float()

    def _normalise(self, device: str) -> None:
        """Compute the weights over their spectral norms in float32, whatever the autocast."""
        with torch.autocast(device, enabled=False):
            for layer in (*self.layers, self.answer):
                assert isinstance(layer.weight, Tensor)
