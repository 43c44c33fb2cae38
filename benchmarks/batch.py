"""What do two workers save? The same files one after the other and side by side.

    python benchmarks/batch.py [--files 12] [--rounds 3]

Copies of the bundled clip (48 frames of 160x88) are enlarged by two with `skipvsr:nano`: by one
worker with one thread, and by two with one thread each, both times as `skipsr batch` from nothing,
so that starting workers counts. Both ways take turns, and of each the fastest round counts, since
what else a machine does only adds. Writes `results/batch.json`.
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

from record import save

WAYS = {
    "one worker, one thread": ("cpu:1", 1),
    "two workers, one thread each": ("cpu:2", 2),
}


def run(source: Path, out: Path, devices: str, threads: int) -> dict[str, float]:
    """Seconds of a batch, and of the whole command."""
    command = [sys.executable, "-m", "skipsr", "batch", source, out, "--devices", devices]
    command += ["--scale", "2"]
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
    assert report["done"] == len(list(source.iterdir()))
    return {"batch": report["seconds"], "command": round(command_seconds, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for i in range(options.files):
            shutil.copy(str(files("skipsr") / "assets" / "sample.mp4"), source / f"{i}.mp4")
        for number in range(options.rounds):
            for way, (devices, threads) in WAYS.items():
                out = Path(folder) / f"{way.replace(' ', '-')}-{number}"
                seconds[way].append(run(source, out, devices, threads))
                print(way, seconds[way][-1], flush=True)
    one, two = (min(each["command"] for each in found) for found in seconds.values())
    save("batch", {"files": options.files, "seconds": seconds, "ratio": round(two / one, 3)})


if __name__ == "__main__":
    main()
