"""A picture of what skipping does with one frame, step by step, out of the real parts.

    python scripts/skipping_steps.py OUT.jpg [CLIP] [--frame 8]

Six panels: an LR frame of CLIP (the bundled sample), the error of plain upsampling that the need
predictor expects of each cell, the cells that are run, the canvas on which they stand side by side
while the network runs (here cut into rows), the result, and the plain picture.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.cost import region_cost
from skipsr.backbones.basicvsr.frame_masks import choose_masks
from skipsr.clip import Clip
from skipsr.files import atomic_write
from skipsr.loading import load_upscaler
from skipsr.pipeline.preview import tint
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.skipping.dial import default_dial
from skipsr.skipping.need import CELL, head_of, load_need
from skipsr.skipping.regions import Regions
from skipsr.video import open_source

MODEL = "skipvsr:nano"
SCALE = 4
MARGIN, LINE = 12, 26  # pixels: between panels, and of a line of text
SAMPLE = Path(__file__).parents[1] / "src" / "skipsr" / "assets" / "sample.mp4"
LOW, HIGH = torch.tensor([0.12, 0.16, 0.35]), torch.tensor([1.0, 0.86, 0.45])


def heat(need: Tensor) -> Tensor:
    """A map of ln errors `rows columns` as colours `3 h w`, cells of the result's size."""
    share = ((need - need.min()) / (need.max() - need.min())).clamp(0, 1)[None]
    colours = LOW[:, None, None] * (1 - share) + HIGH[:, None, None] * share
    return F.interpolate(colours[None], scale_factor=CELL * SCALE)[0]


def on_canvas(frame: Tensor, regions: Regions) -> Tensor:
    """The LR pixels of `3 h w` that stand on the canvas, dark elsewhere, cut into rows of the
    frame's width."""
    height, width = frame.shape[1:]
    plan = regions.at(CELL, (height, width))
    canvas = torch.full((3, plan.shape[0] * plan.shape[1]), 0.1)
    canvas[:, plan.kept_slots] = frame.flatten(1)[:, plan.kept_pixels]
    canvas = canvas.unflatten(1, plan.shape)
    canvas = F.pad(canvas, (0, -plan.shape[1] % width), value=0.1)
    rows = rearrange(canvas, "c h (n w) -> n c h w", w=width)
    rows = F.pad(rows, (0, 0, 0, 4), value=1.0)[: height // (plan.shape[0] + 4)]
    return rearrange(rows, "n c h w -> c (n h) w")


def show(frame: Tensor, size: tuple[int, int]) -> Image.Image:
    """`3 h w` in [0, 1], every pixel a square, on white of a size `(height, width)`."""
    times = size[1] // frame.shape[2]
    large = F.interpolate(frame[None], scale_factor=times)[0][:, : size[0], : size[1]]
    sheet = torch.ones(3, *size)
    sheet[:, : large.shape[1], : large.shape[2]] = large
    return Image.fromarray(rearrange(sheet * 255, "c h w -> h w c").round().byte().numpy())


@torch.inference_mode()
def panels(path: Path, number: int) -> dict[str, Tensor]:
    """What is shown, by its heading."""
    with open_source(path) as source:
        low = next(source.clips(number + 1, 0)).frames
    runtime = RuntimeSettings(dtype="float32")  # which skips on any processor
    upscaler = load_upscaler(MODEL, SkipSettings(reuse="off"), runtime)
    size = low.shape[2] * SCALE, low.shape[3] * SCALE
    head, predictor = head_of(MODEL), load_need()
    places = low.shape[2] * low.shape[3]
    crossover = region_cost(PRESETS["nano"]).of_frames(places).crossover
    masks = choose_masks(predictor, head, low, default_dial(MODEL), crossover, reuse=False)
    regions = masks[number].regions
    done = upscaler.upscale(Clip(low), size)
    plain = upscaler.upsample(Clip(low), size)
    tinted = tint(plain, done.compute_map).frames[number]
    return {
        "1  the small frame": low[number],
        "2  the error expected of the base, cell by cell": heat(
            predictor(low[number : number + 1]).mean[0, head]
        )[:, : size[0], : size[1]],
        f"3  cells that need the model: {regions.fraction:.0%} (the rest is blue)": tinted,
        "4  the canvas: only these pixels go through the network": on_canvas(low[number], regions),
        "5  the result": done.clip.frames[number],
        "6  beside it, the base everywhere": plain.frames[number],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("clip", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--frame", type=int, default=8)
    options = parser.parse_args()
    shown = panels(options.clip, options.frame)
    height, width = shown["5  the result"].shape[1:]
    columns = 2
    rows = -(-len(shown) // columns)
    full = columns * (width + MARGIN) + MARGIN, rows * (height + LINE + MARGIN) + MARGIN
    sheet = Image.new("RGB", full, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for i, (heading, frame) in enumerate(shown.items()):
        x = MARGIN + i % columns * (width + MARGIN)
        y = MARGIN + i // columns * (height + LINE + MARGIN)
        pen.text((x, y), heading, "black", font)
        sheet.paste(show(frame, (height, width)), (x, y + LINE))
    with atomic_write(options.out) as part:
        sheet.save(part, "JPEG", quality=88)


if __name__ == "__main__":
    main()
