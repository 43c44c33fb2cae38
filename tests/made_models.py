"""Models and clips made in a moment: random everywhere, no test passes because of a zero."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from skipsr.backbones.seedvr2.config import PRESETS, SeedVR2Config
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.clip import Clip

TINY = PRESETS["tiny"]
MANY_WINDOWS = (2, 20, 15)  # at token grids of a few cells a side, windows of about three
LIKE_3B = replace(TINY.dit, windows=MANY_WINDOWS)
LIKE_7B = replace(
    LIKE_3B,
    mlp="gelu",
    rotary="pixel",
    output_norm=False,
    text_in_last_layer=True,
    separate_layers=TINY.dit.layers,
    qk_bias=True,
)
TRANSFORMERS = {"like 3b": LIKE_3B, "like 7b": LIKE_7B}


def perturb(network: nn.Module, seed: int = 0, spread: float = 0.05) -> None:
    """Add noise to every parameter: norms are no identity, and nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


def make_model(config: SeedVR2Config = TINY, seed: int = 0) -> SeedVR2:
    torch.manual_seed(seed)
    model = SeedVR2(config)
    perturb(model, seed)
    return model.eval().requires_grad_(False)


def make_dit(config: object = LIKE_3B, seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    dit = DiT(config)  # type: ignore[arg-type]
    perturb(dit, seed)
    return dit.eval().requires_grad_(False)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_mask(grid: tuple[int, int, int], share: float, seed: int = 0) -> Tensor:
    return torch.rand(grid, generator=torch.Generator().manual_seed(seed)) < share


def make_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A drifting gradient under a little noise: `t h w c`, uint8."""
    t, y, x = np.mgrid[:count, :height, :width]
    planes = np.stack([(x * 6 + t * 3) % 256, (y * 8 + t) % 256, (x * 3 + y * 5) % 256], 3)
    noise = np.random.default_rng(seed).normal(0, 8, planes.shape)
    return (planes + noise).clip(0, 255).astype(np.uint8)


def make_clip(count: int, height: int, width: int, start: int = 0, seed: int = 0) -> Clip:
    return Clip.from_array(make_frames(count, height, width, seed), start)
