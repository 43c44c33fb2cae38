"""Kernels are launched as CUDA allows, however large pictures are; needs neither Triton nor a card.

What kernels compute is for `tests/kernels`.
"""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import skipsr

_MOST = 2**31 - 1, 65535, 65535  # programs along each axis of a grid
_SIDE = 16384  # pixels of the largest results
_KEPT = 0.9 * _SIDE**2 / 32  # columns of their longest canvas
FILE = Path(skipsr.__file__).parent / "nn" / "kernels.py"


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def indices(count: int) -> Tensor:
    return empty(count, dtype=torch.long)


CANVAS = 34, int(_KEPT)
PICTURE = _SIDE, _SIDE
TOKENS = 26 * (_SIDE // 16) ** 2
WIDE = empty(2560)
LAUNCHES: dict[str, Callable[[Any], object]] = {
    "rms_modulate": lambda k: k.rms_modulate(empty(TOKENS, 2560), 1e-5, (WIDE,) * 2, (WIDE,) * 2),
    "gated_add": lambda k: k.gated_add(
        empty(TOKENS, 2560), empty(TOKENS, 2560), (WIDE,) * 2, empty(TOKENS, 2560)
    ),
    "swiglu": lambda k: k.swiglu(empty(TOKENS, 6912), empty(TOKENS, 6912)),
    "place_heads": lambda k: k.place_heads(
        empty(TOKENS, 3 * 2560), (empty(128),) * 2, 1e-5, None, indices(TOKENS),
        empty(3, TOKENS, 20, 128),
    ),
    "affine_silu": lambda k: k.affine_silu(
        empty(5, *PICTURE, 128), empty(5, 128), empty(5, 128), empty(5, *PICTURE, 128)
    ),
    "put_biased, canvas": lambda k: k.put_biased(
        empty(4, *CANVAS, 128), empty(128), empty(4, *CANVAS, 128), add=True
    ),
    "put_biased, picture": lambda k: k.put_biased(
        empty(5, *PICTURE, 128), empty(128), empty(5, *PICTURE, 128), add=False
    ),
    "copy_rows": lambda k: k.copy_rows(
        empty(6, prod(CANVAS), 256), indices(prod(CANVAS)), empty(6, prod(CANVAS), 256), None
    ),
    "sums": lambda k: k.sums(empty(5, *PICTURE, 128)),
}  # fmt: skip


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module itself, which takes what it needs of Triton outside of kernels from here."""
    language, triton = ModuleType("triton.language"), ModuleType("triton")
    language.constexpr = object  # type: ignore[attr-defined]
    triton.language = language  # type: ignore[attr-defined]
    triton.jit = lambda kernel: kernel  # type: ignore[attr-defined]
    triton.cdiv = lambda a, b: -(-a // b)  # type: ignore[attr-defined]
    triton.next_power_of_2 = lambda n: 1 << (n - 1).bit_length()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", language)
    spec = spec_from_file_location("kernels_without_triton", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("launch", LAUNCHES)
def test_no_grid_is_larger_than_a_card_takes(
    launch: str, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    grids: list[tuple[int, ...]] = []
    monkeypatch.setattr(kernels, "_run", lambda _kernel, _x, grid, *_, **__: grids.append(grid))
    LAUNCHES[launch](kernels)
    (grid,) = grids
    assert all(0 < side <= most for side, most in zip(grid, _MOST, strict=False))


def test_all_kernels_are_looked_at(kernels: ModuleType):
    found = {name[1:] for name in vars(kernels) if hasattr(kernels, name[1:]) and name[0] == "_"}
    assert found == {name.partition(",")[0] for name in LAUNCHES}
