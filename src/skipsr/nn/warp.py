"""Backward warping along a flow."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(
    x: Tensor,
    flow: Tensor,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding: Literal["zeros", "border", "reflection"] = "zeros",
) -> Tensor:
    """Sample `x` where the flow points (spec/skipvsr A2).

    Args:
        x: `n c h w`.
        flow: `n h w 2`, horizontal then vertical displacement in pixels.
        padding: what lies outside the frame.

    Returns:
        `n c h w`, of the dtype of `x`; positions and weights are computed in float32.

    Raises:
        ValueError: when the two sizes differ.
    """
    h, w = x.shape[2:]
    if flow.shape[1:] != (h, w, 2):
        raise ValueError(f"a flow of shape {tuple(flow.shape)} does not fit features of {w}x{h}")
    columns = torch.arange(w, device=x.device, dtype=torch.float32)
    rows = torch.arange(h, device=x.device, dtype=torch.float32)[:, None]
    flow = flow.float()
    across = (columns + flow[..., 0]) * (2 / max(w - 1, 1)) - 1
    down = (rows + flow[..., 1]) * (2 / max(h - 1, 1)) - 1
    places = torch.stack((across, down), -1)
    sampled = F.grid_sample(x.float(), places, mode, padding, align_corners=True)
    return sampled.to(x.dtype)
