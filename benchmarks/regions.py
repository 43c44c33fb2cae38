"""What skipping saves and what it costs, clip by clip, in one table from one run.

    python benchmarks/regions.py DIR [--model skipvsr:nano] [--frames 25] [--rounds 3] [--crf 28]

Every clip of DIR is shrunk by four (bicubic with antialias, 8 bits; with --crf compressed by x264
as well) and enlarged again: with everything computed, and with the model's default (or --quality,
--tau, --budget). The two are timed in turn within one run, and the time is the ratio of what their
stages take in the fastest of the rounds, each by itself. The network's are measured in memory that
is kept from round to round, as a job keeps it from window to window; whole jobs, of one window
each, begin without it, and include reading PNG files and writing H.264. Quality is measured on the
same frames: PSNR-Y, VMAF-NEG, the screen-door pattern, the flicker at mask borders. `oracle` is the
share of 32x32-pixel cells in which the dense result and the base differ by a mean square
of at most 1e-4. Writes `benchmarks/results/NAME.json` and `.md`.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import HERE, save

from skipsr.backbones.contract import Upscaled, Upscaler, arrange
from skipsr.clip import Clip
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.record import write_text
from skipsr.evaluation.samples import Sample, read_sample, write_low
from skipsr.loading import load_upscaler
from skipsr.memory import ask_for_huge_pages, keep_freed
from skipsr.metrics.fidelity import psnr_y
from skipsr.metrics.flicker import border_flicker
from skipsr.metrics.metric import MetricError
from skipsr.metrics.pattern import VISIBLE, pattern
from skipsr.metrics.vmaf import vmaf
from skipsr.pipeline.job import upscale_video
from skipsr.pipeline.plan import plan_job
from skipsr.settings import EvalSettings, JobSettings, RuntimeSettings, SkipSettings
from skipsr.tracing import Trace
from skipsr.video import open_source

SETTINGS = JobSettings(scale=4.0)
JOBS = 2  # rounds of whole jobs
SIDE = 32  # pixels of an oracle's cell
SERVES = 1e-4
Row = dict[str, Any]


def compressed(sample: Sample, crf: int) -> Sample:
    """The LR clip after x264, preset medium, 4:2:0."""
    import av  # noqa: PLC0415 - only this needs an encoder at hand

    frames = Clip(sample.low).to_array()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "low.mp4"
        with av.open(str(path), "w") as container:
            options = {"crf": str(crf), "preset": "medium", "x264-params": "cpu-independent=1"}
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        with open_source(path) as source:
            low = next(source.clips(len(frames), 0)).frames
    return replace(sample, low=low)


@dataclass
class Runs:
    """What the rounds of one way gave: seconds of their stages, and the result."""

    network: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    job: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    done: Upscaled | None = None


def run_network(upscaler: Upscaler, sample: Sample, runs: Runs) -> None:
    """All frames at once, as one window of a job."""
    runs.done = None
    with Trace(device=upscaler.device) as trace:
        runs.done = upscaler.upscale(Clip(sample.low), sample.size)
    runs.network.append(trace.seconds)


def run_job(upscaler: Upscaler, low: Path, runs: Runs) -> None:
    """The whole job, from PNG files to H.264."""
    with tempfile.TemporaryDirectory() as name:
        report = upscale_video(low, Path(name) / "high.mp4", upscaler, SETTINGS)
    runs.job.append({stage: s for stage, s in report.seconds.items() if stage != "total"})


def measure(upscalers: Mapping[str, Upscaler], sample: Sample, rounds: int) -> Row:
    """Both ways of one clip."""
    assert sample.truth is not None
    found = {name: Runs() for name in upscalers}
    on_cpu = upscalers["dense"].device == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        low = write_low(sample, Path(folder))
        plan = plan_job(low, Path(folder) / "high.mp4", upscalers["dense"].limits, SETTINGS)
        assert plan.window >= len(sample.low), "jobs are to be of one window"
        for upscaler in upscalers.values():
            arrange(upscaler, plan.memory)
        with keep_freed(on_cpu):
            for turn in in_turn(upscalers, rounds):
                run_network(upscalers[turn], sample, found[turn])
        for turn in in_turn(upscalers, JOBS):
            run_job(upscalers[turn], low, found[turn])
    base = upscalers["default"].upsample(Clip(sample.low), sample.size).frames
    row: Row = {"clip": sample.name, "size": sample.size, "frames": len(sample.low)}
    shown: dict[str, Upscaled] = {}
    for name, runs in found.items():
        assert runs.done is not None
        shown[name] = runs.done
        frames = runs.done.clip.frames
        tiles = pattern(frames)
        row[name] = {
            "seconds": sum(fastest(runs.network).values()),
            "job_seconds": sum(fastest(runs.job).values()),
            "stages": fastest(runs.network),
            "psnr_y": psnr_y(frames, sample.truth).mean().item(),
            **vmaf(frames, sample.truth),
            "pattern_worst": tiles.max().item(),
            "pattern_tiles": (tiles > VISIBLE).float().mean().item(),
        }
    computed = shown["default"].compute_map
    try:
        flicker = border_flicker(
            shown["default"].clip.frames, sample.truth, computed.keep, computed.cell_size
        )
        row["default"]["flicker"] = {"border": flicker.border, "calm": flicker.calm}
    except MetricError as problem:
        row["default"]["flicker"] = str(problem)
    row["time"] = row["default"]["seconds"] / row["dense"]["seconds"]
    row["job_time"] = row["default"]["job_seconds"] / row["dense"]["job_seconds"]
    row["skipped"] = 1 - computed.fractions.mean().item()
    gap = (shown["dense"].clip.frames - base).square().mean(1, keepdim=True)
    cells = F.avg_pool2d(gap, SIDE, ceil_mode=True)
    row["oracle"] = (cells <= SERVES).float().mean().item()
    return row


def in_turn(ways: Iterable[str], rounds: int) -> Iterator[str]:
    """Each way in each round, now one first and now the other, so that a drift of speed cancels."""
    order = list(ways)
    for number in range(rounds):
        yield from order if number % 2 == 0 else reversed(order)


def fastest(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds of each stage in its fastest round: what else a machine does only adds, and is rarely
    away for a whole round."""
    return {stage: min(stages[stage] for stages in rounds) for stage in rounds[0]}


def summary(row: Row) -> Row:
    """What the table shows of a clip."""
    dense, default = row["dense"], row["default"]
    return {
        "skipped": row["skipped"],
        "oracle 32": row["oracle"],
        "time": row["time"],
        "bound": 1.05 - 0.8 * row["skipped"],
        "job": row["job_time"],
        "PSNR-Y": dense["psnr_y"],
        "ΔPSNR-Y": default["psnr_y"] - dense["psnr_y"],
        "NEG": dense["vmaf_neg"],
        "ΔNEG": default["vmaf_neg"] - dense["vmaf_neg"],
        "ΔVMAF": default["vmaf"] - dense["vmaf"],
        "worst": default["pattern_worst"],
        "dense worst": dense["pattern_worst"],
        "tiles": default["pattern_tiles"],
        "dense tiles": dense["pattern_tiles"],
    }


def table(rows: list[Row]) -> str:
    """Markdown: a line for each clip, and the means."""
    found = [summary(row) for row in rows]
    names = list(found[0])
    means = {name: statistics.fmean(each[name] for each in found) for name in names}
    lines = ["| clip | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, each in zip([*rows, {"clip": "**mean**"}], [*found, means], strict=True):
        lines.append(f"| {row['clip']} | " + " | ".join(f"{each[n]:.3f}" for n in names) + " |")
    return "\n".join(lines) + "\n"


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--model", default="skipvsr:nano")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--crf", type=int, help="compress the LR clips by x264 first")
    parser.add_argument("--only", default="")
    parser.add_argument("--name", default="regions", help="of the files in results/")
    for name in ("quality", "tau", "budget", "speed"):
        parser.add_argument(f"--{name}", type=float)
    return parser.parse_args()


def main() -> None:
    options = read_options()
    ask_for_huge_pages()  # memory as the command line settles it
    torch.set_num_threads(options.threads)
    asked = {name: getattr(options, name) for name in ("quality", "tau", "budget", "speed")}
    asked = {name: value for name, value in asked.items() if value is not None}
    runtime = RuntimeSettings(dtype=options.dtype, weights=options.weights)
    upscalers: dict[str, Upscaler] = {
        "dense": load_upscaler(options.model, SkipSettings(dense=True), runtime),
        "default": load_upscaler(options.model, SkipSettings(**asked), runtime),
    }
    settings = EvalSettings(degrade="bicubic", frames=options.frames, only=options.only)
    items = find_clips(options.dir, settings, sys.exit).items  # all of them or none
    rows: list[Row] = []
    for number, item in enumerate(items):
        sample = read_sample(item, settings, smallest=upscalers["dense"].limits.smallest)
        sample = sample if options.crf is None else compressed(sample, options.crf)
        if not number:
            for upscaler in upscalers.values():  # warm-up
                upscaler.upscale(Clip(sample.low[:3]), sample.size)
        rows.append(measure(upscalers, sample, options.rounds))
        print(table(rows[-1:]).splitlines()[2], flush=True)
    text = table(rows)
    print(text)
    write_text(HERE / "results" / f"{options.name}.md", text)
    setup = {
        "model": options.model,
        "settings": asked,
        "dtype": upscalers["dense"].dtype,
        "threads": options.threads,
        "rounds": options.rounds,
        "rounds of jobs": JOBS,
        "crf": options.crf,
        "clips": options.dir.resolve().name,
    }
    save(options.name, {**setup, "rows": rows})


if __name__ == "__main__":
    main()
