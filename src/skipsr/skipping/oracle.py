"""The oracle mask (paper Eq. 1): which patches of an HR clip plain upsampling already serves."""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from skipsr.timeline import TOKEN_FRAMES, TOKEN_SIDE, check_causal

TAU = 2e-4  # mean squared error in [0, 1] pixels; 37 dB
_SHRINK = 4


def patch_errors(frames: Tensor) -> Tensor:
    """MSE(P, U(D(P))) of every token: D area ÷4, U bilinear ×4 without antialias, on whole frames.

    The grid is the causal one: the first layer of tokens covers frame 0 alone, layer i the frames
    4i-3 to 4i (SkipSR, Eq. 1).

    Args:
        frames: `b 3 t h w` in [0, 1]; t = 4n+1, sides multiples of 16.

    Returns:
        `b n+1 h/16 w/16`, float32.

    Raises:
        ValueError: for other sizes.
    """
    check_causal(frames.shape, TOKEN_FRAMES, TOKEN_SIDE)
    gap = frames.float() - down_then_up(frames.float())
    error = reduce(gap.square(), "b c t (h p) (w q) -> b t h w", "mean", p=TOKEN_SIDE, q=TOKEN_SIDE)
    later = reduce(error[:, 1:], "b (t s) h w -> b t h w", "mean", s=TOKEN_FRAMES)
    return torch.cat((error[:, :1], later), 1)


def down_then_up(frames: Tensor) -> Tensor:
    """U(D(frames)): plain upsampling of shrunk frames, `b 3 t h w`; sides are multiples of 4."""
    b, _, _, h, w = frames.shape
    flat = rearrange(frames, "b c t h w -> (b t) c h w")
    small = F.interpolate(flat, (h // _SHRINK, w // _SHRINK), mode="area")
    large = F.interpolate(small, (h, w), mode="bilinear", align_corners=False)
    return rearrange(large, "(b t) c h w -> b c t h w", b=b)


def oracle_keep(frames: Tensor) -> Tensor:
    """The predictor's target: tokens that need computing, bool `b n+1 h/16 w/16`.

    Input as for `patch_errors`.
    """
    return patch_errors(frames) > TAU
