"""GGUF files: tensors in the block formats of ggml, parsed by the `gguf` library.

Blocks are opened here, in torch, so that they can be where a network runs; the library's own
numbers are what the tests compare with.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from skipsr.errors import WeightsError
from skipsr.weights.quantized import Decode, QuantizedTensor, Stored

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class BlockTensor:
    """A tensor of a GGUF file, whose bytes were not read yet."""

    name: str
    kind: str  # as ggml calls it
    shape: tuple[int, ...]
    data: Any  # bytes or numbers, mapped from the file

    def read(self) -> Stored:
        raw = torch.from_numpy(self.data)
        if self.kind in _PLAIN:
            return raw.view(_PLAIN[self.kind]).reshape(self.shape)
        return QuantizedTensor(self.shape, (raw,), DECODERS[self.kind])


def read_blocks(path: Path) -> list[BlockTensor]:
    """What a GGUF file holds, without reading a value.

    Raises:
        WeightsError: without the extra that brings the library, for a damaged file, or a format
            that is not read.
    """
    try:
        library: Any = import_module("gguf")
    except ImportError as error:
        raise WeightsError(f'{path}: needs gguf ({error}): pip install "skipsr[gguf]"') from None
    try:
        reader = _reader(library)(path, "c")
        found = list(_tensors(reader))
        if not all(prod(tensor.shape) == size for tensor, size in found):
            raise ValueError
    except (
        ValueError,
        LookupError,
        TypeError,
        OverflowError,
        RecursionError,
        struct.error,
        OSError,
    ):
        raise WeightsError(
            f"{path}: not a readable GGUF file; it is damaged or incomplete, fetch it again"
        ) from None
    tensors = [tensor for tensor, _ in found]
    for tensor in tensors:
        if tensor.kind not in _PLAIN and tensor.kind not in DECODERS:
            raise WeightsError(
                f"{path}: {tensor.name} is stored as {tensor.kind}, which is not read; of GGUF "
                f"{', '.join((*DECODERS, *_PLAIN))} are"
            )
    return tensors


def _reader(library: Any) -> type[Any]:
    """The library's, that ends with the file: its own reads numbers behind it as none, and so goes
    on forever where a damaged file says to have very many."""

    class Reader(library.GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, *more: Any, **named: Any) -> Any:
            found = super()._get(offset, dtype, count, *more, **named)
            if len(found) < count:
                raise ValueError
            return found

    return Reader


def _tensors(reader: Any) -> Iterator[tuple[BlockTensor, int]]:
    """And how many numbers each has. Shapes are stored reversed, and odd ones beside."""
    for tensor in reader.tensors:
        field = reader.get_field(f"comfy.gguf.orig_shape.{tensor.name}")
        lengths = reversed(tensor.shape.tolist()) if field is None else field.contents()
        shape = tuple(int(length) for length in lengths)
        kind = tensor.tensor_type.name
        yield BlockTensor(tensor.name, kind, shape, tensor.data), int(tensor.n_elements)


# Each takes bytes of whole blocks, and gives their numbers in order. `d` and `m` are a block's
# scale and that of its minima; sub-blocks have scales of their own, in units of these.


def _blocks(raw: Tensor, size: int) -> Tensor:
    return raw.reshape(-1, size)


def _half(block: Tensor, at: int) -> Tensor:
    return block[:, at : at + 2].contiguous().view(torch.float16).float()  # b 1


def _q8_0(raw: Tensor) -> Tensor:
    block = _blocks(raw, 34)
    return _half(block, 0) * block[:, 2:].contiguous().view(torch.int8).float()


def _six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minima of eight sub-blocks out of twelve bytes, `b 8` each."""
    low, middle, high = packed.unflatten(1, (3, 4)).unbind(1)
    scales = torch.cat((low & 63, (high & 15) | (low >> 6 << 4)), 1)
    minima = torch.cat((middle & 63, (high >> 4) | (middle >> 6 << 4)), 1)
    return scales.float(), minima.float()


def _nibbles(codes: Tensor) -> Tensor:
    """Eight sub-blocks of 32 out of 128 bytes: of each 32 bytes the low halves, then the high."""
    codes = codes.unflatten(1, (4, 32))
    return torch.stack((codes & 15, codes >> 4), 2).flatten(1, 2)  # b 8 32


def _with_minima(block: Tensor, codes: Tensor) -> Tensor:
    scales, minima = _six_bits(block[:, 4:16])
    scales, minima = _half(block, 0) * scales, _half(block, 2) * minima
    return scales[..., None] * codes.float() - minima[..., None]


def _q4_k(raw: Tensor) -> Tensor:
    block = _blocks(raw, 144)
    return _with_minima(block, _nibbles(block[:, 16:]))


def _q5_k(raw: Tensor) -> Tensor:
    block = _blocks(raw, 176)
    bits = torch.arange(8, device=raw.device, dtype=torch.uint8)[:, None]
    fifth = (block[:, None, 16:48] >> bits) & 1  # b 8 32
    return _with_minima(block, _nibbles(block[:, 48:]) | (fifth << 4))


def _q6_k(raw: Tensor) -> Tensor:
    block = _blocks(raw, 210)
    low = block[:, :128].unflatten(1, (2, 64))
    low = torch.stack((low & 15, low >> 4), 2).flatten(1)  # of each 64 bytes low halves, then high
    shifts = torch.arange(0, 8, 2, device=raw.device, dtype=torch.uint8)[:, None]
    high = ((block[:, 128:192].unflatten(1, (2, 1, 32)) >> shifts) & 3).flatten(1)
    codes = (low | (high << 4)).float() - 32
    scales = block[:, 192:208].contiguous().view(torch.int8).float() * _half(block, 208)
    return codes.unflatten(1, (16, 16)) * scales[..., None]


DECODERS: Mapping[str, Decode] = MappingProxyType(
    {"Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}
)
