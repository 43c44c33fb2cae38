"""Convolutions with what follows them are the same as one after the other."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.nn.convolution import convolve_add, convolve_add_, convolve_relu

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


def test_what_lies_among_other_rows_is_added_to_in_place():
    conv, x, _ = made(torch.float32, (0, 1))
    canvas = torch.randn(1, 10, 52, 24)
    before = canvas.clone()
    rows = canvas[:, 1:9].permute(0, 3, 1, 2)
    with torch.no_grad():
        convolve_add_(x, conv, (0, 1), rows)
        plain = F.conv2d(x, conv.weight, conv.bias, padding=(0, 1))
    torch.testing.assert_close(rows, before[:, 1:9].permute(0, 3, 1, 2) + plain, atol=1e-5, rtol=0)
    assert torch.equal(canvas[:, ::9], before[:, ::9])


def test_gradients_flow():
    conv, x, out = made(torch.float32, (1, 1))
    inner = convolve_relu(x, conv, (1, 1))[:, :16]
    convolve_add(inner, conv, (1, 1), out).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.abs().sum() > 0
