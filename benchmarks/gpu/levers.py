"""Legs that try one lever each, against what is there without it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from gpu.figures import Figures, ready, relative
from gpu.layers import make_autoencoder, make_layers
from regional_vae import make_frames, masks_of, measure_times
from torch import Tensor, nn

from skipsr.backbones.seedvr2.blocks import FrameNorm
from skipsr.backbones.seedvr2.regional import decode_regions
from skipsr.bench.measure import matmul_ceiling
from skipsr.nn import fused
from skipsr.skipping.decide import STRIP
from skipsr.skipping.route import Route

LAST = torch.channels_last_3d


@torch.inference_mode()
def ceilings(figures: Figures) -> None:
    """A matrix product, a copy, and what comes from pinned memory: GB/s."""
    figures.add("matrix product", tflops=matmul_ceiling(figures.device, figures.dtype))
    x = torch.empty(
        (1 if figures.tiny else 1024) * 2**19, device=figures.device, dtype=figures.dtype
    )
    y = torch.empty_like(x)
    figures.add("copy", gb_s=4 * x.numel() / figures.milliseconds(lambda: y.copy_(x), 10) / 1e6)
    if not figures.cuda:
        figures.leave_out("pinned copies", "needs CUDA")
        return
    host = torch.empty(x.shape, dtype=figures.dtype, pin_memory=True)
    for name, to, of in (("to the card", x, host), ("from the card", host, x)):
        ms = figures.milliseconds(lambda a=to, b=of: a.copy_(b, non_blocking=True), 10)
        figures.add(f"pinned, {name}", gb_s=2 * x.numel() / ms / 1e6)


@torch.inference_mode()
def kernels(figures: Figures) -> None:
    """Layers with and without the Triton kernels: of the 3B transformer, and decode of 9 frames at
    full width, by plain layers and on a canvas with all but one cell."""
    if figures.cuda and fused.kernels_of(figures.device, figures.dtype) is None:
        figures.leave_out("kernels", "Triton does not run here")
        return
    dit, shape, grid = make_layers(figures)
    geometry = dit.geometry(Route.dense(grid, figures.device), 58)
    draw = partial(torch.randn, device=figures.device, dtype=figures.dtype)
    times = dit.emb_in.split(dit.emb_in(torch.tensor(1000.0, device=figures.device)))
    tokens = grid[0] * grid[1] * grid[2]
    given = (
        draw(tokens, shape.width), draw(58, shape.width), times, geometry.layouts[0],
        geometry.text_rotation,
    )  # fmt: skip
    with_and_without(figures, "layer of 3B", lambda: dit.blocks[0](*given)[0])
    h, w = (4, 6) if figures.tiny else (90, 160)
    vae = make_autoencoder(figures)
    latent = draw(1, vae.config.latent_channels, 3, h, w)
    keeps = torch.ones(3, h // 2, w // 2, dtype=torch.bool)
    keeps[1:, :STRIP, -1:] = False
    with_and_without(figures, "decode", lambda: vae.decode(latent))
    with_and_without(
        figures, "decode on a canvas", lambda: decode_regions(vae, latent, None, keeps, STRIP)
    )


def with_and_without(figures: Figures, name: str, run: Callable[[], Tensor]) -> None:
    found, ms = run().clone(), figures.milliseconds(run)
    with patch.object(fused, "kernels_of", lambda *_: None):
        error, plain = relative(found, run()), figures.milliseconds(run)
    again = figures.milliseconds(run)
    figures.add(name, ms=ms, again_ms=again, plain_ms=plain, speedup=plain / ms, error=error)


@torch.inference_mode()
def layouts(figures: Figures) -> None:
    """Encode and decode of 9 frames with kernels in either order, and cuDNN choosing its way."""
    size = (5, 32, 48) if figures.tiny else (9, 720, 1280)
    vae = make_autoencoder(figures)
    frames = 2 * torch.rand(1, 3, *size, device=figures.device, dtype=figures.dtype) - 1
    latent = vae.encode(frames).mean
    runs = {"encode": partial(vae.encode, frames), "decode": partial(vae.decode, latent)}
    for form, order in (("channels-last", LAST), ("plain", torch.contiguous_format)):
        for weight in (p for p in vae.parameters() if p.ndim == 5):
            weight.data = weight.data.contiguous(memory_format=order)
        for name, run in runs.items():
            figures.add(f"{name}, {form} weights", ms=figures.milliseconds(run))
            with torch.backends.cudnn.flags(benchmark=True):
                ms = figures.milliseconds(run)
                figures.add(f"{name}, {form} weights, cudnn.benchmark", ms=ms)


@torch.inference_mode()
def regions(figures: Figures) -> None:
    """Encode and decode of what is kept; see `regional_vae.py`."""
    size = (5, 64, 96) if figures.tiny else (17, 720, 1280)
    vae = make_autoencoder(figures)
    frames = make_frames(*size).to(figures.device)
    masks = masks_of(*size, (0.8, 0.6, 0.4), STRIP)
    rounds = 1 if figures.tiny else 3
    figures.add("regions", size=list(size), times=measure_times(vae, frames, masks, STRIP, rounds))


@torch.inference_mode()
def convolutions(figures: Figures) -> None:
    """A causal 3x3x3 convolution in its memory formats, and as 2-D ones."""
    shapes = [(8, 3, 16, 24)] if figures.tiny else [(128, 5, 720, 1280), (512, 5, 180, 320)]
    for channels, t, h, w in shapes:
        x = torch.randn(1, channels, t + 2, h, w, device=figures.device, dtype=figures.dtype)
        weight, bias = _kernel(figures, channels)
        last, weight_last = (v.contiguous(memory_format=LAST) for v in (x, weight))
        planes = [k.contiguous(memory_format=torch.channels_last) for k in weight.unbind(2)]
        ways: dict[str, Callable[[], Tensor]] = {
            "plain": partial(_conv3d, x, weight, bias),
            "channels last": partial(_conv3d, last, weight_last, bias),
            "three 2-D": partial(_three_planes, last, planes, bias),
            "channels last, cudnn.benchmark": partial(_tuned, last, weight_last, bias),
        }
        truth = ways["plain"]()
        work = 2 * 27 * channels**2 * t * h * w / 1e9
        for name, run in ways.items():
            with figures.trying(name):
                error, ms = relative(run(), truth), figures.milliseconds(run)
                shape = [channels, t, h, w]
                figures.add(f"conv3d, {name}", shape=shape, ms=ms, tflops=work / ms, error=error)


@torch.inference_mode()
def long_convolution(figures: Figures) -> None:
    """A convolution of more than 2^31 values, whole and in two."""
    channels, t, h, w = (8, 5, 16, 24) if figures.tiny else (128, 17, 720, 1280)
    weight, bias = _kernel(figures, channels)
    for name, form in (("channels last", LAST), ("plain", torch.contiguous_format)):
        with figures.trying(name):
            x = torch.randn(1, channels, t + 2, h, w, device=figures.device, dtype=figures.dtype)
            x = x.contiguous(memory_format=form)
            kernel = weight.contiguous(memory_format=form)
            halves = x[:, :, : t // 2 + 2], x[:, :, t // 2 :]
            split = [_conv3d(part, kernel, bias) for part in halves]
            whole = _conv3d(x, kernel, bias).split([t // 2, t - t // 2], 2)
            figures.add(
                f"long conv3d, {name}",
                values=x.numel(),
                error=max(relative(a, b) for a, b in zip(whole, split, strict=True)),
                whole_ms=figures.milliseconds(lambda v=x, k=kernel: _conv3d(v, k, bias)),
                split_ms=figures.milliseconds(
                    lambda p=halves, k=kernel: [_conv3d(part, k, bias) for part in p]
                ),
            )


@torch.inference_mode()
def norm_silu(figures: Figures) -> None:
    """Group norm and SiLU of the finest level, fused by the compiler or not."""
    channels, t, h, w = (8, 3, 16, 24) if figures.tiny else (128, 5, 720, 1280)
    norm = FrameNorm(8 if figures.tiny else 32, channels).to(figures.device)
    ready(norm, figures.dtype)
    x = torch.randn(1, channels, t, h, w, device=figures.device, dtype=figures.dtype)

    def run(y: Tensor) -> Tensor:
        return F.silu(norm(y))

    truth = run(x)
    for name, form in (("plain", torch.contiguous_format), ("channels last", LAST)):
        y = x.contiguous(memory_format=form)
        figures.add(f"norm and silu, {name}", ms=figures.milliseconds(partial(run, y)))
        with figures.trying(f"compiled, {name}"):
            torch.compiler.reset()
            fused = torch.compile(run, **_compiler(figures))
            error, ms = relative(fused(y), truth), figures.milliseconds(partial(fused, y))
            figures.add(f"norm and silu, compiled, {name}", ms=ms, error=error)


@torch.inference_mode()
def compiled_layer(figures: Figures) -> None:
    """A layer of the 3B transformer, compiled, and recorded as a CUDA graph."""
    dit, shape, grid = make_layers(figures)
    route = Route.dense(grid, figures.device)
    geometry = dit.geometry(route, 58)
    draw = partial(torch.randn, device=figures.device, dtype=figures.dtype)
    times = dit.emb_in.split(dit.emb_in(torch.tensor(1000.0, device=figures.device)))
    given = (
        draw(route.kept, shape.width), draw(58, shape.width), times, geometry.layouts[0],
        geometry.text_rotation,
    )  # fmt: skip
    block = dit.blocks[0]
    truth, eager = block(*given)[0].clone(), figures.milliseconds(partial(block, *given))
    for mode in (None, "reduce-overhead") if figures.cuda else (None,):
        with figures.trying(mode or "compiled"):
            torch.compiler.reset()
            fused = torch.compile(block, **_compiler(figures, mode))
            error = relative(fused(*given)[0], truth)
            ms = figures.milliseconds(partial(fused, *given))
            figures.add(mode or "compiled", eager_ms=eager, ms=ms, speedup=eager / ms, error=error)


def _compiler(figures: Figures, mode: str | None = None) -> dict[str, Any]:
    """Options of `torch.compile`; without a card only that it can be traced is tried."""
    return {"mode": mode} if figures.cuda else {"backend": "aot_eager"}


def _kernel(figures: Figures, channels: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a 3x3x3 convolution."""
    with figures.device:
        conv = nn.Conv3d(channels, channels, 3)
    assert conv.bias is not None
    return conv.weight.detach().to(figures.dtype), conv.bias.detach().to(figures.dtype)


def _conv3d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv3d(x, weight, bias, padding=(0, 1, 1))


def _tuned(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Let cuDNN try its algorithms the first time."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        return _conv3d(x, weight, bias)
    finally:
        torch.backends.cudnn.benchmark = before


def _three_planes(x: Tensor, planes: Sequence[Tensor], bias: Tensor) -> Tensor:
    """One 2-D convolution for each tap in time."""
    frames, t = x[0].transpose(0, 1), x.shape[2] - 2
    out = F.conv2d(frames[:t], planes[0], bias, padding=1)
    for k in (1, 2):
        out += F.conv2d(frames[k : k + t], planes[k], padding=1)
    return out.transpose(0, 1)[None]
