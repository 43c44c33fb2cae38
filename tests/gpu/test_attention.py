"""The kernel that a card takes, against the portable path in float32 on the processor."""

import pytest
import torch
from made_models import random

from skipsr.nn import attention
from skipsr.nn.attention import Lengths, packed_attention

CARD = torch.device("cuda", 0)
LENGTHS = [5, 0, 300, 64, 17, 1, 900]
HALF = [torch.bfloat16, torch.float16]


def attend(device: torch.device, dtype: torch.dtype, head: int) -> list[torch.Tensor]:
    """The result and the gradients of q, k and v, float32 on the CPU."""
    lengths = Lengths.of(LENGTHS, device)
    inputs = [
        random(sum(LENGTHS), 3, head, seed=i).to(dtype).to(device).requires_grad_()
        for i in range(3)
    ]
    out = packed_attention(*inputs, lengths)
    out.backward(random(*out.shape, seed=4).to(dtype).to(device))
    return [
        x.float().cpu() for x in (out.detach(), *(x.grad for x in inputs if x.grad is not None))
    ]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("head", [24, 64, 128])
def test_both_ways_agree(dtype: torch.dtype, head: int, monkeypatch: pytest.MonkeyPatch):
    """On a card without the flash kernel both are the portable path."""
    found = attend(CARD, dtype, head)
    monkeypatch.setattr(attention, "flash_runs", lambda _: False)
    portable = attend(CARD, dtype, head)
    expected = attend(torch.device("cpu"), torch.float32, head)
    assert len(found) == 4
    for a, b, c in zip(found, portable, expected, strict=True):
        torch.testing.assert_close(a, c, atol=0.05, rtol=0.05)
        torch.testing.assert_close(b, c, atol=0.05, rtol=0.05)


def test_the_flash_kernel_is_for_cards_that_have_it():
    if torch.cuda.get_device_capability(CARD) < (8, 0):
        assert not attention.flash_runs(CARD)
    elif torch.backends.cuda.is_flash_attention_available() and torch.version.hip is None:
        assert attention.flash_runs(CARD)


def test_float32_is_exact():
    found, expected = (attend(device, torch.float32, 64) for device in (CARD, torch.device("cpu")))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)
