# pyright: basic, reportMissingImports=false
"""Triton kernels of what stands between a network's products: each reads and writes once.

Without gradients; `fused` says where they are used and what they compute. They add in float32 and
round once, at the end. `TRITON_INTERPRET=1` runs them on a processor.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024
_TILE = 4096  # values of a program that works on several rows
_STEPS = 16  # tiles that a program of `sums` adds up


@triton.jit
def _rms_modulate(
    x, shift, own_shift, scale, own_scale, out, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * WIDTH
    column = tl.arange(0, BLOCK)
    here = column < WIDTH
    value = tl.load(x + row + column, mask=here, other=0.0).to(tl.float32)
    value = value / tl.sqrt(tl.sum(value * value, 0) / WIDTH + eps)
    add = tl.load(shift + column, mask=here, other=0.0).to(tl.float32)
    add += tl.load(own_shift + column, mask=here, other=0.0).to(tl.float32)
    times = tl.load(scale + column, mask=here, other=0.0).to(tl.float32)
    times += tl.load(own_scale + column, mask=here, other=0.0).to(tl.float32)
    result = add + value * times
    tl.store(out + row + column, result.to(out.dtype.element_ty), mask=here)


def rms_modulate(
    x: Tensor, eps: float, shift: tuple[Tensor, Tensor], scale: tuple[Tensor, Tensor]
) -> Tensor:
    x, width = x.contiguous(), x.shape[-1]
    out = torch.empty_like(x)
    vectors = [v.contiguous() for v in (*shift, *scale)]
    _run(_rms_modulate, x, (len(x),), *vectors, out, eps, WIDTH=width, BLOCK=_power(width))
    return out


@triton.jit
def _gated_add(
    x, y, gate, own_gate, out, count, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    column = place % WIDTH
    times = tl.load(gate + column, mask=here, other=0.0).to(tl.float32)
    times += tl.load(own_gate + column, mask=here, other=0.0).to(tl.float32)
    value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
    value += tl.load(y + place, mask=here, other=0.0).to(tl.float32) * times
    tl.store(out + place, value.to(out.dtype.element_ty), mask=here)


def gated_add(x: Tensor, y: Tensor, gate: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    others = [v.contiguous() for v in (y, *gate)]
    count, width = x.numel(), x.shape[-1]
    grid = (triton.cdiv(count, _BLOCK),)
    _run(_gated_add, x, grid, *others, out, count, WIDTH=width, BLOCK=_BLOCK)
    return out


@triton.jit
def _swiglu(gate, up, out, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    value = tl.load(gate + place, mask=here, other=0.0).to(tl.float32)
    value = value * tl.sigmoid(value) * tl.load(up + place, mask=here, other=0.0).to(tl.float32)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=here)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    count = gate.numel()
    _run(_swiglu, gate, (triton.cdiv(count, _BLOCK),), up, gate, count, BLOCK=_BLOCK)
    return gate


@triton.jit
def _place_heads(
    qkv, weight_q, weight_k, cos, sin, places, packed, eps, rows, total,
    HEADS: tl.constexpr, DIM: tl.constexpr, PAIRS: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row, part = tl.program_id(0), tl.program_id(1)
    source = (row % rows).to(tl.int64)
    head = tl.arange(0, BLOCK_H)[:, None]
    feature = tl.arange(0, BLOCK_D)[None, :]
    here = (head < HEADS) & (feature < DIM)
    at = head * DIM + feature
    start = (source * 3 + part) * HEADS * DIM
    value = tl.load(qkv + start + at, mask=here, other=0.0)
    if part < 2:
        weight = weight_q if part == 0 else weight_k
        own = tl.load(weight + feature, mask=feature < DIM, other=0.0).to(tl.float32)
        turned = value.to(tl.float32)
        turned = turned / tl.sqrt(tl.sum(turned * turned, 1) / DIM + eps)[:, None] * own
        if PAIRS > 0:
            pair = tl.arange(0, BLOCK_D // 2)[None, :]
            c = tl.load(cos + source * PAIRS + pair, mask=pair < PAIRS, other=1.0)
            s = tl.load(sin + source * PAIRS + pair, mask=pair < PAIRS, other=0.0)
            a, b = tl.split(tl.reshape(turned, (BLOCK_H, BLOCK_D // 2, 2)))
            both = tl.join(a * c - b * s, b * c + a * s)
            turned = tl.reshape(both, (BLOCK_H, BLOCK_D))
        value = turned.to(value.dtype)
    to = (tl.load(places + row) + part * total) * HEADS * DIM
    tl.store(packed + to + at, value, mask=here)


def place_heads(
    qkv: Tensor,
    norms: tuple[Tensor, Tensor],
    eps: float,
    rotation: tuple[Tensor, Tensor] | None,
    places: Tensor,
    packed: Tensor,
) -> None:
    _, total, heads, dim = packed.shape
    qkv, places = qkv.contiguous(), places.contiguous()
    cos, sin = norms if rotation is None else (angle.contiguous() for angle in rotation)
    _run(
        _place_heads, qkv, (places.numel(), 3), norms[0], norms[1], cos, sin, places, packed, eps,
        len(qkv), total, HEADS=heads, DIM=dim, PAIRS=0 if rotation is None else cos.shape[-1],
        BLOCK_H=_power(heads), BLOCK_D=_power(dim),
    )  # fmt: skip


@triton.jit
def _affine_silu(
    x, scale, shift, out, x_t, x_h, x_w, out_t, out_h, out_w, frame, width, count,
    CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)[:, None]
    channel = tl.arange(0, BLOCK_C)[None, :]
    here = (place < count) & (channel < CHANNELS)
    t = (place // frame).to(tl.int64)
    row, column = (place % frame // width).to(tl.int64), (place % frame % width).to(tl.int64)
    source = t * x_t + row * x_h + column * x_w + channel
    value = tl.load(x + source, mask=here, other=0.0).to(tl.float32)
    times = tl.load(scale + t * CHANNELS + channel, mask=here, other=0.0).to(tl.float32)
    value = value * times + tl.load(shift + t * CHANNELS + channel, mask=here, other=0.0)
    value = value * tl.sigmoid(value)
    to = t * out_t + row * out_h + column * out_w + channel
    tl.store(out + to, value.to(out.dtype.element_ty), mask=here)


def affine_silu(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    t, h, w, c = x.shape
    block = _power(c)
    places = max(1, _TILE // block)
    _run(
        _affine_silu, x, (triton.cdiv(t * h * w, places),), scale.float().contiguous(),
        shift.float().contiguous(), out, *x.stride()[:3], *out.stride()[:3], h * w, w, t * h * w,
        CHANNELS=c, BLOCK_P=places, BLOCK_C=block,
    )  # fmt: skip


@triton.jit
def _put_biased(
    y, bias, out, y_t, y_h, out_t, out_h, height, count, blocks,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    row, part = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    t, line = (row // height).to(tl.int64), (row % height).to(tl.int64)
    place = part * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    value = tl.load(y + t * y_t + line * y_h + place, mask=here, other=0.0).to(tl.float32)
    value += tl.load(bias + place % CHANNELS, mask=here, other=0.0).to(tl.float32)
    to = out + t * out_t + line * out_h + place
    if ADD:
        value += tl.load(to, mask=here, other=0.0).to(tl.float32)
    tl.store(to, value.to(out.dtype.element_ty), mask=here)


def put_biased(y: Tensor, bias: Tensor, out: Tensor, *, add: bool) -> None:
    t, height, width, channels = y.shape
    count = width * channels
    blocks = triton.cdiv(count, _BLOCK)
    _run(
        _put_biased, y, (t * height * blocks,), bias, out, *y.stride()[:2], *out.stride()[:2],
        height, count, blocks, CHANNELS=channels, BLOCK=_BLOCK, ADD=add,
    )  # fmt: skip


@triton.jit
def _copy_rows(
    source, rows, target, places, source_t, target_t, count,
    CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    row, t = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)[:, None], tl.program_id(1)
    channel = tl.arange(0, BLOCK_C)[None, :]
    here = (row < count) & (channel < CHANNELS)
    at = tl.load(rows + row, mask=row < count, other=0) * CHANNELS + channel
    to = row.to(tl.int64)
    if not ORDERED:
        to = tl.load(places + row, mask=row < count, other=0)
    value = tl.load(source + t.to(tl.int64) * source_t + at, mask=here)
    tl.store(target + t.to(tl.int64) * target_t + to * CHANNELS + channel, value, mask=here)


def copy_rows(source: Tensor, rows: Tensor, target: Tensor, places: Tensor | None) -> None:
    t, _, channels = target.shape
    wide = _power(channels)
    together = max(1, _TILE // wide)
    _run(
        _copy_rows, source, (triton.cdiv(len(rows), together), t), rows, target,
        rows if places is None else places, source.stride(0) if len(source) == t else 0,
        target.stride(0), len(rows), CHANNELS=channels, BLOCK_P=together, BLOCK_C=wide,
        ORDERED=places is None,
    )  # fmt: skip


@triton.jit
def _sums(
    x, out, x_t, places, blocks,
    CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    block, t = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, BLOCK_C)[None, :]
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for step in range(STEPS):
        place = (block * STEPS + step) * BLOCK_P + tl.arange(0, BLOCK_P)[:, None]
        here = (place < places) & (channel < CHANNELS)
        at = t.to(tl.int64) * x_t + place.to(tl.int64) * CHANNELS + channel
        value = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        total += value
        squares += value * value
    column = tl.arange(0, BLOCK_C)
    to = out + (t * blocks + block) * 2 * CHANNELS + column
    tl.store(to, tl.sum(total, 0), mask=column < CHANNELS)
    tl.store(to + CHANNELS, tl.sum(squares, 0), mask=column < CHANNELS)


def sums(x: Tensor) -> Tensor:
    t, places, channels = x.shape[0], x.shape[1] * x.shape[2], x.shape[3]
    wide = _power(channels)
    rows = max(1, _TILE // wide)
    blocks = triton.cdiv(places, rows * _STEPS)
    out = x.new_empty(t, blocks, 2, channels, dtype=torch.float32)
    _run(
        _sums, x, (blocks, t), out, x.stride(0), places, blocks,
        CHANNELS=channels, BLOCK_P=rows, BLOCK_C=wide, STEPS=_STEPS,
    )  # fmt: skip
    return out.sum(1)


def _power(count: int) -> int:
    return triton.next_power_of_2(count)


def _run(kernel: Any, x: Tensor, grid: tuple[int, ...], *rest: object, **constants: int) -> None:
    """Launch on the device of `x`, which is not always the current one."""
    if all(grid):
        with torch.cuda.device_of(x):
            kernel[grid](x, *rest, **constants)
