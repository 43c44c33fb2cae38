"""Contact sheet of degradations, to look at what training sees.

    python scripts/degradations_sheet.py INPUT OUT.png [--samples 12] [--seed 0] [--footage]

Each sample is a random crop of the video or image INPUT: its first frame, and the first and last
frame of the degraded clip, every pixel shown as a square.
"""

import argparse
import math
from pathlib import Path

import torch
from einops import rearrange, repeat
from torch import Tensor

from skipsr.clip import Clip
from skipsr.data.degrade import Degradation
from skipsr.data.footage import Footage
from skipsr.errors import SettingsError, SkipsrError
from skipsr.video import open_source
from skipsr.video.images import write_image

FRAMES = 9
COLUMNS = 2  # samples side by side
MARGIN = 4  # pixels, white


def read(path: Path, side: int) -> Tensor:
    """The first frames, `t 3 h w` in [0, 1]; an image stands still."""
    with open_source(path) as source:
        frames = next(source.clips(FRAMES, 0)).frames
    if min(frames.shape[2:]) < side:
        h, w = frames.shape[2:]
        raise SettingsError(f"{path} is {w}x{h}: give a smaller --crop than {side}")
    return frames if len(frames) > 1 else repeat(frames, "1 c h w -> t c h w", t=FRAMES)


def crop(frames: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random square of `t 3 h w` as `1 3 t side side`."""
    y, x = (
        int(torch.randint(whole - side + 1, (), generator=generator)) for whole in frames.shape[2:]
    )
    return rearrange(frames[:, :, y : y + side, x : x + side], "t c h w -> 1 c t h w")


def strip(clean: Tensor, degraded: Tensor, scale: int) -> Tensor:
    """Three tiles in a row, `3 h w`, with a margin."""
    large = repeat(degraded, "1 c t h w -> t c (h i) (w j)", i=scale, j=scale)
    tiles = torch.stack([clean[0, :, 0], large[0], large[-1]])
    padded = torch.nn.functional.pad(tiles, (0, MARGIN, 0, MARGIN), value=1.0)
    return rearrange(padded, "n c h w -> c h (n w)")


def sheet(
    frames: Tensor, side: int, samples: int, degradation: Degradation | Footage, seed: int
) -> Tensor:
    """All samples, `1 3 h w`."""
    generator = torch.Generator().manual_seed(seed)
    strips: list[Tensor] = []
    for _ in range(samples):
        clean = crop(frames, side, generator)
        strips.append(strip(clean, degradation(clean, generator), degradation.scale))
    rows = math.ceil(samples / COLUMNS)
    strips += [torch.ones_like(strips[0])] * (rows * COLUMNS - samples)
    return rearrange(torch.stack(strips), "(r k) c h w -> 1 c (r h) (k w)", k=COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", type=Path, metavar="INPUT")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crop", type=int, default=256, help="side of the crops, pixels")
    parser.add_argument("--strength", type=float, default=1.0, help="0 to 1")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--video", type=float, default=0.5, help="share of compressed clips")
    kind.add_argument("--footage", action="store_true", help="Footage in place of Degradation")
    options = parser.parse_args()
    if options.samples < 1:
        parser.error("--samples must be 1 or more")
    if options.out.suffix.lower() != ".png":
        parser.error(f"{options.out} must end in .png")
    try:
        if options.footage:
            degradation = Footage(clean=0.0, strength=options.strength)
        else:
            degradation = Degradation(clean=0.0, strength=options.strength, video=options.video)
        if options.crop < 1 or options.crop % degradation.scale:
            parser.error(f"--crop must be a multiple of {degradation.scale}")
        frames = read(options.input, options.crop)
        image = sheet(frames, options.crop, options.samples, degradation, options.seed)
    except (SkipsrError, ValueError) as error:
        parser.error(str(error))
    part = options.out.with_name(f"{options.out.stem}.part.png")
    write_image(part, Clip(image).to_array()[0], None)
    part.replace(options.out)
    print(f"{options.out}: {options.samples} samples")


if __name__ == "__main__":
    main()
