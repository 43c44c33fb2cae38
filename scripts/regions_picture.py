"""The picture at the head of the README: frames of a clip, enlarged, and what was left out of them.

    python scripts/regions_picture.py OUT.jpg [CLIP] [--frames 8 32] [--shot 24]

Above, frames of CLIP (the bundled sample) enlarged by skipvsr:nano as it runs by default; below,
the same with the cells that it left out tinted blue. Shots of CLIP are taken to be `--shot` frames
long.
"""

import argparse
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.files import atomic_write
from skipsr.loading import load_upscaler
from skipsr.pipeline.preview import tint
from skipsr.settings import RuntimeSettings
from skipsr.video import open_source

MODEL = "skipvsr:nano"
SCALE = 4
SAMPLE = Path(__file__).parents[1] / "src" / "skipsr" / "assets" / "sample.mp4"


def column(upscaler: Upscaler, shot: Clip, number: int) -> Tensor:
    """One frame of a shot enlarged, and below it the same, tinted: `3 2h w` in [0, 1]."""
    size = SCALE * shot.size[0], SCALE * shot.size[1]
    done = upscaler.upscale(shot, size)
    tinted = tint(done.clip, done.compute_map)
    print(f"frame {shot.start + number}: {done.compute_map.fractions[number].mean():.0%} computed")
    return torch.cat([done.clip.frames[number], tinted.frames[number]], dim=1)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("clip", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--shot", type=int, default=24, help="frames of each shot")
    options = parser.parse_args()
    runtime = RuntimeSettings(dtype="float32")  # which skips on any processor
    upscaler = load_upscaler(MODEL, runtime=runtime)
    with open_source(options.clip) as source:
        columns = [
            column(upscaler, shot, number - shot.start)
            for shot in source.clips(options.shot, 0)
            for number in options.frames
            if shot.start <= number < shot.start + len(shot)
        ]
    if not columns:
        parser.error(f"{options.clip} has none of these frames")
    picture = rearrange(torch.cat(columns, dim=2) * 255, "c h w -> h w c").round().byte()
    with atomic_write(options.out) as part:
        Image.fromarray(picture.numpy()).save(part, "JPEG", quality=90)


if __name__ == "__main__":
    main()
