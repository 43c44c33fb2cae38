"""Weights that wait in the host's memory, quantised ones among them."""

import pytest
import torch
from torch import nn

from skipsr.nn import residence
from skipsr.nn.residence import PinnedMemory, StreamedBlocks, pinned_bytes, travels
from skipsr.weights.quantized import QuantizedLinear, fp8


def quantised(side: int = 8) -> QuantizedLinear:
    codes = torch.randn(side, side).to(torch.float8_e4m3fn)
    return QuantizedLinear(fp8(codes, torch.rand(side)), nn.Parameter(torch.rand(side)))


def test_quantised_matrices_travel_as_parameters_do():
    layer = quantised()
    codes, scale = layer.quantized.stored
    found = [id(x) for x in travels(layer)]
    assert found == [id(layer.bias), id(codes)]
    assert id(scale) not in found  # a few numbers: they stay


def test_quantised_blocks_are_streamed_as_they_are():
    blocks = [quantised() for _ in range(3)]
    held = [block.quantized.stored[0].data_ptr() for block in blocks]
    x = torch.randn(2, 8)
    wanted = x
    for block in blocks:
        wanted = block(wanted)
    StreamedBlocks(blocks, torch.device("cpu"))
    places: list[int] = []
    for block in blocks:
        block.register_forward_pre_hook(
            lambda block, _: places.append(block.quantized.stored[0].data_ptr())
        )
    for _ in range(2):
        found = x
        for block in blocks:
            found = block(found)
        assert torch.equal(found, wanted)
    assert len(places) == 6
    assert not set(places) & set(held)
    assert [block.quantized.stored[0].data_ptr() for block in blocks] == held


def test_a_pass_that_breaks_off_is_followed_by_a_whole_one():
    blocks = [quantised() for _ in range(3)]
    x = torch.randn(2, 8)
    wanted = blocks[2](blocks[1](blocks[0](x)))
    held = [block.quantized.stored[0].data_ptr() for block in blocks]
    StreamedBlocks(blocks, torch.device("cpu"))
    blocks[0](x)
    with pytest.raises(RuntimeError):
        blocks[1](torch.randn(2, 7))
    assert [block.quantized.stored[0].data_ptr() for block in blocks] == held
    assert torch.equal(blocks[2](blocks[1](blocks[0](x))), wanted)


def test_held_tensors_lie_side_by_side_as_they_were(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(residence, "_PIECE", 2**12)
    values = [
        torch.randn(4, 6, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d),
        torch.randn(5).bfloat16(),
        torch.randint(0, 255, (300,), dtype=torch.uint8),
        torch.randn(2000),  # more than a piece
        torch.randn(3, 4),
    ]
    memory = PinnedMemory(pin=False)
    held = [memory.hold(value) for value in values]
    for one, other in zip(held, values, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
        assert one.stride() == other.stride()
    pieces = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in held}
    assert len(pieces) == 3
    sizes = [x.numel() * x.element_size() for x in values]
    assert pinned_bytes(sizes) == sum(pieces.values()) == 2**12 + 2**13 + 2**12
