"""What a GPU makes of skipsr: whether it runs and agrees, where the time goes, a whole job, levers.

    PYTHONPATH=src python benchmarks/gpu/measure.py --seconds 210              # one 80 GB GPU
    PYTHONPATH=src python benchmarks/gpu/measure.py --tiny --out tiny-figures  # a CPU, a minute

Weights of the large networks are random. Every figure goes to `gpu.json` in `--out` as soon
as it is there. A step that fails leaves its traceback and the next one goes on; a step for
which no time is left is left out and named. PyAV and tyro are not needed, and are blocked.

Times are medians after a warm-up, by CUDA events on a GPU. TFLOP counts multiply-add as 2.
"""

import argparse
import copy
import gc
import importlib.abc
import json
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from skipsr.backbones.basicvsr.config import PRESETS as BASICVSR
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.backbones.seedvr2 import frames as framing
from skipsr.backbones.seedvr2.blocks import FrameNorm
from skipsr.backbones.seedvr2.config import DIT_3B, DIT_7B, PRESETS, DiTConfig, Sampling, VAEConfig
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.model import ConditioningTokens, SeedVR2
from skipsr.backbones.seedvr2.sampler import denoise
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.clip import Clip
from skipsr.loading import load_networks, load_upscaler
from skipsr.nn import attention
from skipsr.nn.color_fix import transfer_low_frequencies
from skipsr.nn.packing import Geometry
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.skipping.route import Route
from skipsr.tracing import Trace
from skipsr.train.masks import smooth_mask
from skipsr.train.objective import ClipBatch
from skipsr.train.objectives.finetune import OneStepObjective

TEXT = 58
SKIPPED = (0.0, 0.277, 0.396, 0.6)
JOB_SKIPPED = (0.0, 0.28, 0.4, 0.6)
HALF = torch.bfloat16
NANO_WAYS = {"dense": SkipSettings(dense=True), "routed": SkipSettings(budget=0.6)}
Figure = dict[str, Any]
Grid = tuple[int, int, int]


class OutOfTimeError(BaseException):
    """Raised by the alarm; no `Exception`, so that nothing under way takes it for a failure."""


class Blocked(importlib.abc.MetaPathFinder):
    """Nothing measured here may need these packages."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.partition(".")[0] in ("av", "tyro"):
            raise ImportError(f"{fullname} is blocked: the compute path must do without it")


# ------------------------------------------------------------------------------------------ sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    dit_3b: DiTConfig = DIT_3B
    dit_7b: DiTConfig = DIT_7B
    cut: int = 4  # layers of the transformers that are compared with the CPU
    vae: VAEConfig = VAEConfig()
    ceiling: int = 8192
    clip: tuple[int, int, int] = (9, 48, 80)  # LR frames, rows, columns of the small clip
    train: tuple[int, int, int] = (5, 64, 96)
    check_grid: Grid = (3, 18, 32)
    check_video: tuple[int, int, int] = (17, 352, 640)
    step_grid: Grid = (26, 45, 80)
    video: tuple[int, int, int] = (9, 720, 1280)
    recurrent: tuple[int, int, int] = (10, 180, 320)
    job: tuple[int, int, int] = (21, 720, 1280)
    convs: tuple[tuple[int, int, int, int], ...] = ((128, 5, 720, 1280), (512, 5, 180, 320))
    long_conv: tuple[int, int, int, int] = (128, 17, 720, 1280)  # more than 2**31 values
    stream_mib: int = 1024


TINY = Sizes(
    dit_3b=replace(DIT_3B, width=256, heads=2, layers=4, separate_layers=2, text_width=64),
    dit_7b=replace(DIT_7B, width=256, heads=2, layers=4, separate_layers=4, text_width=64),
    cut=2,
    vae=VAEConfig(channels=(16, 16, 32, 32), encoder_blocks=1, decoder_blocks=1, groups=8),
    ceiling=256,
    clip=(5, 8, 8),
    train=(5, 16, 16),
    check_grid=(2, 6, 8),
    check_video=(5, 32, 48),
    step_grid=(3, 6, 8),
    video=(5, 32, 48),
    recurrent=(2, 16, 16),
    job=(5, 32, 48),
    convs=((8, 3, 16, 24),),
    long_conv=(8, 5, 16, 24),
    stream_mib=1,
)


# --------------------------------------------------------------------------------------- recording


@dataclass
class Bench:
    """The device, the sizes, what was found so far, and the networks that several steps share."""

    device: torch.device
    sizes: Sizes
    tiny: bool
    out: Path
    deadline: float
    machine: Figure
    step: str = ""
    figures: list[Figure] = field(default_factory=list[Figure])
    errors: list[Figure] = field(default_factory=list[Figure])
    left_out: list[Figure] = field(default_factory=list[Figure])
    steps: list[Figure] = field(default_factory=list[Figure])
    ceiling: float | None = None  # TFLOP/s of a large bfloat16 matrix product

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def remaining(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def runtime(self) -> str:
        return self.device.type

    def add(self, name: str, shape: object, dtype: object, **values: Any) -> None:
        """One figure, written at once."""
        stamp = {key: self.machine[key] for key in ("device", "driver", "torch")}
        about = {"shape": shape, "dtype": str(dtype).removeprefix("torch.")}
        self.figures.append({"step": self.step, "name": name, **about, **values, **stamp})
        short = {k: v for k, v in rounded(values).items() if not isinstance(v, (list, dict))}
        print(f"    {name}: {json.dumps(short)}", flush=True)
        self.save()

    def skip(self, what: str, why: str) -> None:
        self.left_out.append({"step": self.step, "what": what, "why": why})
        print(f"    {what}: left out, {why}", flush=True)
        self.save()

    def fail(self, what: str, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        entry = {"step": self.step, "what": what, "error": repr(error)[:2000]}
        self.errors.append({**entry, "traceback": text[-6000:]})
        print(f"    {what} FAILED: {repr(error)[:600]}", flush=True)
        self.save()

    def save(self) -> None:
        record = {
            "benchmark": "gpu/measure",
            "machine": self.machine,
            "steps": self.steps,
            "errors": self.errors,
            "left_out": self.left_out,
            "figures": self.figures,
        }
        path = self.out / "gpu.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(rounded(record), indent=1) + "\n")
        part.replace(path)

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """One variant of several: its failure is recorded and the next is tried."""
        try:
            yield
        except Exception as error:
            self.fail(what, error)

    @cached_property
    def dit_3b(self) -> DiT:
        return to_dtype(random_dit(self.sizes.dit_3b, self.device), HALF)

    @cached_property
    def vae_exact(self) -> VideoAutoencoder:
        torch.manual_seed(2)
        with self.device:
            return VideoAutoencoder(self.sizes.vae).eval().requires_grad_(False)

    @cached_property
    def vae(self) -> VideoAutoencoder:
        return to_dtype(copy.deepcopy(self.vae_exact), HALF)

    def drop(self, *names: str) -> None:
        """Free networks that are not needed any more."""
        for name in names:
            self.__dict__.pop(name, None)
        free(self)


def rounded(value: Any) -> Any:
    """Six significant digits, which is more than any figure holds."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {str(k): rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    return value


def describe(device: torch.device, tiny: bool) -> Figure:
    cuda = device.type == "cuda"
    smi = query_smi("name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit")
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "driver": smi.split(",")[1].strip() if smi.count(",") > 1 else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "capability": list(torch.cuda.get_device_capability(device)) if cuda else None,
        "memory_gib": torch.cuda.get_device_properties(device).total_memory / 2**30
        if cuda
        else None,
        "python": sys.version.split()[0],
        "threads": torch.get_num_threads(),
        "nvidia_smi": smi,
        "command": " ".join(sys.argv),
        "tiny": tiny,
        "blocked_but_loaded": sorted({"av", "tyro"} & sys.modules.keys()),
    }


def query_smi(fields: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


# --------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True, slots=True)
class Timing:
    ms: float
    first_ms: float  # the warm-up: compiling, choosing algorithms, allocating
    repeats: int
    spread: float  # (longest - shortest) / median

    def figures(self) -> Figure:
        names = ("ms", "first_ms", "repeats", "spread")
        return {name: getattr(self, name) for name in names}


def timed(
    bench: Bench, run: Callable[[], Any], repeats: int = 5, limit_s: float = 10.0, inner: int = 1
) -> Timing:
    """Median time; after `limit_s` seconds three repeats are enough, after twice that one is."""
    began = time.monotonic()
    first = elapsed_ms(bench, run, 1)
    if bench.tiny:
        return Timing(first, first, 0, 0.0)
    if first < 50:
        elapsed_ms(bench, run, 1)
    times: list[float] = []
    for i in range(repeats):
        spent = time.monotonic() - began
        if (spent > limit_s and i >= 3) or (spent > 2 * limit_s and i >= 1):
            break
        times.append(elapsed_ms(bench, run, inner) / inner)
    middle = statistics.median(times)
    return Timing(middle, first, len(times), (max(times) - min(times)) / max(middle, 1e-9))


def elapsed_ms(bench: Bench, run: Callable[[], Any], inner: int) -> float:
    if not bench.cuda:
        began = time.perf_counter()
        for _ in range(inner):
            run()
        return 1000 * (time.perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(inner):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def peak_gib(bench: Bench, run: Callable[[], Any]) -> Figure:
    """Peak of allocations while it runs, and what lay there before (weights, mostly)."""
    if not bench.cuda:
        return {"peak_gib": None, "before_gib": None}
    free(bench)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    return {"peak_gib": peak / 2**30, "before_gib": before / 2**30}


def free(bench: Bench) -> None:
    gc.collect()
    if bench.cuda:
        torch.cuda.empty_cache()


def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||, in double precision on the CPU unless both are large."""
    a, b = a.detach(), b.detach()
    if b.numel() < 5_000_000:
        a, b = a.cpu().double(), b.cpu().double()
    else:
        a, b = a.to(b.device).float(), b.float()
    return (torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)).item()


KINDS = (
    ("convolution", ("conv",)),
    ("attention", ("scaled_dot", "flash", "efficient_attention", "varlen", "_softmax")),
    ("group or rms norm", ("group_norm", "rms_norm", "layer_norm")),
    ("silu", ("silu",)),
    ("matmul", ("mm", "linear", "matmul")),
    ("warp", ("grid_sample", "grid_sampler", "embedding_bag")),
    ("gather, scatter", ("index", "gather", "scatter")),
    ("cat, pad, copies", ("cat", "pad", "copy", "clone", "contiguous", "fill_", "zero_")),
)


def kind_of(op: str) -> str:
    name = op.removeprefix("aten::")
    return next((kind for kind, parts in KINDS if any(p in name for p in parts)), "other")


def profiled(bench: Bench, run: Callable[[], Any], top: int = 15) -> Figure:
    """Time by operator, by kind of operator and by kernel; calls of the CUDA runtime."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * bench.cuda
    with profile(activities=activities) as prof:
        run()
        if bench.cuda:
            torch.cuda.synchronize()
    rows = list(prof.key_averages())
    clock = "self_device_time_total" if bench.cuda else "self_cpu_time_total"
    host = [r for r in rows if r.device_type == DeviceType.CPU]
    ops = [(r.key, getattr(r, clock) / 1000, r.count) for r in host]
    ops = [o for o in ops if o[1] > 0 and not o[0].startswith(("cuda", "cuLaunch", "cu"))]
    kernels = [
        (r.key, r.self_device_time_total / 1000, r.count)
        for r in rows
        if r.device_type == DeviceType.CUDA
    ]
    kinds: Counter[str] = Counter()
    for name, ms, _ in ops:
        kinds[kind_of(name)] += ms  # type: ignore[assignment]
    calls = {r.key: r.count for r in host if r.key.startswith("cu")}
    return {
        "total_ms": sum(ms for _, ms, _ in (kernels if bench.cuda else ops)),
        "kinds_ms": dict(kinds.most_common()),
        "ops": largest(ops, top),
        "kernels": largest(kernels, top),
        "runtime_calls": calls,
    }


def largest(rows: Sequence[tuple[str, float, int]], top: int) -> list[Figure]:
    total = sum(ms for _, ms, _ in rows) or 1.0
    chosen = sorted(rows, key=lambda row: -row[1])[:top]
    return [
        {"name": name[:120], "ms": ms, "count": count, "share": ms / total}
        for name, ms, count in chosen
    ]


def per_frame(calls: dict[str, int], frames: int) -> Figure:
    """Launches, waits and copies of one frame."""

    def count(*parts: str) -> float:
        return sum(n for key, n in calls.items() if any(p in key for p in parts)) / frames

    return {
        "launches": count("LaunchKernel"),
        "stream_synchronize": count("StreamSynchronize"),
        "device_synchronize": count("DeviceSynchronize", "EventSynchronize"),
        "memcpy": count("Memcpy"),
        "memset": count("Memset"),
    }


@contextmanager
def watch_attention() -> Iterator[Counter[str]]:
    """Counts which way `packed_attention` took, with dtypes and head size."""
    seen: Counter[str] = Counter()
    varlen, batched = attention.varlen_attn, attention._batched_attention

    def describe_call(way: str, q: Tensor, k: Tensor, v: Tensor) -> str:
        kinds = "/".join(str(x.dtype).removeprefix("torch.") for x in (q, k, v))
        return f"{way} {kinds} head {q.shape[-1]}"

    def spy_varlen(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Any:
        seen[describe_call("varlen", q, k, v)] += 1
        return varlen(q, k, v, *rest)

    def spy_batched(q: Tensor, k: Tensor, v: Tensor, lengths: attention.Lengths) -> Tensor:
        seen[describe_call("sdpa", q, k, v)] += 1
        return batched(q, k, v, lengths)

    attention.varlen_attn, attention._batched_attention = spy_varlen, spy_batched  # type: ignore[assignment]
    try:
        yield seen
    finally:
        attention.varlen_attn, attention._batched_attention = varlen, batched


@contextmanager
def watch_convolutions() -> Iterator[Counter[str]]:
    """Counts the memory formats in which 3-D convolutions find their inputs and weights."""
    seen: Counter[str] = Counter()
    own = nn.Conv3d._conv_forward

    def spy(self: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen[f"input {memory_format(x)}, weight {memory_format(weight)}"] += 1
        return own(self, x, weight, bias)

    nn.Conv3d._conv_forward = spy  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        nn.Conv3d._conv_forward = own  # type: ignore[method-assign]


def memory_format(x: Tensor) -> str:
    last = x.is_contiguous(memory_format=torch.channels_last_3d)
    plain = x.is_contiguous()
    return "either" if last and plain else "channels last" if last else "plain" if plain else "none"


@contextmanager
def exact_float32() -> Iterator[None]:
    """Without TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# ---------------------------------------------------------------------------------------- material


def random_dit(config: DiTConfig, device: torch.device) -> DiT:
    """Float32, with weights under which every layer matters: a fresh one adds nothing yet."""
    torch.manual_seed(1)
    with device:
        dit = DiT(config)
    with torch.no_grad():
        for name, parameter in dit.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
            elif name.endswith(".bias"):
                parameter.zero_()
            elif name.endswith("_gate"):
                parameter.fill_(0.5)
    return dit.eval().requires_grad_(False)


def to_dtype(module: Any, dtype: torch.dtype) -> Any:
    """As the loaders do it: buffers (rotary frequencies) stay as they are."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module


def route_of(grid: Grid, skipped: float, device: torch.device) -> Route:
    if not skipped:
        return Route.dense(grid, device)
    return Route(smooth_mask(grid, 1 - skipped, torch.Generator().manual_seed(0)).to(device))


def velocity(dit: DiT, cells: Tensor, text: Tensor, geometry: Geometry) -> Tensor:
    return dit(cells, text, torch.tensor(1000.0, device=cells.device), geometry)


def dit_inputs(config: DiTConfig, kept: int) -> tuple[Tensor, Tensor]:
    """On the CPU, the same everywhere."""
    generator = torch.Generator().manual_seed(3)
    cells = torch.randn(kept, 4, config.in_channels, generator=generator)
    return cells, torch.randn(TEXT, config.text_width, generator=generator)


def tflop(config: DiTConfig, geometry: Geometry, kept: int) -> float:
    """Linear layers of the video tokens and of the text, and attention, of one forward pass."""
    inner, width = config.heads * config.head_dim, config.width
    if config.mlp == "swiglu":
        hidden = 3 * width * (-(-int(2 * width * config.mlp_ratio / 3) // 256) * 256)
    else:
        hidden = 2 * config.mlp_ratio * width * width
    linear = 2 * (kept + TEXT) * config.layers * (4 * width * inner + hidden)
    ends = 8 * kept * (config.in_channels + config.out_channels) * width
    squares = [g.lengths.cumulative.diff().double().square().sum().item() for g in geometry.layouts]
    windows = sum(squares[layer % 2] for layer in range(config.layers))
    return (linear + ends + 4 * inner * windows) / 1e12


def synthetic(size: tuple[int, int, int]) -> Clip:
    """Moving waves, an edge, and a little noise: `t 3 h w`."""
    t, h, w = size
    frame, y, x = torch.meshgrid(
        torch.arange(t) * 1.5, torch.arange(h) * 1.0, torch.arange(w) * 1.0, indexing="ij"
    )
    waves = [torch.sin((x + frame) / a + y / b) for a, b in ((7, 5), (3, 11), (13, 2.5))]
    picture = torch.stack(waves, 1) / 4 + 0.5
    picture += 0.2 * ((x + 2 * frame - 0.5 * y) % 40 > 20)[:, None]
    noise = torch.randn(t, 3, h, w, generator=torch.Generator().manual_seed(4))
    return Clip((picture + 0.02 * noise).clamp(0, 1).float())


def video(bench: Bench, size: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """`1 3 t h w` in [-1, 1] on the device."""
    frames = rearrange(synthetic(size).frames, "t c h w -> 1 c t h w") * 2 - 1
    return frames.to(bench.device, dtype)


def enlarged(clip: Clip) -> tuple[int, int]:
    return 4 * clip.size[0], 4 * clip.size[1]


# ----------------------------------------------------------------------------- 1: does it run


def ceiling(bench: Bench) -> None:
    n = bench.sizes.ceiling
    a, b = (torch.randn(n, n, device=bench.device, dtype=HALF) for _ in range(2))
    timing = timed(bench, lambda: a @ b, 10, 3, inner=5)
    bench.ceiling = 2 * n**3 / timing.ms / 1e9
    bench.add("matmul", [n, n, n], HALF, tflops=bench.ceiling, **timing.figures())
    x = torch.empty(bench.sizes.stream_mib * 2**19, device=bench.device, dtype=HALF)
    y = torch.empty_like(x)
    timing = timed(bench, lambda: y.copy_(x), 10, 3, inner=5)
    bench.add("copy", [x.numel()], HALF, gb_s=4 * x.numel() / timing.ms / 1e6, **timing.figures())


def nano(bench: Bench, name: str, settings: dict[str, SkipSettings]) -> None:
    """A bundled model as users run it, against float32 on the CPU."""
    clip = synthetic(bench.sizes.clip)
    size = enlarged(clip)
    dtypes = ("bfloat16", "float32", "float16") if bench.cuda else ("bfloat16",)
    for way, skip in settings.items():
        exact = load_upscaler(name, skip, RuntimeSettings(device="cpu", dtype="float32"))
        truth = exact.upscale(clip, size)
        base = exact.upsample(clip, size).frames
        for dtype in dtypes:
            with bench.trying(f"{name} {way} {dtype}"), exact_float32(), watch_attention() as paths:
                runtime = RuntimeSettings(device=bench.runtime, dtype=dtype)  # type: ignore[arg-type]
                upscaler = load_upscaler(name, skip, runtime)
                found = upscaler.upscale(clip, size)
                ways = dict(paths)
                timing = timed(bench, lambda u=upscaler: u.upscale(clip, size), 3, 2)
                compare_clips(bench, f"{name} {way}", dtype, found, truth, base, ways, timing)
    if not bench.cuda:
        bench.skip(f"{name} float16 and float32", "needs CUDA")


def compare_clips(
    bench: Bench,
    name: str,
    dtype: str,
    found: Any,
    truth: Any,
    base: Tensor,
    ways: dict[str, int],
    timing: Timing,
) -> None:
    a, b = found.clip.frames, truth.clip.frames
    bench.add(
        f"{name} against CPU float32",
        list(b.shape),
        dtype,
        error=relative(a, b),
        error_of_correction=relative(a - base, b - base),
        largest=(a - b).abs().max().item(),
        finite=bool(a.isfinite().all()),
        computed=found.computed,
        computed_cpu=truth.computed,
        attention=ways,
        ms=timing.ms,
    )


def nano_seedvr2(bench: Bench) -> None:
    nano(bench, "seedvr2:nano", NANO_WAYS)


def nano_skipvsr(bench: Bench) -> None:
    nano(bench, "skipvsr:nano", NANO_WAYS)


def dit_check(bench: Bench, label: str, config: DiTConfig, shares: Sequence[float]) -> None:
    """A few layers with random weights: bfloat16 and float32 here against float32 on the CPU."""
    config = replace(config, layers=bench.sizes.cut, separate_layers=min(config.separate_layers, 2))
    if label == "7b":
        config = replace(config, separate_layers=config.layers)
    dit = random_dit(config, bench.device)
    exact = copy.deepcopy(dit).cpu()
    grid = bench.sizes.check_grid
    routes = {share: route_of(grid, share, torch.device("cpu")) for share in shares}
    inputs = {share: dit_inputs(config, route.kept) for share, route in routes.items()}
    truths = {s: velocity(exact, *inputs[s], exact.geometry(routes[s], TEXT)) for s in shares}
    del exact
    for dtype in (torch.float32, HALF) if bench.cuda else (HALF,):
        dit = to_dtype(dit, dtype)
        for share in shares:
            with bench.trying(f"{label} {dtype} {share}"), exact_float32():
                with watch_attention() as paths:
                    geometry = dit.geometry(route_of(grid, share, bench.device), TEXT)
                    cells, text = (x.to(bench.device, dtype) for x in inputs[share])
                    out = velocity(dit, cells, text, geometry)
                bench.add(
                    f"{label} {config.layers} layers, {share:.0%} skipped, against CPU float32",
                    list(cells.shape),
                    dtype,
                    error=relative(out, truths[share]),
                    finite=bool(out.isfinite().all()),
                    attention=dict(paths),
                )


def dit_3b_check(bench: Bench) -> None:
    dit_check(bench, "3b", bench.sizes.dit_3b, (0.0, 0.396))


def dit_7b_check(bench: Bench) -> None:
    dit_check(bench, "7b", bench.sizes.dit_7b, (0.396,))


def dit_3b_whole(bench: Bench) -> None:
    """All layers, once, on the small grid."""
    began = time.perf_counter()
    dit = bench.dit_3b
    parameters = sum(p.numel() for p in dit.parameters())
    seconds = time.perf_counter() - began
    route = route_of(bench.sizes.check_grid, 0, bench.device)
    cells, text = (x.to(bench.device, HALF) for x in dit_inputs(dit.config, route.kept))
    geometry = dit.geometry(route, TEXT)
    out = velocity(dit, cells, text, geometry)
    timing = timed(bench, lambda: velocity(dit, cells, text, geometry), 5, 3)
    bench.add(
        "3b whole, small grid",
        list(bench.sizes.check_grid),
        HALF,
        parameters=parameters,
        build_s=seconds,
        finite=bool(out.isfinite().all()),
        **timing.figures(),
    )


def vae_check(bench: Bench) -> None:
    """Full width, bfloat16 against float32 without TF32, both on the device."""
    size = bench.sizes.check_video
    frames = video(bench, size, HALF)
    vae = bench.vae
    with watch_convolutions() as formats:
        latent = vae.encode(frames).mean
    bench.add("vae encode formats", list(size), HALF, formats=dict(formats))
    for name, run in (
        ("encode", lambda: vae.encode(frames)),
        ("decode", lambda: vae.decode(latent)),
    ):
        with bench.trying(name):
            memory = peak_gib(bench, run)
            timing = timed(bench, run, 3, 4)
            bench.add(f"vae {name}", list(size), HALF, **memory, **timing.figures())
    with bench.trying("float32"), exact_float32():
        exact = bench.vae_exact
        began = time.perf_counter()
        true_latent = exact.encode(frames.float()).mean
        error = relative(latent, true_latent)
        truth = exact.decode(true_latent)
        found = vae.decode(true_latent.to(HALF))
        bench.add(
            "vae bfloat16 against float32",
            list(size),
            HALF,
            error_latent=error,
            error_frames=relative(found, truth),
            finite=bool(found.isfinite().all()),
            float32_s=time.perf_counter() - began,
        )


def recurrent_check(bench: Bench) -> None:
    """BasicVSR x4 with random weights on a few small frames."""
    model = random_recurrent()
    clip = synthetic((3, *bench.sizes.clip[1:]))
    size = enlarged(clip)
    exact = recurrent_upscaler(copy.deepcopy(model), torch.device("cpu"), torch.float32)
    truth, base = exact.upscale(clip, size), exact.upsample(clip, size).frames
    for dtype in (torch.float32, HALF) if bench.cuda else (HALF,):
        with bench.trying(f"x4 {dtype}"), exact_float32():
            upscaler = recurrent_upscaler(copy.deepcopy(model), bench.device, dtype)
            found = upscaler.upscale(clip, size)
            timing = timed(bench, lambda u=upscaler: u.upscale(clip, size), 3, 2)
            name = str(dtype).removeprefix("torch.")
            compare_clips(bench, "basicvsr:x4 dense", name, found, truth, base, {}, timing)


def random_recurrent() -> BasicVSR:
    torch.manual_seed(5)
    return BasicVSR(BASICVSR["x4"]).eval()


def recurrent_upscaler(
    model: BasicVSR, device: torch.device, dtype: torch.dtype
) -> BasicVSRUpscaler:
    """As the family's loader places it."""
    for key, parameter in model.named_parameters():
        own = torch.float32 if key.startswith("router_") else dtype
        parameter.data = parameter.data.to(device, own)
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return BasicVSRUpscaler("basicvsr:x4", model.to(device), SkipSettings(dense=True))


def training(bench: Bench) -> None:
    """One step of `seedvr2:nano` under autocast: gradients against float32 on the CPU, kernels."""
    exact = training_model(torch.device("cpu"))
    true_loss = training_loss(bench, exact, half=False)
    true_loss.backward()
    model = training_model(bench.device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-5)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = training_loss(bench, model, half=True)
        loss.backward()
        return loss

    with watch_attention() as paths:
        loss = step()
    pairs = [(p, q) for p, q in zip(model.parameters(), exact.parameters(), strict=True)]
    pairs = [(p.grad, q.grad) for p, q in pairs if p.grad is not None and q.grad is not None]
    flat = [
        torch.cat([g.flatten().cpu().double() for g in side]) for side in zip(*pairs, strict=True)
    ]
    found = profiled(bench, step, 60)
    optimizer.step()
    words = ("flash", "fmha", "attention", "attn", "sdp", "cudnn_generated")
    kernels = [k for k in found["kernels"] if any(w in k["name"].lower() for w in words)]
    ops = [o for o in found["ops"] if any(w in o["name"].lower() for w in words)]
    bench.add(
        "one training step of seedvr2:nano, autocast",
        list(bench.sizes.train),
        HALF,
        loss=loss.item(),
        loss_cpu_float32=true_loss.item(),
        error_of_gradient=relative(flat[0], flat[1]),
        finite=bool(flat[0].isfinite().all()),
        attention=dict(paths),
        attention_kernels=kernels,
        attention_ops=ops,
        profile=found,
    )


def training_model(device: torch.device) -> SeedVR2:
    assets = Path(str(sys.modules["skipsr.loading"].__file__)).parent / "assets"
    model = load_networks("seedvr2:nano", assets / "seedvr2-nano.safetensors").to(device)
    return model.train().requires_grad_(True)


def training_loss(bench: Bench, model: SeedVR2, *, half: bool) -> Tensor:
    device = model.text.positive.device
    high = rearrange(synthetic(bench.sizes.train).frames, "t c h w -> 1 c t h w").to(device)
    base = F.avg_pool3d(high, (1, 4, 4)).repeat_interleave(4, -1).repeat_interleave(4, -2)
    batch = ClipBatch(high, base, (torch.Generator().manual_seed(6),))
    (phase,) = OneStepObjective().phases(model)
    with torch.autocast(device.type, HALF, enabled=half):
        return phase.losses(batch).total


# --------------------------------------------------------------------- 2: where the time goes


def dit_step(bench: Bench) -> None:
    """One step of the 3B transformer on a long 720p clip, dense and skipped."""
    dit, grid = bench.dit_3b, bench.sizes.step_grid
    dense: tuple[float, float] | None = None
    for share in SKIPPED:
        route = route_of(grid, share, bench.device)
        began = time.perf_counter()
        geometry = dit.geometry(route, TEXT)
        layout_ms = 1000 * (time.perf_counter() - began)
        cells, text = (x.to(bench.device, HALF) for x in dit_inputs(dit.config, route.kept))
        run = lambda c=cells, t=text, g=geometry: velocity(dit, c, t, g)  # noqa: E731
        timing = timed(bench, run, 5, 14)
        work = tflop(dit.config, geometry, route.kept)
        dense = dense or (timing.ms, work)
        rate = 1000 * work / timing.ms
        bench.add(
            f"3b step, {share:.1%} skipped",
            list(grid),
            HALF,
            kept=route.kept,
            tflop=work,
            tflops=rate,
            of_matmul=rate / bench.ceiling if bench.ceiling else None,
            speedup=dense[0] / timing.ms,
            time_over_flop=timing.ms / dense[0] / (work / dense[1]),
            geometry_ms=layout_ms,
            **timing.figures(),
        )
    memory = peak_gib(bench, lambda: dense_step(bench))
    clocks = query_smi("clocks.sm,clocks.mem,power.draw,temperature.gpu")
    bench.add("3b step, dense, memory", list(grid), HALF, clocks_after=clocks, **memory)


def dense_step(bench: Bench) -> Tensor:
    dit = bench.dit_3b
    route = route_of(bench.sizes.step_grid, 0, bench.device)
    cells, text = (x.to(bench.device, HALF) for x in dit_inputs(dit.config, route.kept))
    return velocity(dit, cells, text, dit.geometry(route, TEXT))


def block_call(bench: Bench, share: float, layer: int = -2) -> tuple[nn.Module, tuple[Any, ...]]:
    """A block whose weights text and video share, and inputs of the size of a step."""
    dit = bench.dit_3b
    route = route_of(bench.sizes.step_grid, share, bench.device)
    geometry = dit.geometry(route, TEXT)
    generator = torch.Generator(bench.device).manual_seed(7)
    draw = {"device": bench.device, "dtype": HALF, "generator": generator}
    video_in = torch.randn(route.kept, dit.config.width, **draw)  # type: ignore[call-overload]
    text = torch.randn(TEXT, dit.config.width, **draw)  # type: ignore[call-overload]
    time_in = dit.emb_in.split(dit.emb_in(torch.tensor(1000.0, device=bench.device)))
    index = layer % dit.config.layers
    layout = geometry.layouts[index % 2]
    return dit.blocks[index], (video_in, text, time_in, layout, geometry.text_rotation)


def dit_layer(bench: Bench) -> None:
    """Kernels of one layer."""
    for share in (0.0, 0.6):
        block, inputs = block_call(bench, share)
        timing = timed(bench, lambda b=block, i=inputs: b(*i), 7, 3)
        found = profiled(bench, lambda b=block, i=inputs: b(*i), 12)
        name = f"3b layer, {share:.0%} skipped"
        shape = list(inputs[0].shape)
        bench.add(name, shape, HALF, profile=found, **timing.figures())


def vae_720(bench: Bench) -> None:
    """Encode and decode at full width: time, memory, what it goes to."""
    size = bench.sizes.video
    frames = video(bench, size, HALF)
    vae = bench.vae
    latent = vae.encode(frames).mean
    for name, run in (
        ("decode", lambda: vae.decode(latent)),
        ("encode", lambda: vae.encode(frames)),
    ):
        with bench.trying(name):
            memory = peak_gib(bench, run)
            timing = timed(bench, run, 5, 7)
            with watch_convolutions() as formats:
                found = profiled(bench, run)
            values = {**memory, **timing.figures(), "formats": dict(formats), "profile": found}
            bench.add(
                f"vae {name}", list(size), HALF, frames_s=1000 * size[0] / timing.ms, **values
            )


def recurrent(bench: Bench, name: str, upscaler: Any) -> None:
    clip = synthetic(bench.sizes.recurrent)
    size, frames = enlarged(clip), len(clip)
    run = lambda: upscaler.upscale(clip, size)  # noqa: E731
    found = run()
    memory = peak_gib(bench, run)
    timing = timed(bench, run, 5, 4)
    with Trace(device=str(bench.device)) as trace:
        run()
    seen = profiled(bench, run)
    bench.add(
        f"{name} per frame",
        list(bench.sizes.recurrent),
        upscaler.dtype,
        ms=timing.ms / frames,
        device_ms=seen["total_ms"] / frames,
        computed=found.computed,
        **per_frame(seen["runtime_calls"], frames),
        clip=timing.figures(),
        stages_ms={k: 1000 * s / frames for k, s in trace.seconds.items()},
        profile=seen,
        **memory,
    )


def recurrent_x4(bench: Bench) -> None:
    recurrent(
        bench, "basicvsr:x4 dense", recurrent_upscaler(random_recurrent(), bench.device, HALF)
    )


def recurrent_nano(bench: Bench) -> None:
    for way, skip in (("dense", SkipSettings(dense=True)), ("routed", SkipSettings())):
        with bench.trying(way):
            runtime = RuntimeSettings(device=bench.runtime, dtype="bfloat16")
            recurrent(bench, f"skipvsr:nano {way}", load_upscaler("skipvsr:nano", skip, runtime))


# ------------------------------------------------------------------------------------ 4: the job


def job(bench: Bench) -> None:
    """One window, one step, all stages, with the shapes of the 3B model."""
    frames, height, width = bench.sizes.job
    clip = synthetic((frames, height // 4, width // 4))
    model = assembled(bench)
    size, names = (height, width), list(bench.sizes.job)
    run_once(bench, model, clip, size, 0.0)
    dense: float | None = None
    for share in JOB_SKIPPED:
        if bench.cuda:
            torch.cuda.reset_peak_memory_stats()
        runs = [run_once(bench, model, clip, size, share) for _ in range(1 if share else 2)]
        stages = {k: statistics.median(run[k] for run in runs) for k in runs[0]}
        total = sum(stages.values())
        dense = dense or total
        peak = torch.cuda.max_memory_allocated() / 2**30 if bench.cuda else None
        bench.add(
            f"job, {share:.0%} skipped",
            names,
            HALF,
            **{f"{stage}_s": seconds for stage, seconds in stages.items()},
            total_s=total,
            frames_s=frames / total,
            speedup=dense / total,
            peak_gib=peak,
        )
    upscaler = SeedVR2Upscaler("seedvr2:3b", model, SkipSettings(dense=True))
    with Trace(device=str(bench.device)) as trace:
        done = upscaler.upscale(clip, size)
    finite = bool(done.clip.frames.isfinite().all())
    bench.add("job, the upscaler itself, dense", names, HALF, total_s=trace.total,
              stages_s=trace.seconds, finite=finite)  # fmt: skip


def assembled(bench: Bench) -> SeedVR2:
    sizes = bench.sizes
    config = replace(PRESETS["3b"], dit=sizes.dit_3b, vae=sizes.vae)
    with torch.device("meta"):
        model = SeedVR2(config)
    model.dit, model.vae, model.predictor = bench.dit_3b, bench.vae, None
    with bench.device:
        model.text = to_dtype(ConditioningTokens(TEXT, 0, sizes.dit_3b.text_width), HALF)
    return model.eval().requires_grad_(False)


def run_once(
    bench: Bench, model: SeedVR2, clip: Clip, size: tuple[int, int], share: float
) -> dict[str, float]:
    """Seconds of every stage."""
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if bench.cuda:
            torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - began

    with stage("resize"):
        frames = framing.resize(clip.frames.to(bench.device), size)
        frames = rearrange(frames, "t c h w -> 1 c t h w")
    with stage("encode"):
        latent = model.encode(frames)[0]
    t, h, w, _ = latent.shape
    noise = torch.randn(latent.shape, device=bench.device)
    route = route_of((t, h // 2, w // 2), share, bench.device)
    with stage("denoise"):
        sampling = Sampling()
        latent = denoise(model.dit, noise, latent, model.conditioning, route, sampling)
    with stage("decode"):
        result = model.decode(latent[None], frames)
    with stage("tone"):
        pictures, source = (rearrange(x, "1 c t h w -> t c h w") for x in (result, frames))
        transfer_low_frequencies(pictures, source).clamp(0, 1).cpu()
    return seconds


# --------------------------------------------------------------------------------- 3: the levers


def convolutions(bench: Bench) -> None:
    """A causal 3x3x3 convolution in its memory formats, and as 2-D ones."""
    for shape in bench.sizes.convs:
        convolution_ways(bench, shape)


def convolution_ways(bench: Bench, shape: tuple[int, int, int, int]) -> None:
    channels, t, h, w = shape
    torch.manual_seed(8)
    x = torch.randn(1, channels, t + 2, h, w, device=bench.device, dtype=HALF)
    weight, bias = kernel_of(bench, channels)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    weight_last = weight.contiguous(memory_format=torch.channels_last_3d)
    planes = [k.contiguous(memory_format=torch.channels_last) for k in weight.unbind(2)]
    wide = torch.cat(planes, 1).contiguous(memory_format=torch.channels_last)
    truth = conv3d(x, weight, bias)
    variants: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: conv3d(x, weight, bias),
        "channels last": lambda: conv3d(last, weight_last, bias),
        "three 2-D": lambda: three_planes(last, planes, bias),
        "one 2-D of three times the channels": lambda: one_plane(last, wide, bias),
        "channels last, plain weight": lambda: conv3d(last, weight, bias),
        "channels last, cudnn.benchmark": lambda: tuned(last, weight_last, bias),
        "plain, cudnn.benchmark": lambda: tuned(x, weight, bias),
    }
    work = 2 * 27 * channels**2 * t * h * w / 1e12
    for name, run in variants.items():
        with bench.trying(name):
            error = relative(run(), truth)
            timing = timed(bench, run, 5, 2)
            rate = 1000 * work / timing.ms
            values = {"tflops": rate, "error": error, **timing.figures()}
            bench.add(f"conv3d, {name}", list(shape), HALF, **values)


def kernel_of(bench: Bench, channels: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a 3x3x3 convolution."""
    with bench.device:
        conv = to_dtype(nn.Conv3d(channels, channels, 3), HALF)
    return conv.weight.detach(), conv.bias.detach()


def conv3d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv3d(x, weight, bias, padding=(0, 1, 1))


def tuned(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Let cuDNN try its algorithms the first time."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        return conv3d(x, weight, bias)
    finally:
        torch.backends.cudnn.benchmark = before


def as_frames(x: Tensor) -> Tensor:
    """`1 c t h w -> t c h w`: a view, channels last where x is that."""
    return x[0].transpose(0, 1)


def three_planes(x: Tensor, planes: Sequence[Tensor], bias: Tensor) -> Tensor:
    frames, t = as_frames(x), x.shape[2] - 2
    out = F.conv2d(frames[:t], planes[0], bias, padding=1)
    for k in (1, 2):
        out += F.conv2d(frames[k : k + t], planes[k], padding=1)
    return out.transpose(0, 1)[None]


def one_plane(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    frames, t = as_frames(x), x.shape[2] - 2
    stacked = torch.cat([frames[k : k + t] for k in range(3)], 1)
    return F.conv2d(stacked, weight, bias, padding=1).transpose(0, 1)[None]


def gather(bench: Bench) -> None:
    """Rows picked in the order of the windows and at random, against a plain copy."""
    dit = bench.dit_3b
    layout = dit.geometry(route_of(bench.sizes.step_grid, 0, bench.device), TEXT).layouts[0]
    rows, width = layout.order.shape[0], dit.config.heads * dit.config.head_dim
    x = torch.randn(int(layout.order.max()) + 1, width, device=bench.device, dtype=HALF)
    orders = {"windows": layout.order, "random": layout.order[torch.randperm(rows)]}
    size, shape = 4 * rows * width / 1e6, [rows, width]
    out = torch.empty(rows, width, device=bench.device, dtype=HALF)
    source = torch.randn_like(out)
    timing = timed(bench, lambda: out.copy_(source), 10, 2, inner=10)
    bench.add("copy of as many rows", shape, HALF, gb_s=size / timing.ms, **timing.figures())
    for name, order in orders.items():
        timing = timed(bench, lambda o=order: torch.index_select(x, 0, o, out=out), 10, 2, inner=10)
        bench.add(f"index_select, {name}", shape, HALF, gb_s=size / timing.ms, **timing.figures())
        timing = timed(bench, lambda o=order: x[o], 10, 2, inner=10)
        bench.add(f"x[index], {name}", shape, HALF, gb_s=size / timing.ms, **timing.figures())


def attention_ways(bench: Bench) -> None:
    """The variable-length kernel against batches through SDPA."""
    for share in (0.0, 0.6):
        route = route_of(bench.sizes.step_grid, share, bench.device)
        layouts = bench.dit_3b.geometry(route, TEXT).layouts
        for kind, layout in zip(("regular", "shifted"), layouts, strict=True):
            compare_attention(bench, f"attention, {kind}, {share:.0%} skipped", layout.lengths)
    if not bench.cuda:
        bench.skip("varlen", "needs CUDA: both ways were SDPA")


def compare_attention(bench: Bench, name: str, lengths: attention.Lengths) -> None:
    heads, dim = bench.dit_3b.config.heads, bench.dit_3b.config.head_dim
    torch.manual_seed(9)
    shape = (3, lengths.total, heads, dim)
    q, k, v = torch.randn(shape, device=bench.device, dtype=HALF)
    squares = lengths.cumulative.diff().double().square().sum().item()
    work = 4 * heads * dim * squares / 1e12
    truth: Tensor | None = None
    for way in (attention.packed_attention, attention._batched_attention):
        with bench.trying(way.__name__):
            out = way(q, k, v, lengths)
            truth = out if truth is None else truth
            timing = timed(bench, lambda run=way: run(q, k, v, lengths), 5, 2)
            values = {"tflops": 1000 * work / timing.ms, "error": relative(out, truth)}
            full = f"{name}, {way.__name__}"
            bench.add(full, list(shape), HALF, **values, **timing.figures())


def streaming(bench: Bench) -> None:
    """Weights from pinned host memory: what block streaming could reach."""
    if not bench.cuda:
        bench.skip("pinned copies", "needs CUDA")
        return
    host = torch.empty(bench.sizes.stream_mib * 2**18, dtype=HALF, pin_memory=True)
    there = torch.empty_like(host, device=bench.device)
    timing = timed(bench, lambda: there.copy_(host, non_blocking=True), 5, 3)
    size = 2 * host.numel() / 1e6
    bench.add("host to device, pinned", [host.numel()], HALF, gb_s=size / timing.ms,
              **timing.figures())  # fmt: skip


def decode_tuned(bench: Bench) -> None:
    """The whole decoder with cuDNN trying its algorithms, and with channels-last weights."""
    size = bench.sizes.video
    vae = bench.vae
    latent = vae.encode(video(bench, size, HALF)).mean
    plain = timed(bench, lambda: vae.decode(latent), 3, 4)
    bench.add("decode as it is", list(size), HALF, **plain.figures())
    last = copy.deepcopy(vae).to(memory_format=torch.channels_last_3d)
    with bench.trying("channels-last weights"):
        timing = timed(bench, lambda: last.decode(latent), 3, 4)
        bench.add("decode, channels-last weights", list(size), HALF,
                  speedup=plain.ms / timing.ms, **timing.figures())  # fmt: skip
    torch.backends.cudnn.benchmark = True
    try:
        timing = timed(bench, lambda: vae.decode(latent), 3, 4)
    finally:
        torch.backends.cudnn.benchmark = False
    bench.add("decode, cudnn.benchmark", list(size), HALF,
              speedup=plain.ms / timing.ms, **timing.figures())  # fmt: skip


def compiler(bench: Bench, mode: str | None = None) -> dict[str, Any]:
    """Options of `torch.compile`; without a GPU only that it can be traced is tried."""
    return {"mode": mode} if bench.cuda else {"backend": "aot_eager"}


def norm_silu(bench: Bench) -> None:
    """Group norm and SiLU of the finest level, fused by the compiler or not."""
    channels, t, h, w = bench.sizes.convs[0]
    groups = bench.sizes.vae.groups
    with bench.device:
        norm = to_dtype(FrameNorm(groups, channels), HALF).requires_grad_(False)
    x = torch.randn(1, channels, t, h, w, device=bench.device, dtype=HALF)
    run = lambda y: F.silu(norm(y))  # noqa: E731
    truth = run(x)
    size, shape = 4 * x.numel() / 1e6, [channels, t, h, w]
    for form in (torch.contiguous_format, torch.channels_last_3d):
        y = x.contiguous(memory_format=form)
        name = "plain" if form is torch.contiguous_format else "channels last"
        timing = timed(bench, lambda v=y: run(v), 5, 2)
        kept = memory_format(run(y))
        bench.add(f"group norm + silu, eager, {name}", shape, HALF, gives=kept,
                  gb_s_of_once=size / timing.ms, **timing.figures())  # fmt: skip
        with bench.trying(f"compiled, {name}"):
            torch.compiler.reset()
            fused = torch.compile(run, **compiler(bench))
            timing = timed(bench, lambda v=y, f=fused: f(v), 5, 2)
            bench.add(f"group norm + silu, compiled, {name}", shape, HALF,
                      error=relative(fused(y), truth), gives=memory_format(fused(y)),
                      gb_s_of_once=size / timing.ms, **timing.figures())  # fmt: skip


def compiled_block(bench: Bench, mode: str | None) -> None:
    block, inputs = block_call(bench, 0.0)
    eager = timed(bench, lambda: block(*inputs), 5, 2)
    truth = block(*inputs)[0].clone()
    torch.compiler.reset()
    fused = torch.compile(block, **compiler(bench, mode))
    timing = timed(bench, lambda: fused(*inputs), 5, 3)
    out = fused(*inputs)[0]
    breaks = dict(torch._dynamo.utils.counters["graph_break"])
    bench.add(f"3b layer, compiled {mode or 'default'}", list(inputs[0].shape), HALF,
              eager_ms=eager.ms, speedup=eager.ms / timing.ms, error=relative(out, truth),
              graph_breaks=breaks, **timing.figures())  # fmt: skip
    if bench.cuda:
        found = profiled(bench, lambda: fused(*inputs), 12)
        bench.add(f"kernels, compiled {mode or 'default'}", list(inputs[0].shape), HALF,
                  profile=found)  # fmt: skip


def block_compiled(bench: Bench) -> None:
    compiled_block(bench, None)


def block_graphed(bench: Bench) -> None:
    if not bench.cuda:
        bench.skip("reduce-overhead", "needs CUDA")
        return
    compiled_block(bench, "reduce-overhead")


def conv_split(bench: Bench) -> None:
    """A convolution of more than 2**31 values, whole and in two; last, as it may end the run."""
    bench.drop("dit_3b", "vae", "vae_exact")
    for form in (torch.channels_last_3d, torch.contiguous_format):
        with bench.trying(str(form)):
            whole_and_split(bench, form)
        free(bench)


def whole_and_split(bench: Bench, form: torch.memory_format) -> None:
    channels, t, h, w = bench.sizes.long_conv
    torch.manual_seed(10)
    weight, bias = kernel_of(bench, channels)
    x = torch.randn(1, channels, t + 2, h, w, device=bench.device, dtype=HALF)
    x, weight = x.contiguous(memory_format=form), weight.contiguous(memory_format=form)
    middle = t // 2
    halves = [x[:, :, : middle + 2], x[:, :, middle:]]
    split = [conv3d(part, weight, bias) for part in halves]
    parts = timed(bench, lambda: [conv3d(part, weight, bias) for part in halves], 5, 3)
    name = "channels last" if form is torch.channels_last_3d else "plain"
    bench.add(f"long conv3d, {name}, in two", list(x.shape), HALF, **parts.figures())
    whole = timed(bench, lambda: conv3d(x, weight, bias), 5, 3)
    pairs = zip(conv3d(x, weight, bias).split([middle, t - middle], 2), split, strict=True)
    error = max(relative(a, b) for a, b in pairs)
    values = {"above_2_31": x.numel() > 2**31, "error": error, "speedup": parts.ms / whole.ms}
    bench.add(f"long conv3d, {name}, whole", list(x.shape), HALF, **values, **whole.figures())


# ------------------------------------------------------------------------------------------- steps


@dataclass(frozen=True, slots=True)
class Step:
    run: Callable[[Bench], None]
    estimate: float  # seconds on a GPU: with less left it is not begun
    limit: float  # seconds after which it is stopped
    grad: bool = False

    @property
    def name(self) -> str:
        return self.run.__name__


STEPS = (
    Step(ceiling, 2, 10),
    Step(nano_seedvr2, 10, 30),
    Step(nano_skipvsr, 4, 15),
    Step(dit_3b_check, 5, 20),
    Step(vae_check, 10, 30),
    Step(training, 5, 20, grad=True),
    Step(dit_3b_whole, 3, 15),
    Step(dit_7b_check, 7, 20),
    Step(recurrent_check, 3, 15),
    Step(dit_step, 35, 60),
    Step(vae_720, 15, 45),
    Step(dit_layer, 3, 15),
    Step(recurrent_x4, 5, 20),
    Step(recurrent_nano, 4, 15),
    Step(job, 20, 50),
    Step(convolutions, 6, 20),
    Step(gather, 2, 8),
    Step(attention_ways, 3, 12),
    Step(streaming, 2, 8),
    Step(norm_silu, 10, 25),
    Step(block_compiled, 18, 40),
    Step(decode_tuned, 8, 18),
    Step(block_graphed, 18, 40),
    Step(conv_split, 5, 20),
)


def run_step(bench: Bench, step: Step) -> bool:
    """Whether the device still answers."""
    bench.step = step.name
    if bench.remaining < step.estimate * (0.1 if bench.tiny else 1):
        bench.skip(step.name, f"{bench.remaining:.0f} s left, about {step.estimate:.0f} needed")
        return True
    print(f"{step.name} (about {step.estimate:.0f} s on a GPU)", flush=True)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, max(1.0, min(step.limit, bench.remaining)))
    try:
        with torch.inference_mode(not step.grad):
            step.run(bench)
    except OutOfTimeError:
        bench.skip(f"the rest of {step.name}", f"stopped after {time.monotonic() - began:.0f} s")
    except Exception as error:
        bench.fail(step.name, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    alive = answers(bench)
    seconds = time.monotonic() - began
    bench.steps.append({"step": step.name, "seconds": seconds})
    print(f"    {seconds:.1f} s", flush=True)
    bench.save()
    return alive


def answers(bench: Bench) -> bool:
    try:
        free(bench)
        if bench.cuda:
            torch.cuda.synchronize()
    except Exception as error:
        bench.fail("the device does not answer any more; the rest is left out", error)
        return False
    return True


def table(bench: Bench) -> None:
    """What was found, a line a figure."""
    columns = ("ms", "tflops", "of_matmul", "speedup", "gb_s", "error", "frames_s", "peak_gib")
    heads = "".join(f"{c:>10}" for c in columns)
    print(f"\n{bench.machine['device']}, torch {bench.machine['torch']}\n{'':58}{heads}")
    for figure in bench.figures:
        values = [figure.get(column) for column in columns]
        cells = "".join(f"{'' if v is None else format(v, '.4g'):>10}" for v in values)
        if cells.strip():
            print(f"{figure['name'][:57]:58}{cells}")
    for entry in bench.errors:
        print(f"FAILED {entry['step']}: {entry['what']}: {entry['error'][:160]}")
    for entry in bench.left_out:
        print(f"left out: {entry['what']} ({entry['why']})")
    print("seconds: " + ", ".join(f"{s['step']} {s['seconds']:.1f}" for s in bench.steps))


def out_of_time(_signal: int, _frame: object) -> None:
    raise OutOfTimeError


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=210, help="for all steps together")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU, one thread")
    parser.add_argument("--out", type=Path, default=Path("gpu-figures"))
    parser.add_argument("--only", default="", help="names of steps, with commas")
    options = parser.parse_args()
    began = time.monotonic()
    if options.tiny:
        torch.set_num_threads(1)
    sys.meta_path.insert(0, Blocked())
    signal.signal(signal.SIGALRM, out_of_time)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        device=device,
        sizes=TINY if options.tiny else Sizes(),
        tiny=options.tiny,
        out=options.out,
        deadline=began + options.seconds,
        machine=describe(device, options.tiny),
    )
    wanted = [name for name in options.only.split(",") if name]
    for step in STEPS:
        if (not wanted or step.name in wanted) and not run_step(bench, step):
            break
    table(bench)


if __name__ == "__main__":
    main()
