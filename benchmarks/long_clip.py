"""Does memory stay bounded? Peak resident memory of the command on a short and a long clip.

python benchmarks/long_clip.py [--short 120] [--long 600] [--size 160x90] [--model seedvr2:nano]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from record import save

from skipsr.clip import Clip
from skipsr.video import frames_info, open_source, open_target


def make_clip(path: Path, seed: Path, frames: int, size: tuple[int, int]) -> None:
    """A clip of moving detail: a picture's rows and columns rolled a little each frame."""
    with open_source(seed) as source:
        first = next(source.clips(1, 0)).frames
    picture = torch.nn.functional.interpolate(first, size, mode="area")
    with open_target(path, frames_info(size, count=frames), size) as target:
        for i in range(frames):
            target.write(Clip(picture.roll((i // 2, i), (2, 3)), i))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", type=int, default=120)
    parser.add_argument("--long", type=int, default=600)
    parser.add_argument("--size", default="160x90")
    parser.add_argument("--model", default="seedvr2:nano")
    options = parser.parse_args()
    width, height = (int(n) for n in options.size.split("x"))
    seed = Path(__file__).parents[1] / "src/skipsr/assets/sample.mp4"
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for frames in (options.short, options.long):
            clip = Path(folder) / f"{frames}.mp4"
            make_clip(clip, seed, frames, (height, width))
            command = [sys.executable, "-c", "from skipsr.cli.main import main; main()"]
            command += ["upscale", str(clip), str(Path(folder) / f"{frames}-out.mp4")]
            command += ["--model", options.model]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            report = json.loads(out.splitlines()[-1])
            assert report["frames"] == frames, report
            peaks[frames] = report["peak_memory_gib"]
            print(f"{frames} frames: {peaks[frames]:.2f} GiB, {report['seconds']['total']:.0f} s")
    ratio = round(peaks[options.long] / peaks[options.short], 4)
    told = {"size": options.size, "model": options.model}
    save("long_clip", {**told, "peak_gib": peaks, "ratio": ratio})


if __name__ == "__main__":
    main()
