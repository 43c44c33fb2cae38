"""Is anything lost, or made twice, when a job is killed? A tiny clip, and `kill -9` at random.

A job is killed at random moments and started again until it is done; then another is begun, until
there were so many kills. Every result is compared with that of a run that nobody killed.

python benchmarks/kill_minus_nine.py [--kills 20] [--seconds 180] [--size 64x36] [--seed 0]
"""

import argparse
import hashlib
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from record import HERE, save

from skipsr.backbones.contract import Upscaled
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import run_job
from skipsr.pipeline.manifest import job_folder, load_manifest
from skipsr.pipeline.plan import plan_job
from skipsr.settings import JobSettings

RATE = 10  # frames per second
MODEL = "skipvsr:nano"


@dataclass(frozen=True)
class Run:
    """One process, in frames."""

    seconds: float  # after which it was killed, or done
    killed: bool
    computed: int  # by windows that it had run
    again: int  # of these, in windows that had run before
    kept: int  # when it had ended


def make_clip(path: Path, seconds: int, size: tuple[int, int]) -> None:
    """Moving detail at uneven times, and a tone."""
    height, width = size
    picture = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    picture = np.kron(picture, np.ones((4, 4, 1), np.uint8))
    with av.open(str(path), "w") as output:
        video = output.add_stream(
            "libx264", rate=RATE, options={"crf": "18", "x264-params": "cpu-independent=1"}
        )
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream("aac", rate=48000)
        for i in range(seconds * RATE):
            image = np.roll(picture, (i // 3, i), (0, 1))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts, frame.time_base = 1000 // RATE * i + 7 * (i % 3), Fraction(1, 1000)
            output.mux(video.encode(frame))
        for i in range(seconds * 48000 // 1024):
            wave = np.sin(np.arange(i * 1024, (i + 1) * 1024) / 20).astype(np.float32)[None] / 4
            chunk = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            chunk.sample_rate, chunk.pts = 48000, i * 1024
            output.mux(sound.encode(chunk))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))


def work(source: Path, target: Path, log: Path) -> None:
    """What is killed: the job, which tells of every window when it has run."""
    upscaler = load_upscaler(MODEL)
    plan = plan_job(source, target, upscaler.limits, JobSettings(scale=2))
    with log.open("a") as file:

        def tell(result: Upscaled) -> None:
            file.write(f"{result.clip.start} {len(result.clip)}\n")
            file.flush()

        run_job(plan, upscaler, note=tell)


def start(source: Path, target: Path, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, __file__, "--work", str(source), str(target), str(log)]
    return subprocess.Popen(command)


def windows(log: Path) -> dict[int, int]:
    """Frames of the windows that have run, by where they begin."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return {int(begin): int(frames) for begin, frames in map(str.split, lines)}


def fingerprint(path: Path) -> dict[str, str]:
    """Hashes of the frames, of the video's packets with their times, and of the sound's."""
    found = {name: hashlib.sha256() for name in ("frames", "video", "audio")}
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            found["frames"].update(frame.to_ndarray().tobytes() + f"{frame.pts}".encode())
    with av.open(str(path)) as container:
        for packet in container.demux():
            told = f"{packet.pts} {packet.dts} {packet.time_base}".encode()
            found[packet.stream.type].update(told + bytes(packet))
    return {name: value.hexdigest() for name, value in found.items()}


def kept(target: Path) -> int:
    manifest = load_manifest(job_folder(target))
    return 0 if manifest is None else manifest.frames


def run_once(source: Path, target: Path, before: list[dict[int, int]], delay: float) -> Run:
    """Start a job and kill it after `delay` seconds, if it is not done by then.

    Args:
        before: the windows of every run of this job so far; those of this one are added.
    """
    log = target.with_name(f"{target.stem}-{len(before)}.log")
    began, process = time.monotonic(), start(source, target, log)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    assert process.wait() in (0, -signal.SIGKILL), process.returncode
    seconds = round(time.monotonic() - began, 2)
    ran = windows(log)
    again = sum(frames for begin, frames in ran.items() if any(begin in one for one in before))
    before.append(ran)
    killed = process.returncode != 0
    return Run(seconds, killed, sum(ran.values()), again, kept(target) if killed else 0)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    width, height = (int(n) for n in options.size.split("x"))
    source, whole = folder / "in.mp4", folder / "whole.mp4"
    make_clip(source, options.seconds, (height, width))
    began, process = time.monotonic(), start(source, whole, folder / "whole.log")
    while not (folder / "whole.log").exists():
        time.sleep(0.05)
    ready = time.monotonic() - began
    assert process.wait() == 0
    total = time.monotonic() - began
    plan = plan_job(source, folder / "x.mp4", load_upscaler(MODEL).limits, JobSettings(scale=2))
    in_segment = math.ceil(plan.segment / (plan.window - plan.overlap))  # windows
    expected, drawn = fingerprint(whole), random.Random(options.seed)
    runs: list[Run] = []
    equal = jobs = kills = 0
    while kills < options.kills:
        jobs += 1
        target = folder / f"out{jobs}.mp4"
        before: list[dict[int, int]] = []
        while not target.exists():
            delay = drawn.uniform(ready / 2, ready + (total - ready) / 4)
            runs.append(run_once(source, target, before, delay if kills < options.kills else 600.0))
            kills += runs[-1].killed
            print(runs[-1], flush=True)
        equal += fingerprint(target) == expected
    return {
        "size": options.size,
        "seconds": options.seconds,
        "frames": options.seconds * RATE,
        "window": plan.window,
        "overlap": plan.overlap,
        "segment": plan.segment,
        "run_for_a_segment": in_segment * plan.window,
        "uninterrupted_seconds": round(total, 1),
        "runs": [asdict(run) for run in runs],
        "kills": kills,
        "jobs": jobs,
        "equal": equal,
        "most_made_again": max(run.again for run in runs),
    }


def table(figures: dict[str, object]) -> str:
    rows = ["| run | frames run | of these again | kept |", "|---|---|---|---|"]
    runs = figures["runs"]
    assert isinstance(runs, list)
    for run in runs:
        end = "killed after {seconds} s | {computed} | {again} | {kept}"
        done = "done after {seconds} s | {computed} | {again} | all"
        rows.append(f"| {(end if run['killed'] else done).format(**run)} |")
    said = (
        "{frames} frames of {size}, windows of {window} that share {overlap}, segments of at least "
        "{segment}, for which {run_for_a_segment} frames are run. No run made more than "
        "{most_made_again} frames again. {equal} of {jobs} results are equal to the uninterrupted "
        "one: frames, packets, times, sound."
    )
    return "\n".join((said.format(**figures), "", *rows, ""))


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(*map(Path, sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--size", default="64x36")
    parser.add_argument("--seed", type=int, default=0)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(parser.parse_args(), Path(folder))
    (HERE / "results" / "kill_minus_nine.md").write_text(table(figures))
    print(table(figures))
    save("kill_minus_nine", figures)
    if figures["equal"] != figures["jobs"]:
        sys.exit("results differ")
    if figures["most_made_again"] > figures["run_for_a_segment"]:
        sys.exit("more than a segment was made again")


if __name__ == "__main__":
    main()
