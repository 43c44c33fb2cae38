"""Convolutions with what follows them done in the same pass, where a processor can.

A residual block's ReLU and sum read and write everything once more. oneDNN does them while a
result is still in the cache, in the precision it sums in; torch hands that out to its compiler
only. Elsewhere, and where gradients, autocast or a compiler look on, they are torch's own
operations.

Of a layer its weight and bias are used, with stride 1 and the padding that is given.
"""

import platform
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolve_relu(x: Tensor, conv: nn.Conv2d, padding: tuple[int, int]) -> Tensor:
    """`relu(conv(x))`, `n c h w`."""
    if fuses(x, conv.weight):
        return torch.ops.mkldnn._convolution_pointwise.default(
            x, conv.weight, conv.bias, padding, (1, 1), (1, 1), 1, "relu", [], ""
        )
    return F.relu_(F.conv2d(x, conv.weight, conv.bias, padding=padding))


def convolve_relu_(x: Tensor, conv: nn.Conv2d, padding: tuple[int, int], out: Tensor) -> None:
    """`relu(conv(x))` written to `out`, which is one piece of memory with channels last."""
    if fuses(x, conv.weight):
        convolve_onto(x, conv.weight, conv.bias, (1, 1), padding, out.zero_(), "relu")
    else:
        out.copy_(convolve_relu(x, conv, padding))


def convolve_add(x: Tensor, conv: nn.Conv2d, padding: tuple[int, int], other: Tensor) -> Tensor:
    """`conv(x) + other`, `n c h w`."""
    if fuses(x, conv.weight):
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, conv.weight, conv.bias, padding, (1, 1), (1, 1), 1, "add", 1.0, None, [], ""
        )
    return F.conv2d(x, conv.weight, conv.bias, padding=padding).add_(other)


def convolve_add_(x: Tensor, conv: nn.Conv2d, padding: tuple[int, int], other: Tensor) -> None:
    """The same in place of `other`, which is one piece of memory with channels last."""
    if fuses(x, conv.weight):
        convolve_onto(x, conv.weight, conv.bias, (1, 1), padding, other)
    else:
        other.add_(F.conv2d(x, conv.weight, conv.bias, padding=padding))


def convolve_joined(left: Tensor, right: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv` of the channels of both, `n a h w` and `n b h w`, which need not lie side by side."""
    if not fuses(left, conv.weight) or isinstance(conv.padding, str):
        return conv(torch.cat((left, right), 1))
    padding = (conv.padding[0], conv.padding[1])
    for_left, for_right = (
        weight.contiguous(memory_format=torch.channels_last)
        for weight in conv.weight.split((left.shape[1], right.shape[1]), 1)
    )
    y = F.conv2d(left, for_left, conv.bias, padding=padding)
    convolve_onto(right, for_right, None, (1, 1), padding, y)
    return y


def convolve_onto(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    other: Tensor,
    after: Literal["relu"] | None = None,
) -> None:
    """A convolution in two or three dimensions added in place, in one pass; for what `fuses`.

    Args:
        other: takes the result; one piece of memory with channels last, or it is slow.
        after: what is done with the sum.
    """
    once = (1,) * len(stride)
    torch.ops.mkldnn._convolution_pointwise_.binary(
        other, x, weight, bias, padding, stride, once, 1, "add", 1.0, after, [], ""
    )


@cache
def on_x86_with_onednn() -> bool:
    """Whether convolutions can be left to oneDNN's kernels for x86; on others they may be slow."""
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return on_x86 and torch.backends.mkldnn.is_available()


def fuses(x: Tensor, weight: Tensor) -> bool:
    """Whether it is one pass here, which then can write into memory that is there."""
    return (
        x.is_cpu
        and x.dtype == weight.dtype
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _has_post_operations(x.dtype)
    )


@cache
def _has_post_operations(dtype: torch.dtype) -> bool:
    """Whether oneDNN adds such operations to fast convolutions, which is so of two types."""
    if not on_x86_with_onednn():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32
