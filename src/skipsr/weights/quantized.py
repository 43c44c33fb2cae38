"""Matrices in eight or four bits a number, kept so in memory and opened for one product at a time.

Files hold a model in a half or a quarter of its bytes so. A layer's matrix is dequantised when the
layer is called and dropped after: what is held is what the file holds, and one matrix.
"""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.weights.meta import on_meta

Decode = Callable[..., Tensor]
_WITH_FP8 = ("cpu", "cuda")  # devices; others may not know the type
_TOGETHER = 2**22  # numbers of a matrix that are in float32 at once


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedTensor:
    """Numbers as a file stores them.

    Attributes:
        shape: of the numbers, not of what is stored.
        stored: what the file holds of them; codes are of integer dtypes, which no `.to(dtype)` of a
            network changes.
        decode: from `stored` to float32 numbers, as many as `shape` has, in its order.
    """

    shape: tuple[int, ...]
    stored: tuple[Tensor, ...]
    decode: Decode

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The numbers; computed in float32, of some rows at a time, and then rounded."""
        rows, *rest = self.shape
        step = max(1, _TOGETHER // math.prod(rest))
        by_rows = all(part.numel() == 1 or len(part) == rows for part in self.stored)
        if rows <= step or not by_rows:
            return self.decode(*self.stored).reshape(self.shape).to(dtype)
        numbers = torch.empty(self.shape, dtype=dtype, device=self.stored[0].device)
        for first in range(0, rows, step):
            some = slice(first, first + step)
            parts = (part if part.numel() == 1 else part[some] for part in self.stored)
            numbers[some] = self.decode(*parts).reshape(-1, *rest)
        return numbers


Stored = Tensor | QuantizedTensor


def plain(value: Stored) -> Tensor:
    return value.dequantize() if isinstance(value, QuantizedTensor) else value


class QuantizedLinear(nn.Module):
    """In the place of an `nn.Linear` whose matrix is quantised; computes in its input's dtype."""

    bias: nn.Parameter | None

    def __init__(self, weight: QuantizedTensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self._form = replace(weight, stored=())
        self._parts = [f"stored_{i}" for i in range(len(weight.stored))]
        for name, part in zip(self._parts, weight.stored, strict=True):
            self.register_buffer(name, part)
        self.register_parameter("bias", bias)
        self._opened: Tensor | None = None

    @property
    def quantized(self) -> QuantizedTensor:
        """The matrix, where the layer is."""
        return replace(self._form, stored=tuple(self.get_buffer(name) for name in self._parts))

    def forward(self, x: Tensor) -> Tensor:  # ... in -> ... out
        opened = self._opened
        return F.linear(
            x, self.quantized.dequantize(x.dtype) if opened is None else opened, self.bias
        )

    def open(self, dtype: torch.dtype | None) -> None:
        """Hold the numbers from now on, for inputs of a dtype; None: no more."""
        self._opened = None if dtype is None else self.quantized.dequantize(dtype)


@contextmanager
def opened(network: nn.Module, dtype: torch.dtype) -> Generator[None]:
    """Meanwhile quantised matrices are held as numbers, for several products in a row."""
    layers = [layer for layer in network.modules() if isinstance(layer, QuantizedLinear)]
    try:
        for layer in layers:
            layer.open(dtype)
        yield
    finally:
        for layer in layers:
            layer.open(None)


def hold_quantized(network: nn.Module, name: str, weight: QuantizedTensor) -> bool:
    """Put a matrix into its layer as it is stored; False where nothing but numbers will do."""
    path, _, last = name.rpartition(".")
    layer = network.get_submodule(path)
    if not isinstance(layer, nn.Linear) or last != "weight":
        return False
    network.set_submodule(path, QuantizedLinear(weight, layer.bias))
    return True


def quantized_bytes(network: nn.Module) -> int | None:
    """Of a network that holds quantised matrices, all that it holds; None of others."""
    if not any(isinstance(layer, QuantizedLinear) for layer in network.modules()):
        return None
    return sum(part.nbytes for part in (*network.parameters(), *network.buffers()))


def parameter_count(network: nn.Module) -> int:
    """Numbers that were trained, those of quantised matrices among them."""
    held = (layer for layer in network.modules() if isinstance(layer, QuantizedLinear))
    matrices = sum(math.prod(layer.quantized.shape) for layer in held)
    return matrices + sum(parameter.numel() for parameter in network.parameters())


def dequantize_layers(network: nn.Module) -> None:
    """Make plain layers of all quantised ones, as training needs them."""
    for path, layer in list(network.named_modules()):
        if isinstance(layer, QuantizedLinear):
            weight = layer.quantized.dequantize()
            with on_meta():
                linear = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
            linear.weight = nn.Parameter(weight)
            if layer.bias is not None:
                linear.bias = layer.bias
            network.set_submodule(path, linear)


def fp8(codes: Tensor, scale: Tensor | None) -> QuantizedTensor:
    """Eight-bit floats (E4M3), times one scale, or one for each row.

    Args:
        codes: float8_e4m3fn.
        scale: None where the file holds none; a number, or `rows`, or `rows 1`.
    """
    stored = (codes.view(torch.uint8), *(() if scale is None else (_scale(codes, scale),)))
    return QuantizedTensor(tuple(codes.shape), stored, decode_fp8)


def int8(codes: Tensor, scale: Tensor, rotation: int = 0) -> QuantizedTensor:
    """Eight-bit integers, times one scale, or one for each row.

    Args:
        codes: int8, `rows columns`.
        scale: a number, or `rows`, or `rows 1`.
        rotation: columns that were turned together before they were rounded (ConvRot), a power of
            four; 0 where none were.
    """
    decode = partial(_decode_rotated, group=rotation) if rotation else _decode_int8
    return QuantizedTensor(tuple(codes.shape), (codes, _scale(codes, scale)), decode)


def can_rotate(columns: int, group: int) -> bool:
    """Whether so many columns can be turned in groups of this size."""
    size = 4
    while size < group:
        size *= 4
    return size == group and columns % group == 0


def _scale(codes: Tensor, scale: Tensor) -> Tensor:
    scale = scale.float()
    return scale.reshape(()) if scale.numel() == 1 else scale.reshape(-1, *[1] * (codes.ndim - 1))


def decode_fp8(codes: Tensor, scale: Tensor | None = None) -> Tensor:
    """Numbers of bytes that are E4M3, on devices without that type, too."""
    if codes.device.type in _WITH_FP8:
        numbers = codes.view(torch.float8_e4m3fn).float()
    else:
        every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
        numbers = every.to(codes.device)[codes.int()]
    return numbers if scale is None else numbers.mul_(scale)


def _decode_int8(codes: Tensor, scale: Tensor) -> Tensor:
    return codes.float().mul_(scale)


def _decode_rotated(codes: Tensor, scale: Tensor, group: int) -> Tensor:
    """Each group of columns turned back: the rotation is symmetric, and so its own inverse."""
    numbers = _decode_int8(codes, scale).unflatten(1, (-1, group))
    return (numbers @ _regular_hadamard(group, codes.device)).flatten(1)


def _regular_hadamard(size: int, device: torch.device) -> Tensor:
    """Of equal row sums, and orthogonal: Kronecker powers of the 4x4 one, of unit rows."""
    seed = torch.ones(4, 4, device=device) - 2 * torch.eye(4, device=device).flip(1)
    found = seed
    while len(found) < size:
        found = torch.kron(found, seed)
    return found / math.sqrt(size)
