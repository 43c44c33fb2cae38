"""Each kernel gives what torch's operations give in float64, and networks through them likewise."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import check
import pytest
import torch
from made_models import TINY
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from skipsr.backbones.seedvr2.dit import DiT
from skipsr.nn import attention, fused
from skipsr.nn.norm import RMSNorm
from skipsr.nn.rope import Rotation
from skipsr.skipping.route import Route

HERE = Path(__file__).parent
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
ALL = {
    "rms_modulate", "gated_add", "swiglu", "place_heads", "affine_silu", "sums", "put_biased",
    "copy_rows",
}  # fmt: skip


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


def rms_modulate(x: Tensor, *modulations: Tensor) -> Tensor:
    time, own = (fused.Modulation(*each) for each in modulations)
    return fused.rms_modulate(x, 1e-5, time, own)


def gated_add(x: Tensor, y: Tensor, *modulations: Tensor) -> Tensor:
    time, own = (fused.Modulation(*each) for each in modulations)
    return fused.gated_add(x, y, time, own)


def gated_add_in_place(x: Tensor, y: Tensor, *modulations: Tensor) -> Tensor:
    x = x.clone()
    time, own = (fused.Modulation(*each) for each in modulations)
    assert fused.gated_add(x, y, time, own, in_place=True) is x
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


def put_biased(y: Tensor, bias: Tensor) -> Tensor:
    y = y.clone()
    assert fused.put_biased(y, bias, y) is y
    return y


def put_biased_apart(y: Tensor, bias: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
    """From every other row of a larger tensor to the inside of another."""
    out = out.clone()
    fused.put_biased(y[:, :, ::2], bias, out[:, :, 1:4, 1:-1], add=add)
    return out


def added_biased_apart(y: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    return put_biased_apart(y, bias, out, add=True)


def copy_rows(source: Tensor, target: Tensor) -> Tensor:
    """Beside one another in memory are only the values of a row."""
    device, out = source.device, strided(target)[:, :30]
    rows, places = (torch.tensor(each, device=device) for each in ([3, 0, 3, 11], [29, 4, 0, 1]))
    fused.copy_rows(strided(source)[:, :12], rows, out, places)
    return out


def copy_rows_in_order(source: Tensor, target: Tensor) -> Tensor:
    target = target.clone()
    rows = torch.arange(30, device=source.device) * 7 % 12
    fused.copy_rows(source, rows, target)
    return target


def copy_rows_within(x: Tensor) -> Tensor:
    x = x.clone()
    rows, places = (torch.tensor(each, device=x.device) for each in ([3, 0, 3], [29, 4, 1]))
    fused.copy_rows(x, rows, x, places)
    return x


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
    "rms_modulate": lambda: (rms_modulate, (drawn(9, 48), drawn(3, 48), drawn(3, 48))),
    "rms_modulate of a view": lambda: (
        rms_modulate,
        (drawn(48, 9).T, drawn(3, 48), drawn(48, 3).T),
    ),
    "gated_add": lambda: (gated_add, (drawn(9, 48), drawn(9, 48), drawn(3, 48), drawn(3, 48))),
    "gated_add in place": lambda: (
        gated_add_in_place,
        (drawn(50, 41), drawn(50, 41), drawn(3, 41), drawn(3, 41)),
    ),
    "swiglu": lambda: (swiglu, (drawn(9, 300), drawn(9, 300))),
    "heads": lambda: (heads(8, once, 16), (drawn(7, 144),)),
    "heads partly turned": lambda: (heads(9, once, 20), (drawn(7, 180),)),
    "heads not turned, repeated": lambda: (heads(0, thrice, 20), (drawn(7, 180),)),
    "affine_silu": lambda: (affine_silu, (drawn(2, 3, 5, 7, 24), drawn(2, 3, 24), drawn(2, 3, 24))),
    "moments": lambda: (moments, (drawn(2, 3, 30, 37, 24),)),
    "moments of a band": lambda: (lambda x: moments(x[:, :, 4:9]), (drawn(2, 3, 30, 37, 24),)),
    "sums": lambda: (sums, (drawn(2, 30, 37, 24),)),
    "put_biased": lambda: (put_biased, (drawn(2, 3, 30, 37, 24), drawn(24))),
    "put_biased apart": lambda: (
        put_biased_apart,
        (drawn(2, 3, 6, 70, 24), drawn(24), drawn(2, 3, 5, 72, 24)),
    ),
    "put_biased, added apart": lambda: (
        added_biased_apart,
        (drawn(2, 3, 6, 70, 24), drawn(24), drawn(2, 3, 5, 72, 24)),
    ),
    "copy_rows in order": lambda: (copy_rows_in_order, (drawn(3, 12, 24), drawn(3, 30, 24))),
    "copy_rows in order of one": lambda: (copy_rows_in_order, (drawn(1, 12, 24), drawn(3, 30, 24))),
    "copy_rows": lambda: (copy_rows, (drawn(3, 12, 24), drawn(3, 30, 24))),
    "copy_rows of one frame": lambda: (copy_rows, (drawn(1, 12, 24), drawn(3, 30, 24))),
    "copy_rows within": lambda: (copy_rows_within, (drawn(3, 30, 24),)),
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


def test_a_row_is_as_long_as_on_the_canvas_of_an_8k_picture(by_kernels: list[str]):
    if not torch.cuda.is_available():
        pytest.skip("too much for an interpreter")
    y = torch.randn(1, 1, 2, 600_000, 128, device="cuda", dtype=torch.float16)
    bias, out = torch.randn(128, device="cuda", dtype=torch.float16), torch.zeros_like(y)
    fused.put_biased(y, bias, out)
    assert by_kernels
    assert torch.equal(out, y + bias)


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


class Operations(TorchDispatchMode):
    """Counts what would be launched: no views, no new memory."""

    FREE = frozenset(
        {"empty", "new_empty", "empty_like", "flatten", "_unsafe_view", "detach", "to"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.__name__.split(".")[0]
        self.count += not (func.is_view or name in self.FREE)
        return func(*args, **(kwargs or {}))


def test_a_layer_of_the_transformer_is_few_operations(
    by_kernels: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Kernels and attention count once, whatever they do inside."""
    from skipsr.nn import kernels

    config = replace(TINY.dit, mlp="swiglu", layers=2)
    dit = DiT(config).eval()
    geometry = dit.geometry(Route.dense((2, 4, 6)), text_tokens=5)
    time = dit.emb_in.split(dit.emb_in(torch.tensor(1000.0)))
    monkeypatch.setattr(attention, "_batched_attention", lambda q, k, v, lengths: v.clone())
    video, text = torch.randn(48, config.width), torch.randn(5, config.width)
    monkeypatch.setattr(kernels, "_run", lambda *_, **__: None)
    by_kernels.clear()
    with Operations() as operations:
        dit.blocks[0](video, text, time, geometry.layouts[0], geometry.text_rotation)
    assert operations.count + len(by_kernels) <= 26
