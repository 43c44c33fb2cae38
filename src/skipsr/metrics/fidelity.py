"""PSNR and SSIM of 8-bit frames, as published figures have them.

Frames are rounded to 8 bits first. Every function takes `frames` and `truth`, `t 3 h w` in [0, 1],
and `border`, the pixels left out on each side before anything else (0 or the scale, in papers), and
returns one float64 value per frame, `t`; a paper's figure is their mean. Luma is unrounded, and the
peak is 255 on luma and RGB alike.
"""

import torch
from einops import reduce
from torch import Tensor

from skipsr.metrics.gaussian import gaussian, smooth
from skipsr.metrics.metric import Metric, MetricError, check_frames, levels

CAP = 100.0  # dB: what identical frames count, so that means stay finite
_LUMA = (65.481, 128.553, 24.966)
_WINDOW = gaussian(11, 1.5)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def luma(pixels: Tensor) -> Tensor:
    """BT.601 limited-range luma, unrounded: `... 3 h w` in 0..255 to `... h w` in 16..235."""
    # rounded to float32 where the original rounds, because luma may be rounded again (NIQE)
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=pixels.device)
    share = torch.einsum("... c h w, c -> ... h w", (pixels.float() / 255).double(), weights) + 16
    return (share / 255).float() * 255


def psnr_rgb(frames: Tensor, truth: Tensor, *, border: int = 0) -> Tensor:
    """PSNR in dB from one mean square over pixels and channels; at most 100 dB a frame.

    Raises:
        MetricError: for clips of different sizes, or when the border leaves nothing.
    """
    return _psnr(_levels(frames, truth, border), _levels(truth, frames, border))


def psnr_y(frames: Tensor, truth: Tensor, *, border: int = 0) -> Tensor:
    """PSNR of luma in dB, at most 100 dB a frame; raises as `psnr_rgb`."""
    return _psnr(luma(_levels(frames, truth, border)), luma(_levels(truth, frames, border)))


def ssim_rgb(frames: Tensor, truth: Tensor, *, border: int = 0) -> Tensor:
    """Mean SSIM of the three channels (Wang et al. 2004), at most 1.

    An 11x11 Gaussian window of sigma 1.5 where it fits, K1 0.01, K2 0.03, population variances.

    Raises:
        MetricError: as `psnr_rgb`, and for fewer than 11 pixels a side.
    """
    return _ssim(_levels(frames, truth, border), _levels(truth, frames, border))


def ssim_y(frames: Tensor, truth: Tensor, *, border: int = 0) -> Tensor:
    """SSIM of luma; formula and errors as `ssim_rgb`."""
    return _ssim(luma(_levels(frames, truth, border)), luma(_levels(truth, frames, border)))


def _levels(frames: Tensor, other: Tensor, border: int) -> Tensor:
    check_frames(frames, other)
    h, w = frames.shape[-2:]
    if not 0 <= 2 * border < min(h, w):
        raise MetricError(f"a border of {border} pixels leaves nothing of {w}x{h}")
    return levels(frames[..., border : h - border, border : w - border])


def _psnr(x: Tensor, y: Tensor) -> Tensor:
    error = (x - y).double().square().flatten(1).mean(1)
    return (10 * torch.log10(255**2 / error)).clamp(max=CAP)


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    h, w = x.shape[-2:]
    if min(h, w) < len(_WINDOW):
        raise MetricError(f"SSIM needs at least {len(_WINDOW)} pixels a side, not {w}x{h}")
    planes = zip(x.reshape(-1, h, w), y.reshape(-1, h, w), strict=True)
    # plane by plane, because that is five times as fast as larger pieces of memory
    values = torch.stack([_ssim_map(a.double(), b.double()).mean() for a, b in planes])
    return reduce(values, "(t c) -> t", "mean", t=len(x))


def _ssim_map(x: Tensor, y: Tensor) -> Tensor:
    mean_x, mean_y = smooth(x, _WINDOW), smooth(y, _WINDOW)
    xx, yy, xy = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    variances = smooth(x * x, _WINDOW) - xx + smooth(y * y, _WINDOW) - yy
    covariance = smooth(x * y, _WINDOW) - xy
    alike = (2 * xy + _C1) * (2 * covariance + _C2)
    return alike / ((xx + yy + _C1) * (variances + _C2))


def _measure(frames: Tensor, truth: Tensor | None) -> dict[str, float]:
    if truth is None:
        raise MetricError("fidelity compares with the truth: give it")
    values = (f(frames, truth).mean().item() for f in (psnr_y, psnr_rgb, ssim_y, ssim_rgb))
    return dict(zip(FIDELITY.columns, values, strict=True))


FIDELITY = Metric(
    name="fidelity",
    columns={"psnr_y": "higher", "psnr_rgb": "higher", "ssim_y": "higher", "ssim_rgb": "higher"},
    needs_truth=True,
    default=True,
    measure=_measure,
)
