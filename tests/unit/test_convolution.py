"""Convolutions with what follows them are the same as one after the other."""

import platform
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from skipsr.nn.convolution import (
    convolve_add,
    convolve_add_,
    convolve_joined,
    convolve_relu,
    convolve_relu_,
)

CLOSE = {torch.float32: {"atol": 1e-5, "rtol": 0}, torch.bfloat16: {"atol": 0.06, "rtol": 0}}


def made(dtype: torch.dtype, padding: tuple[int, int]) -> tuple[nn.Conv2d, Tensor, Tensor]:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3).to(dtype, memory_format=torch.channels_last)
    x = torch.randn(1, 16, 10, 52).to(dtype, memory_format=torch.channels_last)
    size = (8 + 2 * padding[0], 50 + 2 * padding[1])
    out = torch.randn(1, 24, *size).to(dtype, memory_format=torch.channels_last)
    return conv, x, out


@pytest.mark.parametrize("padding", [(0, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("dtype", CLOSE)
def test_they_are_the_same_as_one_after_the_other(dtype: torch.dtype, padding: tuple[int, int]):
    conv, x, out = made(dtype, padding)
    with torch.no_grad():
        plain = F.conv2d(x.float(), conv.weight.float(), conv.bias.float(), padding=padding)
        found = convolve_relu(x, conv, padding)
        torch.testing.assert_close(found.float(), F.relu(plain), **CLOSE[dtype])
        expected = out.float() + plain
        added = convolve_add(x, conv, padding, out)
        torch.testing.assert_close(added.float(), expected, **CLOSE[dtype])
        convolve_add_(x, conv, padding, out)
    torch.testing.assert_close(out.float(), expected, **CLOSE[dtype])


def among_other_rows(
    dtype: torch.dtype = torch.float32,
) -> tuple[nn.Conv2d, Tensor, Tensor, Tensor]:
    """A convolution, what it sees, a canvas, and the rows in its middle: room for the result."""
    conv, x, _ = made(dtype, (0, 1))
    canvas = torch.randn(1, 10, 52, 24, dtype=dtype)
    return conv, x, canvas, canvas[:, 1:9].permute(0, 3, 1, 2)


def test_what_lies_among_other_rows_is_added_to_in_place():
    conv, x, canvas, rows = among_other_rows()
    before = canvas.clone()
    with torch.no_grad():
        convolve_add_(x, conv, (0, 1), rows)
        plain = F.conv2d(x, conv.weight, conv.bias, padding=(0, 1))
    torch.testing.assert_close(rows, before[:, 1:9].permute(0, 3, 1, 2) + plain, atol=1e-5, rtol=0)
    assert torch.equal(canvas[:, ::9], before[:, ::9])


def test_what_lies_among_other_rows_is_written_over():
    conv, x, canvas, rows = among_other_rows()
    before = canvas.clone()
    with torch.no_grad():
        convolve_relu_(x, conv, (0, 1), rows)
        assert torch.equal(rows, convolve_relu(x, conv, (0, 1)))
    assert torch.equal(canvas[:, ::9], before[:, ::9])


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("dtype", CLOSE)
def test_joined_channels_need_no_copy(dtype: torch.dtype, size: int):
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 16, size, padding=size // 2).to(dtype, memory_format=torch.channels_last)
    parts = (torch.randn(2, c, 9, 20).to(dtype, memory_format=torch.channels_last) for c in (16, 8))
    left, right = parts
    expected = conv(torch.cat((left, right), 1))
    assert torch.equal(convolve_joined(left, right, conv), expected)  # gradients look on
    with torch.no_grad():
        found = convolve_joined(left, right, conv)
    torch.testing.assert_close(found.float(), expected.detach().float(), **CLOSE[dtype])


class Seen(TorchDispatchMode):
    """Which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="oneDNN is used so on x86"
)
@pytest.mark.parametrize("dtype", CLOSE)
def test_on_x86_they_are_one_operator(dtype: torch.dtype):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    conv, x, out = made(dtype, (1, 1))
    with torch.no_grad(), Seen() as seen:
        convolve_relu(x, conv, (1, 1))
        convolve_add(x, conv, (1, 1), out)
        convolve_add_(x, conv, (1, 1), out)
        convolve_relu_(x, conv, (1, 1), out)
    assert seen.names == {
        "aten.zero_.default",
        "mkldnn._convolution_pointwise.default",
        "mkldnn._convolution_pointwise.binary",
        "mkldnn._convolution_pointwise_.binary",
    }


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="oneDNN is used so on x86"
)
def test_on_x86_nothing_is_joined():
    conv, x, _ = made(torch.float32, (0, 0))
    with torch.no_grad(), Seen() as seen:
        convolve_joined(x[:, :10], x[:, 10:], conv)
    assert "mkldnn._convolution_pointwise_.binary" in seen.names
    assert "aten.cat.default" not in seen.names


@pytest.mark.parametrize("grad", [False, True])
def test_elsewhere_they_are_written_over_as_well(grad: bool):
    """Double precision has no such pass, and gradients look on."""
    conv, x, _, rows = among_other_rows(torch.float64)
    with torch.set_grad_enabled(grad):
        convolve_relu_(x, conv, (0, 1), rows)
        assert torch.equal(rows, F.relu(F.conv2d(x, conv.weight, conv.bias, padding=(0, 1))))


def test_autocast_is_obeyed():
    """Features are bfloat16 there, weights are not: a frozen network under `bfloat16` training."""
    conv, x, out = made(torch.float32, (1, 1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
        assert torch.equal(convolve_relu(x.bfloat16(), conv, (1, 1)), expected)
        added = convolve_add(x.bfloat16(), conv, (1, 1), out.bfloat16())
    assert added.dtype == torch.bfloat16


def test_gradients_flow():
    conv, x, out = made(torch.float32, (1, 1))
    inner = convolve_relu(x, conv, (1, 1))[:, :16]
    convolve_add(inner, conv, (1, 1), out).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.abs().sum() > 0
