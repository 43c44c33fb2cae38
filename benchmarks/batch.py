"""What do two workers save, of many files, and of one long video that they share?

    python benchmarks/batch.py [--files 12] [--frames 1500] [--rounds 3]

Copies of the bundled clip (48 frames of 160x88), enlarged by four, and one clip that shows it
forwards and backwards until it is long, by two, are made with `skipvsr:nano`: by one worker with
one thread, and by two with one thread each, both times as `skipsr batch` from nothing, so that
starting workers counts. Both ways take turns, and of each the fastest round counts, since what else
a machine does only adds. Of the long video both results have to be the same file. Writes
`results/batch.json`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
from record import save

from skipsr import Clip
from skipsr.video import frames_info, open_source, open_target

SAMPLE = Path(str(files("skipsr"))) / "assets" / "sample.mp4"
WAYS = {
    "one worker, one thread": ("cpu:1", 1),
    "two workers, one thread each": ("cpu:2", 2),
}


Seconds = dict[str, float]


def run(source: Path, out: Path, devices: str, threads: int, scale: int) -> Seconds:
    """Seconds of a batch, and of the whole command."""
    command = [sys.executable, "-m", "skipsr", "batch", source, out, "--devices", devices]
    command += ["--scale", str(scale)]
    began = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=True,
    )
    command_seconds = time.perf_counter() - began
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["done"] == (len(list(source.iterdir())) if source.is_dir() else 1)
    return {"batch": report["seconds"], "command": round(command_seconds, 3)}


def make_long(path: Path, frames: int) -> None:
    """The bundled clip, forwards and backwards."""
    with open_source(SAMPLE) as reader:
        shown = np.concatenate([clip.to_array() for clip in reader.clips(48, 0)])
    there_and_back = [*range(len(shown)), *range(len(shown) - 2, 0, -1)]
    order = np.resize(there_and_back, frames)
    info = frames_info(shown.shape[1:3], count=frames)
    with open_target(path, info, shown.shape[1:3]) as writer:
        for begin in range(0, frames, 100):
            writer.write(Clip.from_array(shown[order[begin : begin + 100]], begin))


def compare(
    source: Path, folder: Path, rounds: int, scale: int
) -> tuple[dict[str, list[Seconds]], float]:
    """Seconds of each way, and the ratio of the fastest."""
    seconds: dict[str, list[Seconds]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way, (devices, threads) in WAYS.items():
            out = folder / f"{way.replace(' ', '-')}-{number}"
            seconds[way].append(run(source, out, devices, threads, scale))
            print(source.name, way, seconds[way][-1], flush=True)
    one, two = (min(each["command"] for each in found) for found in seconds.values())
    return seconds, round(two / one, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        many, long = folder / "many", folder / "long.mp4"
        many.mkdir()
        for i in range(options.files):
            shutil.copy(SAMPLE, many / f"{i}.mp4")
        make_long(long, options.frames)
        seconds, ratio = compare(many, folder / "of-many", options.rounds, 4)
        of_long, ratio_of_long = compare(long, folder / "of-long", options.rounds, 2)
        made = {path.read_bytes() for path in (folder / "of-long").glob("*/long.mp4")}
        assert len(made) == 1, "the results differ"
    figures = {"files": options.files, "seconds": seconds, "ratio": ratio}
    figures |= {"frames": options.frames, "seconds_long": of_long, "ratio_long": ratio_of_long}
    save("batch", figures)


if __name__ == "__main__":
    main()
