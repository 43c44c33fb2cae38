"""Layers of the 3B transformer by themselves, and the autoencoder at full width."""

from dataclasses import replace

from gpu.figures import Figures, ready

from skipsr.backbones.seedvr2.config import DIT_3B, DiTConfig, VAEConfig
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.bench.networks import fill_zeros

_TINY_VAE = VAEConfig(
    channels=(16, 16, 32, 32), encoder_blocks=1, decoder_blocks=1, groups=8, latent_channels=16
)


def make_layers(figures: Figures) -> tuple[DiT, DiTConfig, tuple[int, int, int]]:
    """Two of them, their shape, and the tokens of 101 frames of 720p; small ones in a tiny run."""
    shape, grid = replace(DIT_3B, layers=2, separate_layers=0), (26, 45, 80)
    if figures.tiny:
        shape, grid = replace(shape, width=128, heads=1, text_width=32), (2, 4, 6)
    with figures.device:
        dit = DiT(shape)
        fill_zeros(dit)
    ready(dit, figures.dtype)
    return dit, shape, grid


def make_autoencoder(figures: Figures) -> VideoAutoencoder:
    """With random weights; a small one in a tiny run."""
    with figures.device:
        vae = VideoAutoencoder(_TINY_VAE if figures.tiny else VAEConfig())
    ready(vae, figures.dtype)
    return vae
