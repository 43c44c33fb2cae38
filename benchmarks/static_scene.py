"""Does work follow motion? Blocks executed on a still scene and on a busy one, made of one picture.

    python benchmarks/static_scene.py PICTURE [CLIP ...] [--budget 0.6]

"still" is the picture with a patch of it wandering in front; "busy" is the same picture panning by
`--speed` pixels a frame. Both are `--size`, and first frames run every block, having nothing to be
compared with, so shares are told with and without them. Clips that are given are measured as they
are. Writes `results/static_scene.json` and, for each clip, a heat map of its middle frame into
`results/static_scene/`: the bluer, the less was computed there, as `skipsr mask` draws it.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import HERE, save
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.evaluation.record import rounded
from skipsr.loading import load_upscaler
from skipsr.pipeline.preview import tint
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.skipping.work import Work
from skipsr.video import open_source
from skipsr.video.images import write_image

SCALE = 4
MOVING = 5  # the wandering patch is this part of each side


def read_frames(path: Path, frames: int) -> Tensor:
    with open_source(path) as source:
        return next(source.clips(frames, 0)).frames


def widen(picture: Tensor, height: int, width: int) -> Tensor:
    """The middle of a picture `3 H W`, resized to cover `3 height width`."""
    h, w = picture.shape[1:]
    scale = max(height / h, width / w)
    size = max(height, round(h * scale)), max(width, round(w * scale))
    scene = F.interpolate(picture[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return scene[:, top : top + height, left : left + width]


def still(scene: Tensor, frames: int, width: int, speed: int) -> Tensor:
    """`t 3 h width`: the left of the scene, its corner's patch wandering on an ellipse."""
    view = scene[:, :, :width]
    h = view.shape[1]
    tall, wide = h // MOVING, width // MOVING
    shown = view.repeat(frames, 1, 1, 1)
    radius = (h - tall) / 4, (width - wide) / 4
    for t in range(frames):
        angle = speed * t / max(radius)  # about `speed` pixels a frame along the longer axis
        top = round((h - tall) / 2 + radius[0] * math.sin(angle))
        left = round((width - wide) / 2 + radius[1] * math.cos(angle))
        shown[t, :, top : top + tall, left : left + wide] = view[:, :tall, :wide]
    return shown


def busy(scene: Tensor, frames: int, width: int, speed: int) -> Tensor:
    """`t 3 h width`: a view that moves along the scene, and back from its end."""
    ends = max(1, scene.shape[2] - width)
    places = [ends - abs(ends - (speed * t) % (2 * ends)) for t in range(frames)]
    return torch.stack([scene[:, :, left : left + width] for left in places])


def describe(work: Work) -> dict[str, Any]:
    """Shares of all blocks; first frames are the first one's forward half and the last one's
    backward half."""
    frames = len(work.share)
    units = work.total / frames  # of one frame in both directions: what first frames are in all
    later = (work.computed - units) / (work.total - units) if frames > 1 else None
    return {
        "frames": frames,
        "executed": work.fraction,
        "executed_after_first_frames": later,
        "executed_by_frame": work.share.mean((1, 2)).tolist(),
        "least_of_a_place": work.share.min().item(),
    }


def draw(clip: Clip, work: Work, upscaler: Upscaler, path: Path) -> None:
    """The middle frame's heat map, as PNG."""
    height, width = clip.size
    shown = tint(upscaler.enlarge(clip, (SCALE * height, SCALE * width)), work)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, shown.to_array()[len(clip) // 2], None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, help="an image, or a clip whose first frame is taken")
    parser.add_argument("clips", type=Path, nargs="*", help="further clips, at their own size")
    parser.add_argument("--model", default="skipvsr:nano")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--budget", type=float, help="by default the model's own")
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--speed", type=int, default=8, help="pixels a frame")
    parser.add_argument("--name", default="static_scene", help="of the results")
    options = parser.parse_args()
    skip = SkipSettings(budget=options.budget, threshold=options.threshold)
    runtime = RuntimeSettings(dtype=options.dtype, weights=options.weights)
    upscaler = load_upscaler(options.model, skip, runtime)
    width, height = (int(side) for side in options.size.split("x"))
    room = max(1, min(options.speed * (options.frames - 1), width))
    scene = widen(read_frames(options.picture, 1)[0], height, width + room)
    made = (scene, options.frames, width, options.speed)
    clips = {"still": still(*made), "busy": busy(*made)}
    clips |= {path.stem: read_frames(path, options.frames) for path in options.clips}
    found: dict[str, Any] = {}
    print("First frames of both directions run every block.")
    for name, frames in clips.items():
        clip = Clip(frames)
        work = upscaler.work(clip, (SCALE * clip.size[0], SCALE * clip.size[1]))
        found[name] = describe(work)
        draw(clip, work, upscaler, HERE / "results" / options.name / f"{name}.png")
        later = found[name]["executed_after_first_frames"]
        after = "" if later is None else f", {later:.1%} after the first frames"
        print(f"{name}: {work.fraction:.1%} of the blocks executed{after}")
    told = ("model", "budget", "threshold", "size", "speed")
    setup = {name: getattr(options, name) for name in told}
    setup |= {"dtype": upscaler.dtype, "picture": options.picture.name, "clips": found}
    record = rounded(setup)
    assert isinstance(record, dict)
    save(options.name, record)


if __name__ == "__main__":
    main()
