"""What encoding and decoding only kept cells saves, and what it costs in exactness.

    python benchmarks/regional_vae.py [--preset quarter] [--frames 17] [--size 640x352]

Timed in turn within one run, medians over rounds: `VideoAutoencoder.encode` and `decode`, and
`encode_regions` and `decode_regions` with smooth masks that keep falling shares; "canvas" keeps
all but a few cells of the last frame, so that it is the whole picture run as regions are. The aim
is a time of at most 1.12 times the share, plus 0.06. With norms it then tells how near the kept
pixels are to the dense result after the first latent frame, in dB (encoder: latents' power over
error; decoder: peak 2; inner: cells with no skipped one beside them), for ways to get the norms'
statistics:

    cheap      those of a pass over the picture or the latent at a quarter of its sides
    first      those of the first frame, for ever
    kept       those of what is run
    kept+cheap those of what is run, and of a cheap pass for what is not
    carried    those of what is run, and for what is not of when it was last run (the default)

Weights are random; so is the clip, unless `--clip` names one. `--preset full` is the published
autoencoder. Writes `results/regional_vae.json`.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from record import save
from torch import Tensor, nn

from skipsr.backbones.seedvr2 import blocks
from skipsr.backbones.seedvr2.blocks import affine
from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.backbones.seedvr2.regional import decode_regions, encode_regions
from skipsr.backbones.seedvr2.regional_norms import Carried, Statistics
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.evaluation.record import rounded
from skipsr.nn.fused import moments_of, sums
from skipsr.skipping.canvas import CanvasPlan
from skipsr.skipping.regions import widen

CONFIGS = {
    "quarter": VAEConfig(channels=(32, 64, 128, 128), groups=8),
    "full": VAEConfig(),
}
CHEAP = 4  # the cheap pass has a side this many times shorter
PEAK = 2.0
CELL = 16  # pixels a side
TIME = 4  # frames that a latent frame after the first stands for
Table = Mapping[nn.Module, Tensor]


def make_frames(count: int, height: int, width: int) -> Tensor:
    """Soft shapes with some grain that drift: `1 3 t h w` in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.zeros(1, 3, height, width + 2 * count)
    for size in (4, 16, 64, 256):
        rough = torch.randn(1, 3, size, size, generator=generator)
        scene += F.interpolate(rough, scene.shape[2:], mode="bicubic") / size**0.5
    frames = [scene[:, :, :, 2 * t : 2 * t + width] for t in range(count)]
    return (torch.stack(frames, 2) / 2).clamp(-1, 1)


def read_frames(path: Path, count: int, height: int, width: int) -> Tensor:
    """A clip's first frames, enlarged or reduced to cover the size: `1 3 t h w` in [-1, 1]."""
    with importlib.import_module("skipsr.video").open_source(path) as source:
        frames = next(source.clips(count, 0)).frames
    h, w = frames.shape[2:]
    scale = max(height / h, width / w)
    size = max(height, round(h * scale)), max(width, round(w * scale))
    frames = F.interpolate(frames, size, mode="bicubic", antialias=True).clamp(0, 1)
    return frames[:, :, :height, :width].transpose(0, 1)[None] * 2 - 1


def make_masks(count: int, rows: int, columns: int, share: float, strip: int) -> Tensor:
    """Smooth blobs that shrink a little with time and keep about `share` of all cells."""
    rough = torch.randn(1, 1, rows // 5 + 2, columns // 5 + 2, generator=torch.manual_seed(1))
    need = F.interpolate(rough, (rows, columns), mode="bicubic")[0]
    need = need - torch.linspace(0, 0.2, count)[:, None, None]
    low, high = -9.0, 9.0
    for _ in range(30):
        middle = (low + high) / 2
        kept = kept_share(widen(need > middle, strip), TIME)
        low, high = (middle, high) if kept > share else (low, middle)
    return widen(need > high, strip)


def masks_of(
    frames: int, height: int, width: int, shares: Iterable[float], strip: int
) -> dict[str, Tensor]:
    """By name: the canvas, and masks that keep shares of the cells of a clip."""
    grid = ((frames - 1) // TIME + 1, -(-height // CELL), -(-width // CELL))
    canvas = torch.ones(grid, dtype=torch.bool)
    canvas[-1, :strip, -1] = False
    return {"canvas": canvas} | {
        f"{share:g}": make_masks(*grid, share, strip) if share < 1 else torch.ones_like(canvas)
        for share in shares
    }


def kept_share(keeps: Tensor, each: int) -> float:
    """Of the cells of all frames; a latent frame after the first stands for `each`."""
    shares = keeps.float().mean((1, 2))
    return ((shares[0] + each * shares[1:].sum()) / (1 + each * (len(shares) - 1))).item()


# ------------------------------------------------------------------------ ways to get statistics


def note_statistics(vae: VideoAutoencoder, run: Callable[[], Any]) -> Table:
    """What each norm reads while `run` runs: means over groups of the values and of their squares,
    `t 2 groups h w`."""
    found: dict[nn.Module, list[Tensor]] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.GroupNorm)
        x = inputs[0].float()
        frames = x[0].transpose(0, 1) if x.ndim == 5 else x
        groups = frames.unflatten(1, (norm.num_groups, -1))
        found.setdefault(norm, []).append(torch.stack((groups.mean(2), groups.square().mean(2)), 1))

    def noted(norm: nn.Module, x: Tensor, band: int | None) -> Any:
        if isinstance(norm, nn.GroupNorm):
            note(norm, (x,))
        return affine(norm, x, band)

    # attention calls its norm; the other layers ask for scale and shift
    norms = [module for module in vae.modules() if isinstance(module, nn.GroupNorm)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    with patch.object(blocks, "affine", noted):
        run()
    for hook in hooks:
        hook.remove()
    return {norm: torch.cat(parts) for norm, parts in found.items()}


@dataclass
class Cheap:
    """See the top; `kept+cheap` if `mixed`."""

    table: Table
    widths: Mapping[int, int]  # of pictures, by their number of pixels
    mixed: bool = False
    frame: dict[nn.Module, int] = field(default_factory=dict[nn.Module, int])

    def of(
        self, norm: nn.GroupNorm, x: Tensor, plan: CanvasPlan, leaving: Tensor
    ) -> tuple[Tensor, Tensor]:
        first = self.frame.get(norm, 0)
        self.frame[norm] = first + len(x)
        maps = self.table[norm][first : first + len(x)]  # t 2 groups h w
        kept = len(plan.kept_slots) / len(plan.slot_of_pixel)
        if kept == 1:
            return moments_of(sums(x), norm.num_groups, len(plan.kept_slots))
        if not self.mixed:
            mean, square = maps.mean((3, 4)).unbind(1)
            return mean, square - mean.square()
        rows = (plan.slot_of_pixel != plan.zero).nonzero()[:, 0]
        mask = torch.ones(len(plan.slot_of_pixel), device=x.device).index_fill_(0, rows, 0)
        mask = mask.view(1, -1, self.widths[len(plan.slot_of_pixel)])
        weight = F.adaptive_avg_pool2d(mask, (maps.shape[3], maps.shape[4]))
        rest = (maps * weight).sum((3, 4)) / weight.sum()
        here = (sums(x) / len(plan.kept_slots)).unflatten(2, (norm.num_groups, -1)).mean(3)
        mean, square = (kept * here + (1 - kept) * rest).unbind(1)
        return mean, square - mean.square()


@dataclass
class Kept:
    """Statistics of the kept part, as if that were the whole frame."""

    def of(
        self, norm: nn.GroupNorm, x: Tensor, plan: CanvasPlan, leaving: Tensor
    ) -> tuple[Tensor, Tensor]:
        return moments_of(sums(x), norm.num_groups, len(plan.kept_slots))


class First:
    """See the top."""

    known: dict[nn.Module, tuple[Tensor, Tensor]] = field(
        default_factory=dict[nn.Module, tuple[Tensor, Tensor]]
    )

    def of(
        self, norm: nn.GroupNorm, x: Tensor, plan: CanvasPlan, leaving: Tensor
    ) -> tuple[Tensor, Tensor]:
        if len(plan.kept_slots) < len(plan.slot_of_pixel):
            return self.known[norm]
        found = moments_of(sums(x), norm.num_groups, len(plan.kept_slots))
        self.known[norm] = found[0][-1:], found[1][-1:]
        return found


def reduced(x: Tensor, multiple: int) -> Tensor:
    """A clip or latent `1 c t h w` at a quarter of its sides, in steps of `multiple`."""
    h, w = (max(multiple, side // CHEAP // multiple * multiple) for side in x.shape[3:])
    return F.adaptive_avg_pool3d(x, (x.shape[2], h, w))


def inner(keeps: Tensor) -> Tensor:
    """Kept cells with no skipped one beside them."""
    around = F.pad(keeps.float(), (1, 1, 1, 1), value=1.0)
    return -F.max_pool2d(-around, 3, 1) > 0


def decibels(got: Tensor, want: Tensor, keeps: Tensor, power: float | None) -> float:
    """Signal over error on what is kept of `1 c t h w` after the first latent frame.

    Args:
        power: of the signal; its own if None.
    """
    h, w = want.shape[3:]
    side = -(-h // keeps.shape[1])
    each = (want.shape[2] - 1) // (len(keeps) - 1)
    mask = keeps[1:].repeat_interleave(each, 0)
    mask = mask.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :h, :w].to(want.device)
    error = (got - want)[0, :, 1:].float()[:, mask].square().mean()
    signal = want[0, :, 1:].float()[:, mask].var() if power is None else torch.tensor(power)
    return (10 * torch.log10(signal.to(error.device) / error)).item()


# ---------------------------------------------------------------------------------------- timing


def seconds(runs: Mapping[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """Medians; all run in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):  # the first warms up
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in times.items()}


def show(name: str, found: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, Any]:
    """Print and return seconds and shares of the dense time."""
    rows: dict[str, Any] = {}
    for key, value in found.items():
        kept = shares.get(key, 1.0)
        ratio, of_canvas = value / found["dense"], value / found["canvas"]
        rows[key] = {"seconds": value, "kept": kept, "of_dense": ratio, "of_canvas": of_canvas}
        aim = 1.12 * kept + 0.06
        print(
            f"{name} {key:>7}: kept {kept:.1%}, {value:.3f} s, {ratio:.3f} of dense, "
            f"{of_canvas:.3f} of the canvas (aim {aim:.3f})"
        )
    return rows


def measure_errors(
    vae: VideoAutoencoder, frames: Tensor, masks: Mapping[str, Tensor], strip: int
) -> dict[str, Any]:
    """See the top."""
    latent = vae.encode(frames).mean
    shown = vae.decode(latent)
    small = reduced(frames, vae.config.space)
    tables = (
        note_statistics(vae, lambda: vae.encode(small)),
        note_statistics(vae, lambda: vae.decode(reduced(latent, 1))),
    )
    h, w = frames.shape[3:]
    widths = {(h >> level) * (w >> level): w >> level for level in range(len(vae.config.channels))}
    ways: dict[str, Callable[[Table], Statistics]] = {
        "cheap": lambda table: Cheap(table, widths),
        "first": lambda table: First(),
        "kept": lambda table: Kept(),
        "kept+cheap": lambda table: Cheap(table, widths, mixed=True),
        "carried": lambda table: Carried(),
    }
    rows: dict[str, Any] = {}
    for share, keeps in masks.items():
        if bool(keeps.all()):
            continue
        for way, make in ways.items():
            encoded = encode_regions(vae, frames, keeps, strip, make(tables[0]))
            decoded = decode_regions(vae, latent, None, keeps, strip, make(tables[1]))
            found = {
                "encode": decibels(encoded, latent, keeps, None),
                "decode": decibels(decoded, shown, keeps, PEAK**2),
                "decode_relative": decibels(decoded, shown, keeps, None),
                "decode_inner": decibels(decoded, shown, inner(keeps), PEAK**2),
            }
            rows[f"{share} {way}"] = found
            print(f"kept {share} {way:>10}: " + ", ".join(f"{k} {v:.1f}" for k, v in found.items()))
    return rows


def measure_times(
    vae: VideoAutoencoder,
    frames: Tensor,
    masks: Mapping[str, Tensor],
    strip: int,
    rounds: int,
) -> dict[str, Any]:
    """Seconds of encode and decode, dense and at every share."""
    latent = vae.encode(frames).mean
    shares = {name: kept_share(keeps, TIME) for name, keeps in masks.items()}
    rows: dict[str, Any] = {}
    for name in ("encode", "decode"):
        runs: dict[str, Callable[[], Any]] = {}
        if name == "encode":
            runs["dense"] = lambda: vae.encode(frames)
            for key, keeps in masks.items():
                runs[key] = lambda keeps=keeps: encode_regions(vae, frames, keeps, strip)
        else:
            runs["dense"] = lambda: vae.decode(latent)
            for key, keeps in masks.items():
                runs[key] = lambda keeps=keeps: decode_regions(vae, latent, None, keeps, strip)
        rows[name] = show(name, seconds(runs, rounds, frames.device.type), shares)
    return rows


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", choices=CONFIGS, default="quarter")
    parser.add_argument("--full", action="store_const", const="full", dest="preset")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", default="640x352")
    parser.add_argument("--shares", default="1,0.8,0.6,0.4")
    parser.add_argument("--strip", type=int, default=2, help="rows of cells")
    parser.add_argument("--clip", type=Path, help="a video file")
    parser.add_argument("--rounds", type=int, default=3, help="0: no timing")
    parser.add_argument("--no-errors", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--name", default="regional_vae", help="of the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = options.dtype
    if dtype == "auto":
        dtype = "bfloat16" if options.device == "cuda" else "float32"
    vae = VideoAutoencoder(CONFIGS[options.preset]).eval()
    vae = vae.to(options.device, getattr(torch, dtype))
    width, height = (int(side) for side in options.size.split("x"))
    wanted = (options.frames, height, width)
    frames = read_frames(options.clip, *wanted) if options.clip else make_frames(*wanted)
    frames = frames.to(options.device)
    masks = masks_of(*wanted, map(float, options.shares.split(",")), options.strip)
    found: dict[str, Any] = {}
    if options.rounds:
        found["times"] = measure_times(vae, frames, masks, options.strip, options.rounds)
    if vae.config.groups and not options.no_errors:
        del masks["canvas"]
        found["errors"] = measure_errors(vae, frames, masks, options.strip)
    told = ("preset", "frames", "size", "strip", "rounds", "threads")
    setup = {name: getattr(options, name) for name in told}
    clip = options.clip and options.clip.name
    record = rounded({**setup, "dtype": dtype, "clip": clip, **found})
    assert isinstance(record, dict)
    save(options.name, record)


if __name__ == "__main__":
    main()
