"""What standing still saves: clips made of one picture, enlarged with and without showing again.

    python benchmarks/standstill.py PICTURE [--model skipvsr:nano] [--frames 24] [--size 180x320]

Every clip is cut from the same LR scene: PICTURE, cropped and shrunk by antialiased bicubic, 8-bit.
"static" is one frame throughout; in "moving object" a textured patch of 15 % of the width and the
height, cut from elsewhere in the picture, travels over it by 3 LR pixels a frame; "noise" is the
static clip with Gaussian noise of 3/255 drawn anew in each frame; "panning" moves by one LR pixel a
frame over the scene. Each is enlarged by four with everything computed, by default, and by default
without reuse, in turn within one run after a warm-up; seconds are medians over rounds, and `share`
is what was run of all cells. Differences are those of the results from the dense one. Writes
`benchmarks/results/standstill_MODEL.json` and `.md`.
"""

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import HERE, save
from torch import Tensor

from skipsr.backbones.contract import Upscaled, Upscaler
from skipsr.clip import Clip
from skipsr.data.degrade import quantize
from skipsr.evaluation.record import rounded, write_text
from skipsr.loading import load_upscaler
from skipsr.memory import ask_for_huge_pages
from skipsr.metrics.fidelity import psnr_rgb
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.tracing import Trace
from skipsr.video import open_source

SCALE = 4
PATCH = 0.15  # the moving object's part of each side
STEP = 3  # LR pixels that it travels a frame
NOISE = 3 / 255
WAYS: Mapping[str, SkipSettings] = {
    "dense": SkipSettings(dense=True),
    "default": SkipSettings(),
    "no reuse": SkipSettings(reuse="off"),
}
Row = dict[str, Any]


def read_picture(path: Path) -> Tensor:
    """`3 H W`: an image, or a clip's first frame."""
    with open_source(path) as source:
        return next(source.clips(1, 0)).frames[0]


def make_scene(picture: Tensor, height: int, width: int) -> Tensor:
    """`3 height width`: the middle of a picture `3 H W`, shrunk, 8-bit.

    Raises:
        ValueError: when the picture is smaller than that.
    """
    h, w = picture.shape[1:]
    factor = min(h / height, w / width)
    if factor < 1:
        raise ValueError(f"a picture of {w}x{h} is too small for a scene of {width}x{height}")
    tall, wide = round(height * factor), round(width * factor)
    top, left = (h - tall) // 2, (w - wide) // 2
    part = picture[None, :, top : top + tall, left : left + wide]
    small = F.interpolate(part, (height, width), mode="bicubic", antialias=True)
    return quantize(small[0].clamp(0, 1))


def static(view: Tensor, frames: int) -> Tensor:
    return view.repeat(frames, 1, 1, 1)


def moving_object(view: Tensor, frames: int) -> Tensor:
    """A patch of the view's upper part travels along its lower half, and back from its end."""
    tall, wide = (round(PATCH * side) for side in view.shape[1:])
    patch = textured(view[:, : view.shape[1] // 2], tall, wide)
    top = round(0.75 * view.shape[1] - tall / 2)
    room = view.shape[2] - wide
    shown = static(view, frames)
    for t in range(frames):
        left = room - abs(room - STEP * t % (2 * room))
        shown[t, :, top : top + tall, left : left + wide] = patch
    return shown


def textured(part: Tensor, tall: int, wide: int) -> Tensor:
    """The piece `3 tall wide` of `3 h w` that varies most."""
    luma = part.mean(0, keepdim=True)
    first, second = (F.avg_pool2d(x[None], (tall, wide), 1)[0, 0] for x in (luma, luma.square()))
    place = int((second - first.square()).argmax())
    top, left = divmod(place, first.shape[1])
    return part[:, top : top + tall, left : left + wide]


def noisy(view: Tensor, frames: int) -> Tensor:
    shown = static(view, frames)
    draw = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    return quantize((shown + NOISE * draw).clamp(0, 1))


def panning(scene: Tensor, frames: int, width: int) -> Tensor:
    return torch.stack([scene[:, :, left : left + width] for left in range(frames)])


def make_clips(picture: Tensor, size: tuple[int, int], frames: int) -> dict[str, Clip]:
    height, width = size
    scene = make_scene(picture, height, width + frames - 1)
    view = scene[:, :, :width]
    made = {
        "static": static(view, frames),
        "moving object": moving_object(view, frames),
        "noise": noisy(view, frames),
        "panning": panning(scene, frames, width),
    }
    return {name: Clip(clip.contiguous()) for name, clip in made.items()}


def run(upscaler: Upscaler, clip: Clip) -> tuple[Upscaled, float]:
    """The result, and the seconds that it took."""
    height, width = clip.size
    with Trace() as trace:
        done = upscaler.upscale(clip, (SCALE * height, SCALE * width))
    return done, trace.total


def measure(upscalers: Mapping[str, Upscaler], clip: Clip, rounds: int) -> Row:
    """All ways of one clip."""
    taken: dict[str, list[float]] = {name: [] for name in upscalers}
    results: dict[str, Upscaled] = {}
    for _ in range(rounds):
        for name, upscaler in upscalers.items():
            results[name], seconds = run(upscaler, clip)
            taken[name].append(seconds)
    dense = results["dense"].clip.frames
    row: Row = {}
    for name, done in results.items():
        frames = done.clip.frames
        row[name] = {
            "seconds": statistics.median(taken[name]),
            "rounds": taken[name],
            "share": done.compute_map.fraction,
        }
        if name != "dense":
            row[name]["psnr"] = psnr_rgb(frames, dense).mean().item()
            row[name]["apart"] = (frames - dense).abs().max().item()
    return row


def summary(row: Row) -> dict[str, float]:
    """What the table shows of a clip; PSNR is in dB, of 8-bit RGB, 100 for equal frames."""
    dense, default, anew = row["dense"], row["default"], row["no reuse"]
    return {
        "dense s": dense["seconds"],
        "default s": default["seconds"],
        "no reuse s": anew["seconds"],
        "default / dense": default["seconds"] / dense["seconds"],
        "no reuse / dense": anew["seconds"] / dense["seconds"],
        "default / no reuse": default["seconds"] / anew["seconds"],
        "share": default["share"],
        "no reuse share": anew["share"],
        "PSNR": default["psnr"],
        "no reuse PSNR": anew["psnr"],
        "max apart /255": 255 * default["apart"],
        "no reuse max apart /255": 255 * anew["apart"],
    }


def table(rows: Mapping[str, Row]) -> str:
    """Markdown: a line for each clip."""
    found = {name: summary(row) for name, row in rows.items()}
    names = list(next(iter(found.values())))
    lines = ["| clip | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for clip, each in found.items():
        lines.append(f"| {clip} | " + " | ".join(f"{each[name]:.3f}" for name in names) + " |")
    return "\n".join(lines) + "\n"


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, help="an image, or a clip whose first frame is taken")
    parser.add_argument("--model", default="skipvsr:nano")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", default="180x320", help="of LR frames, height x width")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", help="of the files in results/, instead of standstill_MODEL")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    ask_for_huge_pages()  # memory as the command line settles it
    torch.set_num_threads(options.threads)
    height, width = (int(side) for side in options.size.split("x"))
    clips = make_clips(read_picture(options.picture), (height, width), options.frames)
    runtime = RuntimeSettings(dtype=options.dtype, weights=options.weights)
    upscalers = {name: load_upscaler(options.model, skip, runtime) for name, skip in WAYS.items()}
    for upscaler in upscalers.values():
        run(upscaler, Clip(clips["panning"].frames[:5]))  # warm-up
    rows: dict[str, Row] = {}
    for name, clip in clips.items():
        rows[name] = measure(upscalers, clip, options.rounds)
        print(table({name: rows[name]}).splitlines()[2], flush=True)
    text = table(rows)
    print(text)
    name = options.name or f"standstill_{options.model.replace(':', '_')}"
    write_text(HERE / "results" / f"{name}.md", text)
    told = ("model", "frames", "size", "threads", "rounds")
    setup = {each: getattr(options, each) for each in told}
    setup |= {"dtype": upscalers["dense"].dtype, "picture": options.picture.name, "clips": rows}
    record = rounded(setup)
    assert isinstance(record, dict)
    save(name, record)


if __name__ == "__main__":
    main()
