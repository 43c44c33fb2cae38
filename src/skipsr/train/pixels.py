"""Pixel losses: Charbonnier, L1 and structural similarity."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2
_EPS = 1e-6  # its square is the 1e-12 of BasicVSR's published training


def deviations(difference: Tensor, eps: float = _EPS) -> Tensor:
    """What Charbonnier losses are means of: `sqrt(d^2 + eps^2)` of every value, float32."""
    return (difference.float().square() + eps**2).sqrt()


def charbonnier(result: Tensor, target: Tensor) -> Tensor:
    """The Charbonnier loss, a scalar."""
    return deviations(result - target).mean()


def structure_loss(frames: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM of luma, 7x7 windows, mean of full and half size. Frames `b 3 t h w` in [0, 1]."""
    a, b = (_luma(x.float()) for x in (frames, target))
    full = 1 - ssim_map(a, b).mean()
    half = 1 - ssim_map(F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)).mean()
    return (full + half) / 2


def _luma(frames: Tensor) -> Tensor:  # b 3 t h w -> (b t) 1 h w
    # not a matrix product: under autocast that would be bfloat16, too coarse for variances
    luma = sum(weight * frames[:, i] for i, weight in enumerate(_LUMA))
    assert isinstance(luma, Tensor)
    return rearrange(luma, "b t h w -> (b t) 1 h w")


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of `n 1 h w` images at every place of a 7x7 box window."""

    def mean(x: Tensor) -> Tensor:  # first down, then across: 14 values in place of 49
        return F.avg_pool2d(F.avg_pool2d(x, (_WINDOW, 1), 1), (1, _WINDOW), 1)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return luminance * (2 * covariance + _C2) / (var_a + var_b + _C2)


def pixel_loss(frames: Tensor, target: Tensor, structure: float) -> Tensor:
    """L1 plus `structure` times the structure loss. Frames `b 3 t h w` in [0, 1]."""
    return F.l1_loss(frames.float(), target.float()) + structure * structure_loss(frames, target)


def psnr(frames: Tensor, target: Tensor) -> Tensor:
    """Of the mean over everything, dB, for logs; a scalar, on the device."""
    return -10 * (frames.detach().float() - target).square().mean().clamp_min(1e-10).log10()
