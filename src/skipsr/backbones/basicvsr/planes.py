"""Upsampled frames before pixel shuffle: 16 pixels of the result as the channels of one place.

A place is an LR pixel where a frame is enlarged by four, two by two of them where it is enlarged by
two. Bicubic and bilinear upsampling are then small convolutions, whose stride is the `fold`: LR
pixels along each axis of a place.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.basicvsr.config import SCALE
from skipsr.nn.pieces import in_pieces
from skipsr.nn.resize import cubic

_BAND = 2**20  # values of the result before they are unfolded; they stay in the cache


def to_whole_places(frames: Tensor, fold: int) -> Tensor:
    """`t 3 h w` with its last row and column repeated up to multiples of `fold`."""
    below, beside = (-side % fold for side in frames.shape[2:])
    return F.pad(frames, (0, beside, 0, below), mode="replicate") if below or beside else frames


def bicubic_planes(frames: Tensor, fold: int = 1, rows: slice = slice(None)) -> Tensor:
    """Bicubic upsampling of frames `n 3 h w` to planes `n h/fold w/fold 48`, float32, clamped to
    [0, 1].

    The kernel is Keys' with a = -0.5, which MATLAB and Pillow have; borders are repeated.

    Args:
        rows: of places, to be given alone.
    """
    kernels = _kernels("bicubic", fold, frames.device)
    first, end, _ = rows.indices(frames.shape[2] // fold)
    padded = F.pad(frames.float(), (2, 2, 2, 2), mode="replicate")
    padded = padded[:, :, fold * first : fold * end + 4]
    padded = padded.contiguous(memory_format=torch.channels_last)
    with torch.autocast(frames.device.type, enabled=False):
        return F.conv2d(padded, kernels, stride=fold).permute(0, 2, 3, 1).clamp_(0, 1)


@cache
def bilinear_kernels(fold: int, device: torch.device) -> Tensor:
    """`48 3*fold*fold 3 3`: bilinear upsampling to planes, of folded frames padded already."""
    beside = fold - 1
    return F.pixel_unshuffle(F.pad(_kernels("bilinear", fold, device), (beside,) * 4), fold)


def show(planes: Tensor, out: Tensor) -> Tensor:
    """Unfold planes `h w 48` of places into a frame `3 4h 4w`, clamped to [0, 1].

    A band of rows at a time stays in the cache, which on a processor saves half of the time.
    """
    h, w, c = planes.shape
    cells = out.view(3, h, SCALE, w, SCALE)
    rows = max(1, _BAND // (c * w))
    for top in range(0, h, rows):
        _unfold(planes[top : top + rows].clamp(0, 1), cells[:, top : top + rows])
    return out


def unfold_onto(
    frame: Tensor, planes: Tensor, out: Tensor | None = None, strength: Tensor | None = None
) -> Tensor:
    """Pixel shuffle of `planes`, `n 48 h/fold w/fold`, added to a bilinearly upsampled frame
    `n 3 h w`.

    A band of rows at a time stays in the cache, which on a processor saves more than half of the
    time.

    Returns:
        `n 3 4h/fold 4w/fold`, float32; see `BasicVSR.reconstruct` for `out` and `strength`.
    """
    padded = F.pad(frame.float(), (2, 2, 2, 2), mode="replicate")
    padded = padded.contiguous(memory_format=torch.channels_last)
    n, c, h, w = planes.shape
    fold = frame.shape[3] // w
    bilinear, bicubic = (_kernels(kind, fold, frame.device) for kind in ("bilinear", "bicubic"))
    shape = (n, c // SCALE**2, h * SCALE, w * SCALE)
    whole = padded.new_empty(shape) if out is None else out
    cells = whole.view(*shape[:2], h, SCALE, w, SCALE)
    rows = max(1, _BAND // (c * w))
    with torch.autocast(frame.device.type, enabled=False):
        for top in range(0, h, rows):
            band = slice(top, top + rows)
            seen = padded[:, :, fold * top : fold * (top + rows) + 4]
            result = F.conv2d(seen[:, :, 1:-1, 1:-1], bilinear, stride=fold)
            result.add_(planes[:, :, band])
            if strength is not None:
                plain = F.conv2d(seen, bicubic, stride=fold).clamp_(0, 1)
                result = plain.lerp_(result, strength)
            result = result if out is None else result.clamp_(0, 1)
            _unfold(result.permute(0, 2, 3, 1), cells[:, :, band])
    return whole


def _unfold(planes: Tensor, cells: Tensor) -> None:
    """Copy `... h w 48` to `... 3 h 4 w 4`."""
    pixels = rearrange(planes, "... h w (c i j) -> ... c h i w j", i=SCALE, j=SCALE)
    if not pixels.requires_grad:
        pixels, cells = in_pieces(pixels, cells)  # which is twice as fast
    cells.copy_(pixels)


def upsample_bicubic(
    frames: Tensor, fold: int = 1, refine: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """`n 3 h w` -> `n 3 4h/fold 4w/fold` in [0, 1], bicubic.

    Args:
        refine: changes the planes `h w 48` of a frame, whose number it is told, in place.
    """
    n, _, h, w = frames.shape
    out = frames.new_empty(n, 3, h // fold * SCALE, w // fold * SCALE)
    for i, target in enumerate(out):
        planes = bicubic_planes(frames[i : i + 1], fold)[0]
        if refine is not None:
            refine(i, planes)
        show(planes, target)
    return out


@cache
def _kernels(kind: str, fold: int, device: torch.device) -> Tensor:
    """`48 3 k k`, one for each of the 16 pixels and each colour."""
    pixels = torch.arange(SCALE, dtype=torch.float32)
    offsets = (pixels + 0.5) * fold / SCALE - 0.5  # from the first old pixel of fold
    reach = 1 if kind == "bilinear" else 2
    away = (offsets[:, None] - torch.arange(-reach, fold + reach)).abs()
    taps = (1 - away).clamp_min(0) if kind == "bilinear" else cubic(away)
    planes = torch.einsum("iy,jx->ijyx", taps, taps).flatten(0, 1)
    colours = torch.eye(3, dtype=torch.float32)
    return torch.einsum("ck,pyx->cpkyx", colours, planes).flatten(0, 1).to(device)
