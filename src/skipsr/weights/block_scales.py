"""Matrices whose rows are cut into short blocks, each with a scale of eight bits: mxfp8 and nvfp4.

Files hold scales as matrix units of cards read them: in tiles of 128 rows and 4 blocks, and of a
tile's rows every 32nd side by side.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from skipsr.weights.quantized import QuantizedTensor, decode_fp8

MXFP8, NVFP4 = "mxfp8", "nvfp4"
_BLOCKS = {MXFP8: 32, NVFP4: 16}  # numbers with one scale
_TILE = 128, 4


def logical_shape(kind: str, stored: Sequence[int]) -> tuple[int, ...]:
    """Of codes of that shape: nvfp4 has two numbers in a byte."""
    return (*stored[:-1], stored[-1] * 2) if kind == NVFP4 else tuple(stored)


def count_scales(kind: str, stored: Sequence[int]) -> int:
    """How many a file holds for codes of that shape; 0 where they cannot be cut into blocks."""
    if len(stored) != 2 or (shape := logical_shape(kind, stored))[1] % _BLOCKS[kind]:
        return 0
    blocks = shape[0], shape[1] // _BLOCKS[kind]
    return math.prod(-(-n // tile) * tile for n, tile in zip(blocks, _TILE, strict=True))


def block_scaled(kind: str, codes: Tensor, scales: Tensor, whole: Tensor | None) -> QuantizedTensor:
    """
    Args:
        codes: of mxfp8 float8_e4m3fn `rows columns`, of nvfp4 uint8 `rows columns/2`.
        scales: of eight bits, in tiles; powers of two (E8M0) of mxfp8, E4M3 of nvfp4.
        whole: a scale of the whole matrix, which nvfp4 has beside.
    """
    shape = logical_shape(kind, codes.shape)
    by_row = _by_row(scales.view(torch.uint8), shape[0], shape[1] // _BLOCKS[kind])
    parts = (codes.view(torch.uint8), by_row, *(() if whole is None else (whole.float(),)))
    return QuantizedTensor(shape, parts, partial(_decode, kind))


def _by_row(scales: Tensor, rows: int, blocks: int) -> Tensor:
    down, across = (-(-n // tile) for n, tile in zip((rows, blocks), _TILE, strict=True))
    tiles = scales.reshape(down, across, 32, 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(down * _TILE[0], across * _TILE[1])[:rows, :blocks].contiguous()


def _decode(kind: str, codes: Tensor, scales: Tensor, whole: Tensor | None = None) -> Tensor:
    if kind == MXFP8:
        numbers, factors = decode_fp8(codes), (scales.int() << 23).view(torch.float32)
    else:  # the upper half of a byte comes first; E2M1 is 64 times E4M3 of its inner bits
        halves = torch.stack((codes >> 4, codes & 15), -1).flatten(1)
        numbers = decode_fp8((halves & 8) << 4 | (halves & 7) << 2)
        factors = decode_fp8(scales).mul_(64)
    if whole is not None:
        factors = factors * whole.float()
    return numbers.unflatten(1, (scales.shape[1], -1)).mul_(factors[..., None]).flatten(1)
