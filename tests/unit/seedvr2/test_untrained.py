"""Where training starts: an untrained transformer leaves the LR latent as it is."""

import dataclasses

import pytest
import torch

from skipsr.backbones.seedvr2.config import PRESETS, DiTConfig, Sampling
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.sampler import Conditioning, denoise
from skipsr.skipping.route import Route

TINY = PRESETS["tiny"].dit
BARE = dataclasses.replace(
    TINY, output_norm=False, mlp="gelu", rotary="pixel", separate_layers=3, text_in_last_layer=True
)


@pytest.mark.parametrize(("config", "tolerance"), [(BARE, 1e-5), (TINY, 0.2)])
def test_one_step_returns_the_condition(config: DiTConfig, tolerance: float):
    torch.manual_seed(0)
    dit = DiT(config)
    base, noise = torch.randn(2, 2, 8, 8, config.out_channels)
    text = Conditioning(torch.randn(3, config.text_width))
    with torch.no_grad():
        out = denoise(dit, noise, base, text, Route.dense((2, 4, 4)), Sampling())
    assert (out - base).square().mean().sqrt() <= tolerance
