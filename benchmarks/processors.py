"""Float32 on a processor without bfloat16: is another library faster at the network's convolutions?

    python benchmarks/processors.py [--threads 2] [--rounds 8] [--parts layer trunk network]

All of a part is timed in turn within one run: wall and processor time, least and median.

layer: a 3x3 convolution at the width of the trunks, on a whole frame and on canvases of regions;
    torch (oneDNN), torch's NNPACK, Winograd's F(4x4, 3x3) written in torch, and ncnn's kernels.
trunk: a step of one direction, 13 convolutions: torch, torch with activations and sums inside of
    its convolutions, and ncnn with nothing between its layers.
network: `skipvsr:nano` dense per frame of the sample clip, beside ncnn running the published layers
    of realesr-animevideov3 x4 (random weights), which has as many multiply-adds.

It needs ncnn (`pip install ncnn`). Writes `results/processors.json` and `.md`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ncnn
import torch
import torch.nn.functional as F
from record import HERE, save
from skipvsr_speed import HIGH, LOW, SAMPLE, Yardstick, read_clips
from torch import Tensor, nn

from skipsr.backbones.basicvsr.blocks import SLOPE, Trunk
from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.evaluation.record import rounded, write_text
from skipsr.loading import load_upscaler
from skipsr.memory import ask_for_huge_pages, set_mmap_threshold
from skipsr.settings import RuntimeSettings, SkipSettings

SHAPES = {"frame": LOW, "long canvas": (10, 4423), "short canvas": (10, 1607)}
KERNELS = {
    "F(6x6)": (63,),
    "F(4x4)": (43,),
    "F(2x2)": (23,),
    "direct": (),
    "its choice": (63, 43, 23),
}
LANES = 8  # channels that ncnn keeps together on AVX2
INTO = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
).float()
KERNEL = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
BACK = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
).float()
Runs = Mapping[str, Callable[[], Any]]
Rows = dict[str, dict[str, float]]


class Described:
    """A network in ncnn's words, layer by layer."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._blobs: set[str] = set()
        self._values: list[bytes] = []

    def add(self, kind: str, takes: Sequence[str], gives: Sequence[str], settings: str = "") -> str:
        counts = f"{len(takes)} {len(gives)}"
        names = " ".join((*takes, *gives))
        self._lines.append(f"{kind} {len(self._lines)} {counts} {names} {settings}")
        self._blobs.update(takes, gives)
        return gives[0]

    def convolve(self, conv: nn.Conv2d, takes: str, gives: str, activation: str = "") -> str:
        assert conv.bias is not None
        settings = f"0={conv.out_channels} 1=3 4=1 5=1 6={conv.weight.numel()} {activation}"
        weight, bias = (part.detach().contiguous().numpy() for part in (conv.weight, conv.bias))
        self._values += [bytes(4), weight.tobytes(), bias.tobytes()]
        return self.add("Convolution", [takes], [gives], settings)

    def prelu(self, layer: nn.PReLU, takes: str, gives: str) -> str:
        self._values.append(layer.weight.detach().numpy().tobytes())
        return self.add("PReLU", [takes], [gives], f"0={layer.weight.numel()}")

    def load(self, threads: int, winograd: Sequence[int] = KERNELS["its choice"]) -> Any:
        """float32; its own pools of memory, without which fresh pages cost it half of the time."""
        net = ncnn.Net()
        net.opt.num_threads = threads
        for kind in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{kind}", False)
        net.opt.use_winograd_convolution = bool(winograd)
        for kind in KERNELS["its choice"]:
            setattr(net.opt, f"use_winograd{kind}_convolution", kind in winograd)
        pools = [ncnn.PoolAllocator(), ncnn.PoolAllocator()]
        net.opt.workspace_allocator, net.opt.blob_allocator = pools
        sizes = f"{len(self._lines)} {len(self._blobs)}"
        if net.load_param_mem("\n".join(("7767517", sizes, *self._lines, ""))):
            raise RuntimeError("ncnn does not take the network")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "weights.bin"
            path.write_bytes(b"".join(self._values))
            if net.load_model(str(path)):
                raise RuntimeError("ncnn does not take the weights")
        _alive.append((net, pools))
        return net


_alive: list[Any] = []  # a pool must outlive its network


def packed(picture: Tensor) -> tuple[Any, Tensor]:
    """ncnn's view of `c h w`, packed, and the memory that it looks at."""
    c, h, w = picture.shape
    memory = picture.view(c // LANES, LANES, h, w).permute(0, 2, 3, 1).contiguous()
    mat = ncnn.Mat(memory.flatten(2).numpy())
    mat.w, mat.elempack, mat.elemsize, mat.cstep = w, LANES, 4 * LANES, h * w
    return mat, memory


def extract(net: Any, inputs: Mapping[str, Any], name: str) -> Any:
    """What a network gives, as it is packed."""
    extractor = net.create_extractor()
    for each, mat in inputs.items():
        extractor.input(each, mat)
    code, result = extractor.extract(name, 1)
    if code:
        raise RuntimeError(f"ncnn failed with code {code}")
    return result


def unpacked(mat: Any) -> Tensor:
    """`c h w`."""
    groups, h, w, lanes = mat.c, mat.h, mat.w, mat.elempack
    mat.w, mat.elempack, mat.elemsize, mat.cstep = w * lanes, 1, 4, mat.cstep * lanes
    return torch.from_numpy(mat.numpy()).view(groups, h, w, lanes).permute(0, 3, 1, 2).flatten(0, 1)


def winograd(canvas: Tensor, kernels: Tensor) -> Tensor:
    """F(4x4, 3x3) of `h+2 w+2 c` with kernels `36 c k`: `h w k`, a row of tiles at a time, which
    stays in the cache."""
    height, width, c = canvas.shape
    tall, wide = -(-(height - 2) // 4), -(-(width - 2) // 4)
    x = F.pad(canvas, (0, 0, 0, 4 * wide + 2 - width, 0, 4 * tall + 2 - height))
    out = x.new_empty(4 * tall, wide, 4, kernels.shape[2])
    for top in range(0, 4 * tall, 4):
        rows = (INTO @ x[top : top + 6].flatten(1)).view(6, -1, c)
        tiles = rows.as_strided((6, 6, wide, c), (rows.stride(0), c, 4 * c, 1))
        there = INTO @ tiles.reshape(6, 6, -1)
        product = there.view(36, wide, c) @ kernels
        back = (BACK @ product.view(6, -1)).view(4, 6, -1)
        out[top : top + 4] = (BACK @ back).view(4, 4, wide, -1).transpose(1, 2)
    return out.view(4 * tall, 4 * wide, -1)[: height - 2, : width - 2]


def layers(threads: int, size: tuple[int, int]) -> tuple[Runs, dict[str, float]]:
    """One convolution in every way, and how far each is from torch's."""
    c = PRESETS["nano"].num_feat
    conv = nn.Conv2d(c, c, 3, padding=1).requires_grad_(False)
    picture = torch.randn(1, c, *size)
    last = picture.contiguous(memory_format=torch.channels_last)
    weight = conv.weight.contiguous(memory_format=torch.channels_last)
    framed = F.pad(last, (1, 1, 1, 1))[0].permute(1, 2, 0).contiguous()
    kernels = torch.einsum("ia,jb,kcab->ijck", KERNEL, KERNEL, conv.weight).flatten(0, 1)
    kernels = kernels.contiguous()
    expected = F.conv2d(last, weight, conv.bias, padding=1)[0]
    mat, memory = packed(picture[0])
    _alive.append(memory)
    runs: dict[str, Callable[[], Any]] = {
        "torch, channels last": lambda: F.conv2d(last, weight, conv.bias, padding=1),
        "torch, contiguous": lambda: F.conv2d(picture, conv.weight, conv.bias, padding=1),
        "Winograd F(4x4) in torch": lambda: winograd(framed, kernels),
    }
    bias = conv.bias
    assert bias is not None
    own = "Winograd F(4x4) in torch"
    results = {own: winograd(framed, kernels).permute(2, 0, 1) + bias[:, None, None]}
    if torch.backends.nnpack.is_available():
        runs["torch, NNPACK"] = lambda: torch._nnpack_spatial_convolution(
            picture, conv.weight, conv.bias, 1
        )
        results["torch, NNPACK"] = runs["torch, NNPACK"]()[0]
    for name, kinds in KERNELS.items():
        network = Described()
        network.add("Input", [], ["x"])
        network.convolve(conv, "x", "y")
        net = network.load(threads, kinds)
        runs[f"ncnn, {name}"] = lambda net=net: extract(net, {"x": mat}, "y")
        results[f"ncnn, {name}"] = unpacked(extract(net, {"x": mat}, "y"))
    return runs, {name: (x - expected).abs().max().item() for name, x in results.items()}


def trunk_runs(threads: int) -> tuple[Runs, dict[str, float]]:
    """One step of one direction."""
    config = PRESETS["nano"]
    trunk = Trunk(config.num_feat, config.num_block, config.inputs).requires_grad_(False)
    frame, state = torch.rand(1, config.inputs, *LOW), torch.randn(1, config.num_feat, *LOW)
    network = Described()
    for name in ("frame", "state"):
        network.add("Input", [], [name])
    x = network.add("Concat", ["state", "frame"], ["entering"])
    x = network.convolve(in_eights(trunk.main[0]), x, "x0", f"9=2 -23310=1,{SLOPE:e}")
    for i, block in enumerate(trunk.blocks):
        network.add("Split", [x], [f"{x}a", f"{x}b"])
        between = network.convolve(block.conv1, f"{x}a", f"between{i}", "9=1")
        step = network.convolve(block.conv2, between, f"step{i}")
        x = network.add("BinaryOp", [f"{x}b", step], [f"x{i + 1}"], "0=0")
    mats = [packed(state[0]), packed(F.pad(frame, (0, 0, 0, 0, 0, LANES - config.inputs))[0])]
    _alive.append(mats)
    inputs = {name: mat for name, (mat, _) in zip(("state", "frame"), mats, strict=True)}
    for conv in trunk.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    state = state.contiguous(memory_format=torch.channels_last)
    runs: dict[str, Callable[[], Any]] = {
        "torch": lambda: unfused(trunk, frame, state),
        "torch, fused": lambda: trunk(frame, state),
    }
    expected = unfused(trunk, frame, state)
    errors = {"torch, fused": (trunk(frame, state) - expected).abs().max().item()}
    for name in ("its choice", "F(6x6)", "F(4x4)"):
        net = network.load(threads, KERNELS[name])
        runs[f"ncnn, {name}"] = lambda net=net: extract(net, inputs, x)
        found = unpacked(extract(net, inputs, x))
        errors[f"ncnn, {name}"] = (found - expected[0]).abs().max().item()
    return runs, errors


def unfused(trunk: Trunk, frame: Tensor, state: Tensor) -> Tensor:
    """A step with activations and sums in passes of their own."""
    x = trunk.enter(frame, state)
    for block in trunk.blocks:
        x = block.conv2(F.relu_(block.conv1(x))).add_(x)
    return x


def in_eights(entered: nn.Conv2d) -> nn.Conv2d:
    """The first convolution of a trunk for the state and then the frame, filled up with zeros:
    ncnn is slow at channels that are no multiple of what it keeps together."""
    inputs = entered.in_channels - entered.out_channels
    frame, state = entered.weight.split((inputs, entered.out_channels), 1)
    weight = torch.cat((state, F.pad(frame, (0, 0, 0, 0, 0, LANES - inputs))), 1)
    conv = nn.Conv2d(weight.shape[1], entered.out_channels, 3, padding=1).requires_grad_(False)
    conv.weight.copy_(weight)
    assert conv.bias is not None
    assert entered.bias is not None
    conv.bias.copy_(entered.bias)
    return conv


def network_runs(threads: int, frames: int) -> Runs:
    """Ours dense, and the peer in ncnn: as many frames of both."""
    runtime = RuntimeSettings(device="cpu", dtype="float32")
    upscaler = load_upscaler("skipvsr:nano", SkipSettings(dense=True), runtime)
    clip = read_clips([SAMPLE], frames)[0]
    runs: dict[str, Callable[[], Any]] = {
        "skipvsr:nano, torch": lambda: upscaler.upscale(clip, HIGH)
    }
    for name in ("its choice", "F(6x6)"):
        net = peer().load(threads, KERNELS[name])
        runs[f"peer, ncnn, {name}"] = lambda net=net: [
            extract(net, {"frame": ncnn.Mat(frame.numpy())}, "result") for frame in clip.frames
        ]
    return runs


def peer() -> Described:
    """The yardstick's layers."""
    body = iter(Yardstick().body)
    network = Described()
    x = network.add("Input", [], ["frame"])
    network.add("Split", [x], ["a", "b"])
    x = "a"
    for i, layer in enumerate(body):
        x = (
            network.convolve(layer, x, f"x{i}")
            if isinstance(layer, nn.Conv2d)
            else network.prelu(layer, x, f"x{i}")
        )
    x = network.add("PixelShuffle", [x], ["large"], "0=4")
    base = network.add("Interp", ["b"], ["base"], "0=1 1=4.0 2=4.0")
    network.add("BinaryOp", [x, base], ["result"], "0=0")
    return network


def timed(runs: Runs, rounds: int, per: int = 1) -> Rows:
    """Milliseconds of each, all run in turn; the first round is for warming up."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            run()  # threads and caches of the one before are done
            began, spent = time.perf_counter(), time.process_time()
            run()
            wall[name].append((time.perf_counter() - began) * 1e3 / per)
            cpu[name].append((time.process_time() - spent) * 1e3 / per)
    return {
        name: {
            "least": min(wall[name][1:]),
            "median": statistics.median(wall[name][1:]),
            "cpu": statistics.median(cpu[name][1:]),
        }
        for name in runs
    }


def table(title: str, rows: Rows) -> str:
    """Markdown; how many times as fast as the first each is, by the least time."""
    first = next(iter(rows.values()))["least"]
    lines = [f"## {title}", "", "| | least ms | median ms | processor ms | times as fast | error |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, row in rows.items():
        error = f"{row['error']:.0e}" if "error" in row else ""
        told = " | ".join(f"{row[each]:.1f}" for each in ("least", "median", "cpu"))
        lines.append(f"| {name} | {told} | {first / row['least']:.2f} | {error} |")
    return "\n".join((*lines, ""))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--frames", type=int, default=3, help="of the whole network")
    parts = ("layer", "trunk", "network")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--name", default="processors", help="of the files in results/")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    options = read_options()
    ask_for_huge_pages()
    set_mmap_threshold(32 * 2**20)  # as for the model
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    made: list[tuple[str, Callable[[], tuple[Runs, dict[str, float]]], int]] = []
    if "layer" in options.parts:
        for name, size in SHAPES.items():
            title = f"A convolution, {name} {size[1]}x{size[0]}"
            made.append((title, lambda size=size: layers(options.threads, size), 1))
    if "trunk" in options.parts:
        made.append(("A step of one direction", lambda: trunk_runs(options.threads), 1))
    if "network" in options.parts:
        title = "A frame, 320x180 to 1280x720"
        made.append(
            (title, lambda: (network_runs(options.threads, options.frames), {}), options.frames)
        )
    found: dict[str, Rows] = {}
    for title, make, per in made:
        runs, errors = make()
        rows = timed(runs, options.rounds, per)
        for name, error in errors.items():
            rows[name]["error"] = error
        found[title] = rows
        print(table(title, rows), flush=True)
    config = PRESETS["nano"]
    cost = cost_of(config)
    setup = {
        "threads": options.threads,
        "rounds": options.rounds,
        "ncnn": ncnn.__version__,
        "multiply_adds": cost.dense,
        "share_of_trunk_width_3x3": (cost.blocks + 9 * config.num_feat**2) / cost.dense,
        "peer_multiply_adds": Yardstick().multiply_adds,
    }
    text = "\n".join(table(title, rows) for title, rows in found.items())
    write_text(HERE / "results" / f"{options.name}.md", text)
    figures = rounded({**setup, "parts": found})
    assert isinstance(figures, dict)
    save(options.name, figures)


if __name__ == "__main__":
    main()
