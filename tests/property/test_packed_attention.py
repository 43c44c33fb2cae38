"""Packed attention equals plain softmax attention in each sequence alone."""

import math

import pytest
import torch
from made_models import random
from torch import Tensor

from skipsr.nn.attention import Lengths, packed_attention

CASES = {
    "mixed": [5, 1, 0, 17, 64, 65, 3, 0, 2],
    "all equal": [7] * 6,
    "one long": [200],
    "ones": [1, 1, 1, 1],
    "empty ones at the ends": [0, 0, 9, 0],
    "around the padding step": [15, 16, 17, 31, 32, 33, 63, 64],
    "random": torch.randint(0, 90, (20,), generator=torch.Generator().manual_seed(0)).tolist(),
}


def plain(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Sequence by sequence and head by head."""
    out, start = [], 0
    for n in lengths:
        rows = slice(start, start + n)
        heads = [
            (q[rows, h] @ k[rows, h].T / math.sqrt(q.shape[2])).softmax(-1) @ v[rows, h]
            for h in range(q.shape[1])
        ]
        out.append(torch.stack(heads, 1))
        start += n
    return torch.cat(out)


@pytest.mark.parametrize("lengths", CASES.values(), ids=CASES.keys())
def test_equals_plain_softmax_with_gradients(lengths: list[int]):
    n = sum(lengths)
    ours = [random(n, 3, 8, seed=i).requires_grad_() for i in range(3)]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    a, b = packed_attention(*ours, Lengths.of(lengths)), plain(*theirs, lengths)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    upstream = random(n, 3, 8, seed=4)
    a.backward(upstream)
    b.backward(upstream)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.grad, y.grad, atol=1e-5, rtol=0)


def test_order_of_rows_and_sequences_is_irrelevant():
    lengths = [5, 1, 17, 40, 5]
    q, k, v = (random(sum(lengths), 2, 8, seed=i) for i in range(3))
    out = packed_attention(q, k, v, Lengths.of(lengths))
    generator = torch.Generator().manual_seed(1)
    pieces = torch.arange(sum(lengths)).split(lengths)
    order = [3, 0, 4, 2, 1]
    moved = torch.cat(
        [p[torch.randperm(len(p), generator=generator)] for i in order for p in [pieces[i]]]
    )
    permuted = packed_attention(
        q[moved], k[moved], v[moved], Lengths.of([lengths[i] for i in order])
    )
    torch.testing.assert_close(permuted, out[moved], atol=1e-6, rtol=0)


def test_sequences_do_not_see_one_another():
    lengths = [6, 9, 4]
    q, k, v = (random(19, 2, 8, seed=i) for i in range(3))
    before = packed_attention(q, k, v, Lengths.of(lengths))
    k[6:15], v[6:15] = 1e3, -1e3
    after = packed_attention(q, k, v, Lengths.of(lengths))
    other = [*range(6), *range(15, 19)]
    assert torch.equal(before[other], after[other])
    assert not torch.equal(before[6:15], after[6:15])


def test_nothing_at_all():
    empty = torch.zeros(0, 2, 8)
    assert packed_attention(empty, empty, empty, Lengths.of([])).shape == (0, 2, 8)
    assert packed_attention(empty, empty, empty, Lengths.of([0, 0])).shape == (0, 2, 8)


def test_lengths_that_do_not_add_up_are_refused():
    q = random(10, 2, 8)
    with pytest.raises(ValueError, match="10 packed rows, but the lengths add up to 9"):
        packed_attention(q, q, q, Lengths.of([4, 5]))
