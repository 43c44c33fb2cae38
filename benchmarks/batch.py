"""What do two workers save? The same files one after the other and side by side.

    python benchmarks/batch.py [--files 12] [--frames 6] [--size 96x54]

Copies of a clip that drifts are enlarged by four with the bundled model: by one worker with one
thread, by one with two threads, and by two with one thread each, each as `skipsr batch` from
nothing, so that starting the workers counts. Writes `benchmarks/results/batch.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import save

from skipsr.clip import Clip
from skipsr.video import frames_info, open_target

WAYS = {"one worker, one thread": ("cpu:1", 1), "one worker, two threads": ("cpu:1", 2),
        "two workers, one thread each": ("cpu:2", 2)}  # fmt: skip


def make_clip(path: Path, frames: int, height: int, width: int, seed: int) -> None:
    """Texture that drifts by a pixel a frame."""
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    clip = Clip.from_array(np.stack([np.roll(picture, i, 1) for i in range(frames)]))
    with open_target(path, frames_info((height, width), count=frames), (height, width)) as target:
        target.write(clip)


def run(source: Path, out: Path, devices: str, threads: int) -> float:
    """Seconds of a batch."""
    command = [sys.executable, "-m", "skipsr", "batch", source, out, "--devices", devices]
    done = subprocess.run(
        [*map(str, command), "--device", "auto"],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failed"] == report["skipped"] == 0
    return report["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--size", default="96x54")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for i in range(options.files):
            make_clip(source / f"{i}.mp4", options.frames, height, width, i)
        for way, (devices, threads) in WAYS.items():
            seconds[way] = run(source, Path(folder) / way.replace(" ", "-"), devices, threads)
            print(f"{way}: {seconds[way]:.1f} s", flush=True)
    first, second, last = seconds.values()
    save(
        "batch",
        {
            "files": options.files,
            "frames": options.frames,
            "size": options.size,
            "seconds": seconds,
            "ratio_to_one_thread": round(last / first, 3),
            "ratio_to_two_threads": round(last / second, 3),
        },
    )


if __name__ == "__main__":
    main()
