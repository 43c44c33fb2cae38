"""Each kernel gives what torch's operations give in float64, and networks through them likewise."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import check
import pytest
import torch
from torch import Tensor

from skipsr.nn import fused
from skipsr.nn.norm import RMSNorm
from skipsr.nn.rope import Rotation

HERE = Path(__file__).parent
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
ALL = {"rms_modulate", "gated_add", "swiglu", "place_heads", "affine_silu", "sums"}


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def norm(dim: int) -> RMSNorm:
    made = RMSNorm(dim, 1e-5).double()
    made.weight.copy_(drawn(dim))
    return made


def strided(x: Tensor) -> Tensor:
    """The same values with others between them in memory."""
    whole = x.new_full([n + 3 for n in x.shape[:-1]] + [x.shape[-1]], 7.0)
    part = whole[tuple(slice(1, n + 1) for n in x.shape[:-1])]
    return part.copy_(x)


def rms_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return fused.rms_modulate(x, 1e-5, shift, scale)


def gated_add_in_place(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    x = x.clone()
    assert fused.gated_add(x, y, gate, in_place=True) is x
    return x


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return fused.swiglu(gate.clone(), up)


def affine_silu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    wide = torch.double if x.dtype == torch.double else torch.float
    out = strided(torch.zeros_like(x))
    fused.affine_silu(strided(x), scale.to(wide), shift.to(wide), out)
    return out


def moments(x: Tensor) -> Tensor:
    return torch.stack(fused.moments(x, 6))


def sums(x: Tensor) -> Tensor:
    return fused.sums(x)


def heads(rotated: int, places: Callable[[], Tensor], dim: int) -> Callable[..., Tensor]:
    """Of three heads, the first `2 * rotated` features turned."""
    norms = norm(dim), norm(dim)
    angles = drawn(7, 1, rotated)
    rotation = Rotation(angles.cos().float(), angles.sin().float()) if rotated else None
    to = places()

    def run(qkv: Tensor) -> Tensor:
        packed = qkv.new_zeros(3, 30, 3, dim)
        device, own = qkv.device, [RMSNorm(dim, 1e-5).to(qkv) for _ in norms]
        for copy, one in zip(own, norms, strict=True):
            copy.weight.copy_(one.weight)
        turn = rotation and Rotation(rotation.cos.to(device), rotation.sin.to(device))
        fused.place_heads(qkv, *own, turn, to.to(device), packed)
        return packed

    return run


def once() -> Tensor:
    return torch.randperm(30)[:7]


def thrice() -> Tensor:
    return torch.randperm(30)[:21].view(3, 7)


CASES = {
    "rms_modulate": lambda: (rms_modulate, (drawn(9, 48), drawn(48), drawn(48))),
    "rms_modulate of a view": lambda: (rms_modulate, (drawn(48, 9).T, drawn(48), drawn(48))),
    "gated_add": lambda: (fused.gated_add, (drawn(9, 48), drawn(9, 48), drawn(48))),
    "gated_add in place": lambda: (gated_add_in_place, (drawn(50, 41), drawn(50, 41), drawn(41))),
    "swiglu": lambda: (swiglu, (drawn(9, 300), drawn(9, 300))),
    "heads": lambda: (heads(8, once, 16), (drawn(7, 144),)),
    "heads partly turned": lambda: (heads(9, once, 20), (drawn(7, 180),)),
    "heads not turned, repeated": lambda: (heads(0, thrice, 20), (drawn(7, 180),)),
    "affine_silu": lambda: (affine_silu, (drawn(2, 3, 5, 7, 24), drawn(2, 3, 24), drawn(2, 3, 24))),
    "moments": lambda: (moments, (drawn(2, 3, 30, 37, 24),)),
    "moments of a band": lambda: (lambda x: moments(x[:, :, 4:9]), (drawn(2, 3, 30, 37, 24),)),
    "sums": lambda: (sums, (drawn(2, 30, 37, 24),)),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_gives_what_torch_gives(
    case: str, dtype: torch.dtype, device: str, request: pytest.FixtureRequest
):
    torch.manual_seed(0)
    run, exact = CASES[case]()
    given = [x.to(dtype) for x in exact]
    expected = run(*(x.double() for x in given))
    called = request.getfixturevalue("by_kernels")
    found = run(*(x.to(device) for x in given))
    assert called
    wanted = torch.float32 if case.startswith(("sums", "moments")) else dtype
    assert found.dtype == wanted
    error = (found.cpu().double() - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE[wanted]


def test_nothing_is_written_beside_the_result(device: str, by_kernels: list[str]):
    out = torch.full((1, 2, 8, 10, 24), 7.0, device=device)
    x, ones = torch.zeros(1, 2, 5, 7, 24, device=device), torch.ones(1, 2, 24, device=device)
    fused.affine_silu(x, ones, 0 * ones, out[:, :, 1:6, 2:9])
    assert (out[:, :, 1:6, 2:9] == 0).all()
    out[:, :, 1:6, 2:9] = 7
    assert (out == 7).all()


@pytest.mark.parametrize("name", ["dit_3b_tiny_b", "vae_tiny_io"])
def test_the_original_s_numbers_through_the_kernels(name: str, by_kernels: list[str]):
    if torch.cuda.is_available():
        pytest.skip("the fixtures are checked on the processor")
    worst, tolerance, good, remark = check.run(
        HERE.parent / "parity" / "seedvr2" / f"{name}.safetensors"
    )
    assert good, f"{name}: {worst:.2e} > {tolerance:.1e} ({remark})"
    assert by_kernels


def test_kernels_compile_for_cards():
    """Without a card: what Triton makes of them for three generations, in another process."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, HERE / "compile_kernels.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 3 * len(ALL)
