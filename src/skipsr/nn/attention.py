"""Packed attention: many sequences of different lengths, end to end in one tensor, none seeing another.

One function, two ways to compute it: the variable-length flash kernel on CUDA in half precision, and
scaled-dot-product attention over batches of like sequences everywhere else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

_SHORT = 64  # sequences up to this length cost more to launch than to pad
_PAD_STEP = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences that the portable path computes in one call."""

    index: Tensor  # sequences longest, int64: rows of the packed tensor; a short row repeats its first
    valid: Tensor | None  # sequences longest, bool; None when no row is padded


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of the sequences in a packed tensor, prepared once and reused by every layer.

    Empty sequences are legal: they own no row, so they are left out and never reach a kernel.
    """

    total: int
    longest: int
    cumulative: Tensor  # sequences + 1, int32
    batches: tuple[Batch, ...]

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device | str = "cpu") -> "Lengths":
        """Prepare `lengths`, in the order in which the sequences lie in the packed tensor."""
        filled = [n for n in lengths if n > 0]
        cumulative = torch.tensor([0, *filled]).cumsum(0)
        return Lengths(
            total=sum(filled),
            longest=max(filled, default=0),
            cumulative=cumulative.to(device, torch.int32),
            batches=tuple(_batches(filled, cumulative.tolist(), device)),
        )


def _batches(
    lengths: Sequence[int], starts: Sequence[int], device: torch.device | str
) -> Iterator[Batch]:
    def padded(i: int) -> int:
        n = lengths[i]
        return n if n > _SHORT else -(-n // _PAD_STEP) * _PAD_STEP

    for _, members in groupby(sorted(range(len(lengths)), key=padded), key=padded):
        rows = list(members)
        longest = max(lengths[i] for i in rows)
        place = torch.arange(longest)
        valid = place < torch.tensor([lengths[i] for i in rows])[:, None]
        index = torch.tensor([starts[i] for i in rows])[:, None] + place * valid
        yield Batch(index.to(device), None if valid.all() else valid.to(device))


def packed_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Lengths) -> Tensor:
    """Full softmax attention inside each sequence, scaled by 1/sqrt(dim).

    Args:
        q, k, v: `n heads dim`, the sequences of `lengths` one after another.
        lengths: how the n rows divide into sequences; on the same device.

    Returns:
        `n heads dim`.
    """
    if q.shape[0] != lengths.total:
        raise ValueError(f"{q.shape[0]} packed rows, but the lengths add up to {lengths.total}")
    if lengths.total == 0:
        return v
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        cumulative, longest = lengths.cumulative, lengths.longest
        out = varlen_attn(q, k, v, cumulative, cumulative, longest, longest)
        assert isinstance(out, Tensor)
        return out
    return _batched_attention(q, k, v, lengths)


def _batched_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Lengths) -> Tensor:
    parts: list[Tensor] = []
    for batch in lengths.batches:
        rows = (rearrange(x[batch.index], "s n heads dim -> s heads n dim") for x in (q, k, v))
        mask = None if batch.valid is None else batch.valid[:, None, None, :]
        out = rearrange(F.scaled_dot_product_attention(*rows, mask), "s heads n dim -> s n heads dim")
        parts.append(out.flatten(0, 1) if batch.valid is None else out[batch.valid])
    index = torch.cat([b.index.flatten() if b.valid is None else b.index[b.valid] for b in lengths.batches])
    return torch.empty_like(v).index_copy(0, index, torch.cat(parts))
