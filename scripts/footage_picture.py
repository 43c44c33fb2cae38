"""A crop of one frame of a clip as it is, beside what skipvsr:nano makes of it by default.

    python scripts/footage_picture.py OUT.jpg CLIP --frame 8 --crop 400 300 640 480

The left half is the clip plainly upsampled by four (bicubic), which is what skipped cells show. The
crop is left, top, width and height in pixels of the result. Up to eight frames on each side of the
one that is shown go through the model with it.
"""

import argparse
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from skipsr.clip import Clip
from skipsr.files import atomic_write
from skipsr.loading import load_upscaler
from skipsr.nn.resize import resize_bicubic
from skipsr.video import open_source

MODEL = "skipvsr:nano"
SCALE = 4
AROUND = 8  # frames on each side
LIMIT = 150_000  # bytes
GAP = 8  # pixels


def read_around(path: Path, frame: int) -> tuple[Clip, int]:
    """The frames around one, and where that is among them."""
    with open_source(path) as source:
        clip = next(source.clips(frame + AROUND + 1, 0))
    first = max(0, min(frame, len(clip) - 1) - AROUND)
    return Clip(clip.frames[first:]), min(frame, len(clip) - 1) - first


def cut(frame: Tensor, crop: list[int]) -> Tensor:
    """`3 h w` of a crop."""
    left, top, width, height = crop
    return frame[:, top : top + height, left : left + width]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frame", type=int, default=8, help="counted from 0")
    parser.add_argument("--crop", type=int, nargs=4, metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"))
    options = parser.parse_args()
    clip, number = read_around(options.clip, options.frame)
    size = SCALE * clip.size[0], SCALE * clip.size[1]
    crop = options.crop or [0, 0, size[1], size[0]]
    upscaler = load_upscaler(MODEL)
    done = upscaler.upscale(clip, size)
    plain = cut(resize_bicubic(clip.frames[number : number + 1], size)[0], crop)
    gap = torch.ones(3, plain.shape[1], GAP)
    both = torch.cat([plain, gap, cut(done.clip.frames[number], crop)], dim=2)
    picture = Image.fromarray(rearrange(both * 255, "c h w -> h w c").round().byte().numpy())
    with atomic_write(options.out) as part:
        for quality in range(92, 60, -4):
            picture.save(part, "JPEG", quality=quality)
            if part.stat().st_size <= LIMIT:
                break
    print(f"{options.out}: {done.computed:.0%} of the clip computed, quality {quality}")


if __name__ == "__main__":
    main()
