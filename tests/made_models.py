"""Models and clips made in a moment: random everywhere, no test passes because of a zero."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
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
_VAE = replace(TINY.vae, groups=4, base_conditioned=False, encoder_blocks=1)  # its encoder is deep
_IN_PARTS = replace(TINY, vae=_VAE, text_tokens=5, predictor=replace(TINY.predictor, any_tau=False))
PUBLISHED = {"3b": _IN_PARTS, "7b": replace(_IN_PARTS, dit=LIKE_7B)}  # in the place of the large
TRANSFORMER_FILE = "seedvr2_ema_3b.safetensors"
_OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_PREFIX = "model.diffusion_model."
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


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder's attention as it was called before."""
    renamed = dict(state)
    for new, old in _OLD.items():
        renamed = {k.replace(f"s.0.{new}.", f"s.0.{old}."): v for k, v in renamed.items()}
    assert renamed.keys() != state.keys()
    return renamed


def write_parts(
    model: SeedVR2, folder: Path, layout: str = "plain", dtype: torch.dtype = torch.float32
) -> Path:
    """The files of a published model; returns the transformer's."""
    dit = {k: v.to(dtype) for k, v in model.dit.state_dict().items()}
    vae = {k: v.to(dtype) for k, v in model.vae.state_dict().items()}
    positive = model.text.positive.detach().to(dtype)
    if layout in ("prefix", "packed"):
        dit = {_PREFIX + k: v for k, v in dit.items()}
    if layout == "packed":
        dit["positive_conditioning"] = positive
    else:
        torch.save(positive.clone(), folder / "pos_emb.pt")
    torch.save(old_names(vae) if layout == "old names" else vae, folder / "ema_vae.pth")
    save_file(dit, folder / TRANSFORMER_FILE)
    return folder / TRANSFORMER_FILE
