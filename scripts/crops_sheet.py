"""Contact sheet of borders between refined and skipped cells, to look for seams.

    python scripts/crops_sheet.py OUT.png CLIP... [--frame 8]

Every HR clip is shrunk by four and enlarged again by the bundled skipvsr:nano. Of one frame, three
crops of 96x96 pixels are shown, every pixel as a square of 4x4: the plain picture, the dense
result, the default one, and that with skipped cells tinted blue. Crops lie where cells that were
run meet cells that were not and the picture is flattest, apart from each other. Where the sheet
would exceed 700 kB, fewer crops of each clip are shown.
"""

import argparse
import io
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.data.degrade import downscale, quantize
from skipsr.errors import SkipsrError
from skipsr.files import atomic_write
from skipsr.loading import load_upscaler
from skipsr.pipeline.preview import tint
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.video import open_source

MODEL = "skipvsr:nano"
SCALE = 4
CROP = 96  # pixels
CROPS = 3  # of a clip
ENLARGE = 4
LIMIT = 700_000  # bytes
MARGIN, LINE = 8, 24  # pixels: between panels, and of a line of text
Corner = tuple[int, int]  # top, left


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame of a clip: what is to be compared, by name, and where to look."""

    name: str
    frame: int
    panels: dict[str, Tensor]  # 3 h w in [0, 1]
    corners: list[Corner]


def read_low(path: Path, frames: int) -> Tensor:
    """LR frames `t 3 h w`, 8-bit."""
    with open_source(path) as source:
        truth = next(source.clips(frames, 0)).frames
    h, w = (side // SCALE * SCALE for side in truth.shape[2:])
    if min(h, w) < CROP:
        raise ValueError(f"{path} is {w}x{h}: at least {CROP} pixels a side are needed")
    low = downscale(rearrange(truth[:, :, :h, :w], "t c h w -> 1 c t h w"), SCALE)
    return quantize(rearrange(low, "1 c t h w -> t c h w"))


def choose_corners(picture: Tensor, keep: Tensor, cell: tuple[int, int]) -> list[Corner]:
    """Crops of `3 h w` around border cells of a mask, bool `rows columns`, the flattest first.

    They are as far apart as leaves enough of them; cells count as flat by the variance of luma over
    three by three of them. Without borders any cell will do.
    """
    size = picture.shape[1], picture.shape[2]
    flatness = local_variance(picture.mean(0), keep, cell)
    places = borders(keep).nonzero()
    if not len(places):
        places = torch.ones_like(keep).nonzero()
    ranked = places[flatness[places[:, 0], places[:, 1]].argsort()].tolist()
    corners = [corner_at(place, cell, size) for place in ranked]
    found: list[Corner] = []
    distance = math.hypot(*size) / CROPS
    while len(found) < CROPS and distance >= CROP / 2:
        found = spread(corners, distance)
        distance *= 0.8
    return found


def local_variance(luma: Tensor, keep: Tensor, cell: tuple[int, int]) -> Tensor:
    """Of `h w` over each cell and its neighbours, `rows columns`."""
    (rows, columns), (high, wide) = keep.shape, cell
    whole = (0, columns * wide - luma.shape[1], 0, rows * high - luma.shape[0])
    padded = F.pad(luma[None, None], whole, mode="replicate")
    first, second = (F.avg_pool2d(x, cell) for x in (padded, padded.square()))
    first, second = (F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) for x in (first, second))
    return (second - first.square())[0, 0]


def borders(keep: Tensor) -> Tensor:
    """Cells with a neighbour of the other kind, bool `rows columns`."""
    mask = F.pad(keep[None, None].float(), (1, 1, 1, 1), mode="replicate")
    most, least = F.max_pool2d(mask, 3, 1), -F.max_pool2d(-mask, 3, 1)
    return (most != least)[0, 0]


def corner_at(place: list[int], cell: tuple[int, int], size: tuple[int, int]) -> Corner:
    """Of the crop with a cell in its middle, as far as the picture reaches."""
    middle = [round((index + 0.5) * side) for index, side in zip(place, cell, strict=True)]
    top, left = (
        min(max(0, at - CROP // 2), side - CROP) for at, side in zip(middle, size, strict=True)
    )
    return top, left


def spread(corners: list[Corner], distance: float) -> list[Corner]:
    """The first ones that are at least so far apart, pixels."""
    found: list[Corner] = []
    for corner in corners:
        if all(math.dist(corner, other) >= distance for other in found):
            found.append(corner)
    return found[:CROPS]


def show(path: Path, dense: Upscaler, default: Upscaler, frame: int) -> Shown:
    """Run both on a clip's frames up to as many after `frame` as before it."""
    low = Clip(read_low(path, 2 * frame + 1))
    frame = min(frame, len(low) - 1)
    size = SCALE * low.size[0], SCALE * low.size[1]
    done = default.upscale(low, size)
    one = slice(frame, frame + 1)
    result = Clip(done.clip.frames[one])
    share = done.compute_map.fractions[one]
    computed = ComputeMap(
        fractions=share,
        cell_size=done.compute_map.cell_size,
        units_run=int(share.sum()),
        units_total=share.numel(),
    )
    panels = {
        "base": default.upsample(Clip(low.frames[one]), size).frames[0],
        "dense": dense.upscale(low, size).clip.frames[frame],
        "default": result.frames[0],
        f"default, {1 - computed.fraction:.0%} skipped": tint(result, computed).frames[0],
    }
    corners = choose_corners(panels["dense"], computed.keep[0], computed.cell_size)
    return Shown(path.stem, frame, panels, corners)


def cut(picture: Tensor, corner: Corner) -> Image.Image:
    """One crop, enlarged."""
    top, left = corner
    part = picture[:, top : top + CROP, left : left + CROP]
    large = repeat(part, "c h w -> 1 c (h i) (w j)", i=ENLARGE, j=ENLARGE)
    return Image.fromarray(Clip(large.contiguous()).to_array()[0])


def sheet(shown: list[Shown], crops: int) -> Image.Image:
    """A line of text and up to so many rows of panels for each clip."""
    side = CROP * ENLARGE
    rows = sum(len(each.corners[:crops]) for each in shown)
    width = MARGIN + len(shown[0].panels) * (side + MARGIN)
    height = MARGIN + rows * (side + LINE + MARGIN) + len(shown) * LINE
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(16)
    y = MARGIN
    for each in shown:
        draw.text((MARGIN, y), f"{each.name}, frame {each.frame}", fill="black", font=font)
        y += LINE
        for corner in each.corners[:crops]:
            for number, (name, picture) in enumerate(each.panels.items()):
                x = MARGIN + number * (side + MARGIN)
                label = name if number else f"{name}, {corner[1]}+{corner[0]}"
                draw.text((x, y), label, fill="black", font=font)
                image.paste(cut(picture, corner), (x, y + LINE))
            y += side + LINE + MARGIN
    return image


def encode(shown: list[Shown]) -> bytes:
    """The sheet as PNG, with as many crops of each clip as the limit leaves room for."""
    data = b""
    for crops in range(CROPS, 0, -1):
        buffer = io.BytesIO()
        sheet(shown, crops).save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
        if len(data) <= LIMIT:
            break
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("--frame", type=int, default=8, help="counted from 0")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.out.suffix.lower() != ".png":
        parser.error(f"{options.out} must end in .png")
    if options.frame < 0:
        parser.error("--frame must be 0 or more")
    torch.set_num_threads(options.threads)
    try:
        runtime = RuntimeSettings(dtype="float32")  # which skips on any processor
        dense = load_upscaler(MODEL, SkipSettings(dense=True), runtime)
        default = load_upscaler(MODEL, SkipSettings(), runtime)
        shown = [show(path, dense, default, options.frame) for path in options.clips]
    except (SkipsrError, ValueError) as error:
        parser.error(str(error))
    data = encode(shown)
    with atomic_write(options.out) as part:
        part.write_bytes(data)
    for each in shown:
        print(f"{each.name}, frame {each.frame}: crops at (top, left) {each.corners}")
    print(f"{options.out}: {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
