"""Chains of operations between a network's products, in one pass over memory where a card allows.

On a GPU these chains take as long as the products, since each step reads and writes everything. The
Triton kernels of `kernels` do a chain at once; elsewhere, under gradients (which they do not give),
and where a compiler looks on, it is torch's own operations.
"""

from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.nn.norm import RMSNorm, rms_norm
from skipsr.nn.pieces import in_pieces
from skipsr.nn.rope import Rotation, rotate


@dataclass(frozen=True, slots=True)
class Modulation:
    """Shift, scale and gate of a sub-layer (AdaLN), `width` each, or a part of them: they are the
    sum of what the timestep says and what is the layer's own."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


@cache
def kernels_of(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The Triton kernels if they run on a CUDA device, found out by trying.

    They do not without Triton, without the C compiler that it needs, or on cards it does not know.
    """
    try:
        from skipsr.nn import kernels  # noqa: PLC0415

        x = torch.ones(1, 16, device=device, dtype=dtype)
        kernels.swiglu(x, x)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a compiler fails in many ways
        return None
    return kernels


def _kernels(x: Tensor) -> ModuleType | None:
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return kernels_of(x.device, x.dtype)


def rms_modulate(x: Tensor, eps: float, time: Modulation, own: Modulation) -> Tensor:
    """RMS norm of `n width`, times scale plus shift."""
    kernels = _kernels(x)
    if kernels is not None:
        return kernels.rms_modulate(x, eps, (time.shift, own.shift), (time.scale, own.scale))
    shift, scale = plus(time.shift, own.shift), plus(time.scale, own.scale)
    return torch.addcmul(shift, rms_norm(x, eps), scale)


def gated_add(
    x: Tensor, y: Tensor, time: Modulation, own: Modulation, *, in_place: bool = False
) -> Tensor:
    """`x` and, times the gate, `y`, `n width` both."""
    kernels = _kernels(x)
    if kernels is not None and x.is_contiguous():
        out = x if in_place else torch.empty_like(x)
        return kernels.gated_add(x, y, (time.gate, own.gate), out)
    gate = plus(time.gate, own.gate)
    return x.addcmul_(y, gate) if in_place else torch.addcmul(x, y, gate)


def plus(time: Tensor, own: Tensor) -> Tensor:
    """In the dtype of `time`, which is the stream's also where autocast meets float32 weights."""
    return (time + own).to(time.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`; may write into `gate`."""
    kernels = _kernels(gate)
    return F.silu(gate) * up if kernels is None else kernels.swiglu(gate, up)


def heads(
    qkv: Tensor, norm_q: RMSNorm, norm_k: RMSNorm, rotation: Rotation | None, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Projected queries and keys, normed and turned, and values: `n (3 heads dim) -> n heads dim`.

    Args:
        count: of heads.
    """
    q, k, v = rearrange(qkv, "n (part heads dim) -> part n heads dim", part=3, heads=count)
    q, k = norm_q(q), norm_k(k)
    if rotation is not None:
        q, k = rotate(q, rotation), rotate(k, rotation)
    return q, k, v


def place_heads(
    qkv: Tensor,
    norm_q: RMSNorm,
    norm_k: RMSNorm,
    rotation: Rotation | None,
    places: Tensor,
    packed: Tensor,
) -> None:
    """What `heads` gives, written to rows of `packed`, `3 rows heads dim`; without gradients.

    Args:
        places: `... n`, rows of each token, or of each time that all of them are repeated.
    """
    kernels, eps = _kernels(qkv), norm_q.eps
    if kernels is not None and eps is not None and eps == norm_k.eps:
        angles = None if rotation is None else (rotation.cos, rotation.sin)
        kernels.place_heads(qkv, (norm_q.weight, norm_k.weight), eps, angles, places, packed)
        return
    for whole, part in zip(
        packed, heads(qkv, norm_q, norm_k, rotation, packed.shape[2]), strict=True
    ):
        if places.ndim == 1:
            whole.index_copy_(0, places, part)
        else:
            whole[places] = part


def affine_silu(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    """`silu(x * scale + shift)` of each frame, written to `out`; without gradients.

    Args:
        x, out: `b t h w c`.
        scale, shift: `b t c`, float32.
    """
    kernels = _kernels(x)
    if kernels is not None and x.stride(4) == out.stride(4) == 1:
        for clip in zip(x, scale, shift, out, strict=True):
            kernels.affine_silu(*clip)
        return
    scale, shift = (v[:, :, None, None] for v in (scale, shift))
    F.silu(torch.addcmul(shift, x, scale, out=out), inplace=True)


def put_biased(y: Tensor, bias: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
    """`y + bias`, `b t h w c`, written to `out`, which may be `y`, or added to it; no gradients."""
    kernels = _kernels(y)
    if kernels is not None and _lines(y) and _lines(out):
        for clip, to in zip(y, out, strict=True):
            kernels.put_biased(clip, bias, to, add=add)
    elif add:
        out.add_(y).add_(bias)
    else:
        torch.add(y, bias, out=out)
    return out


def copy_rows(source: Tensor, rows: Tensor, target: Tensor, places: Tensor | None = None) -> None:
    """Copy `rows` of each frame of `source` to `places` of the same frame of `target`.

    They may be one tensor if nothing is read where something else is written. No gradients.

    Args:
        source: `t n c`, or `1 n c` for all frames; each frame one piece of memory.
        target: `t m c`, the same.
        places: all of them in order if None.
    """
    kernels = _kernels(target)
    if kernels is not None and source.stride(1) == target.stride(1) == source.shape[2]:
        kernels.copy_rows(source, rows, target, places)
        return
    source, target = in_pieces(source, target)
    if places is None and len(source) == len(target):
        torch.index_select(source, 1, rows, out=target)
    else:
        found = source.index_select(1, rows).expand(len(target), -1, -1)
        target.copy_(found) if places is None else target.index_copy_(1, places, found)


def moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of groups of channels in each frame: `b t h w c -> b t groups`, float32.

    Without gradients. Rounding may leave a variance a little below zero.
    """
    if x.is_cpu and _kernels(x) is None:
        # four times as fast as `var_mean`, though it gives the normed frames as well
        b, t, h, w, c = x.shape
        frames = x.flatten(0, 1).movedim(3, 1).float()
        frames = frames.contiguous(memory_format=torch.channels_last)  # a band of rows is not
        _, mean, inverse = torch.native_group_norm(frames, None, None, b * t, c, h * w, groups, 0.0)
        variance = inverse.square().reciprocal()
        return mean.unflatten(0, (b, t)), variance.unflatten(0, (b, t))
    found = torch.stack([sums(clip) for clip in x])  # no copy
    return moments_of(found, groups, x.shape[2] * x.shape[3])


def moments_of(sums: Tensor, groups: int, count: int) -> tuple[Tensor, Tensor]:
    """The same from sums over `count` places: `... 2 c -> ... groups` each."""
    mean, square = (sums.unflatten(-1, (groups, -1)).mean(-1) / count).unbind(-2)
    return mean, square - mean.square()


def sums(x: Tensor) -> Tensor:
    """Sums of values and of squares over each frame: `t h w c -> t 2 c`, float32; no gradients."""
    kernels = _kernels(x)
    if kernels is not None and _dense(x):
        return kernels.sums(x)
    flat = x.flatten(1, 2)
    if x.is_cpu:
        squares = flat.square().sum(1, dtype=torch.float32)
    else:
        squares = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float32).square()
    return torch.stack((flat.sum(1, dtype=torch.float32), squares), 1)


def _lines(x: Tensor) -> bool:
    """Whether each row of `... w c` is one piece of memory."""
    return x.stride()[-2:] == (x.shape[-1], 1)


def _dense(x: Tensor) -> bool:
    """Whether each frame of `... h w c` is one piece of memory."""
    return x.stride()[-3:] == (x.shape[-2] * x.shape[-1], x.shape[-1], 1)
