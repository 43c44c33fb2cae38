"""Packed (variable-length) attention: sequences end to end in one tensor, none seeing another.

One function, two ways to compute it: the variable-length flash kernel, for half precision on the
CUDA devices that can run it, and scaled-dot-product attention over batches of like sequences
everywhere else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

_SHORT = 64  # sequences up to this length cost more to launch than to pad
_PAD_STEP = 16
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences that the portable path computes in one call."""

    index: (
        Tensor  # sequences longest, int64: rows of the packed tensor; a short row repeats its first
    )
    valid: Tensor | None  # sequences longest, bool; None when no row is padded
    filled: tuple[Tensor, Tensor] | None  # where `valid`: of a mask the host would await the count
    run: slice | None  # the same rows as one stretch of the packed tensor, where they are that

    def take(self, x: Tensor) -> Tensor:
        """`n heads dim -> sequences heads longest dim`, a view where possible."""
        rows = x[self.index] if self.run is None else x[self.run].unflatten(0, self.index.shape)
        return rearrange(rows, "s n heads dim -> s heads n dim")

    def to(self, device: torch.device | str) -> "Batch":
        index = self.index.to(device)
        if self.valid is None or self.filled is None:
            return Batch(index, None, None, self.run)
        sequences, places = self.filled
        filled = sequences.to(device), places.to(device)
        return Batch(index, self.valid.to(device), filled, self.run)

    def drop_padding(self, x: Tensor) -> Tensor:
        """`sequences longest ... -> rows ...`, one sequence after another."""
        return x.flatten(0, 1) if self.filled is None else x[self.filled]


@dataclass(frozen=True, slots=True)
class Batches:
    """All sequences for the portable path."""

    batches: tuple[Batch, ...]
    restore: Tensor | None  # total, int64: where each packed row lies in the batches' results

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device) -> "Batches":
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        batches = tuple(_batches(lengths, starts))
        order = torch.cat([batch.drop_padding(batch.index) for batch in batches])
        in_order = torch.equal(order, torch.arange(len(order)))
        return Batches(
            tuple(batch.to(device) for batch in batches),
            None if in_order else order.argsort().to(device),
        )


@dataclass(frozen=True)
class Lengths:
    """Lengths of the sequences in a packed tensor, prepared once and reused by every layer.

    Empty sequences are legal: they own no row, so they are left out and never reach a kernel.
    """

    filled: tuple[int, ...]  # those that are not empty
    cumulative: Tensor  # sequences + 1, int32

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device | str = "cpu") -> "Lengths":
        """Prepare `lengths`, in the order in which the sequences lie in the packed tensor."""
        filled = tuple(n for n in lengths if n > 0)
        cumulative = torch.tensor([0, *filled]).cumsum(0)
        return Lengths(filled, cumulative.to(device, torch.int32))

    @property
    def total(self) -> int:
        """Rows of the packed tensor."""
        return sum(self.filled)

    @property
    def longest(self) -> int:
        return max(self.filled, default=0)

    @cached_property
    def batched(self) -> Batches:
        """For the portable path alone: as many tensors as there are different lengths."""
        return Batches.of(self.filled, self.cumulative.device)


def _batches(lengths: Sequence[int], starts: Sequence[int]) -> Iterator[Batch]:
    """Long sequences go with others of the same length, short ones with others of about theirs."""

    def padded(i: int) -> int:
        n = lengths[i]
        return n if n > _SHORT else -(-n // _PAD_STEP) * _PAD_STEP

    for _, members in groupby(sorted(range(len(lengths)), key=padded), key=padded):
        rows = list(members)
        longest = max(lengths[i] for i in rows)
        place = torch.arange(longest)
        valid = place < torch.tensor([lengths[i] for i in rows])[:, None]
        index = torch.tensor([starts[i] for i in rows])[:, None] + place * valid
        run = slice(starts[rows[0]], starts[rows[-1]] + longest)
        whole = bool(valid.all())
        contiguous = whole and run.stop - run.start == index.numel()
        if whole:
            yield Batch(index, None, None, run if contiguous else None)
        else:
            sequences, places = valid.nonzero().unbind(1)
            yield Batch(index, valid, (sequences, places), None)


def varlen_attn(
    q: Tensor, k: Tensor, v: Tensor, q_ends: Tensor, k_ends: Tensor, q_most: int, k_most: int
) -> Tensor:
    """torch's kernel, whose module takes as long to import as all of torch else."""
    from torch.nn.attention import varlen  # noqa: PLC0415

    out = varlen.varlen_attn(q, k, v, q_ends, k_ends, q_most, k_most)
    assert isinstance(out, Tensor)
    return out


@cache
def flash_runs(device: torch.device) -> bool:
    """Whether the flash kernel runs on a CUDA device, found out by trying.

    It does not on cards before compute capability 8.0, nor in every build of torch; none before
    2.10 has it.
    """
    x = torch.zeros(1, 1, 8, dtype=torch.float16, device=device)
    ends = torch.tensor([0, 1], dtype=torch.int32, device=device)
    try:
        varlen_attn(x, x, x, ends, ends, 1, 1)
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError):
        return False
    return True


def packed_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Lengths) -> Tensor:
    """Full softmax attention inside each sequence, scaled by 1/sqrt(dim).

    Args:
        q, k, v: `n heads dim` of one dtype, the sequences of `lengths` one after another.
        lengths: how the n rows divide into sequences; on the same device.

    Returns:
        `n heads dim`.
    """
    if q.shape[0] != lengths.total:
        raise ValueError(f"{q.shape[0]} packed rows, but the lengths add up to {lengths.total}")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"attention of {q.dtype}, {k.dtype} and {v.dtype}")
    if lengths.total == 0:
        return v
    if q.is_cuda and q.dtype in _HALF and flash_runs(q.device):
        cumulative, longest = lengths.cumulative, lengths.longest
        return varlen_attn(q, k, v, cumulative, cumulative, longest, longest)
    return _batched_attention(q, k, v, lengths)


def _batched_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Lengths) -> Tensor:
    parts: list[Tensor] = []
    for batch in lengths.batched.batches:
        mask = None if batch.valid is None else batch.valid[:, None, None, :]
        out = F.scaled_dot_product_attention(batch.take(q), batch.take(k), batch.take(v), mask)
        parts.append(batch.drop_padding(rearrange(out, "s heads n dim -> s n heads dim")))
    rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    return rows if lengths.batched.restore is None else rows[lengths.batched.restore]
