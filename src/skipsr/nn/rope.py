"""Axial rotary position embedding from explicit positions (spec section 3.10)."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosine and sine of every rotated pair of every token; float32."""

    cos: Tensor  # n 1 pairs
    sin: Tensor  # n 1 pairs

    @staticmethod
    def of(positions: Tensor, frequencies: Tensor) -> "Rotation":
        """Angles `position * frequency`, the axes one after another.

        Args:
            positions: `n axes`, in the unit the frequencies expect (cells, or -1 to 1).
            frequencies: `pairs per axis`, radians per unit.
        """
        angles = positions.float()[:, :, None] * frequencies.float()
        angles = rearrange(angles, "n axes pairs -> n 1 (axes pairs)")
        return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the interleaved pairs `(x[2j], x[2j+1])`; features beyond the rotated ones pass through.

    Args:
        x: `n heads dim`; computed in float32 and returned in its own dtype.
    """
    pairs = rotation.cos.shape[-1]
    turned, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    a, b = turned.float().unflatten(-1, (pairs, 2)).unbind(-1)
    cos, sin = rotation.cos, rotation.sin
    turned = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2).to(x.dtype)
    return torch.cat((turned, rest), -1)


def language_frequencies(dim: int, base: float = 10000.0) -> Tensor:
    """`base ** (-2j / dim)`, as in language models: positions are whole cells."""
    return base ** (-torch.arange(dim // 2, dtype=torch.float32) * 2 / dim)


def pixel_frequencies(dim: int, top: float = 128.0) -> Tensor:
    """`linspace(1, top) * pi`: positions run from -1 to 1 over an extent."""
    return torch.linspace(1, top, dim // 2, dtype=torch.float32) * torch.pi
