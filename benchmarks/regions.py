"""What skipping saves and what it costs, clip by clip, in one table from one run.

    python benchmarks/regions.py DIR [--model skipvsr:nano] [--frames 25] [--rounds 3] [--crf 28]

Every clip of DIR is shrunk by four (bicubic with antialias, 8 bits; with --crf compressed by x264
as well) and enlarged again: with everything computed, and with the model's default (or --quality,
--tau, --budget). The two are timed in turn within one run, medians over rounds: the network's time
is that of the upscaler, the job's includes reading PNG files and writing H.264. Quality is measured
on the same frames: PSNR-Y, VMAF-NEG, the screen-door pattern, the flicker at mask borders. `oracle`
is the share of 32x32-pixel cells in which the dense result and the plain picture differ by a mean
square of at most 1e-4. Writes `benchmarks/results/NAME.json` and `.md`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import HERE, save

from skipsr import backbones
from skipsr.backbones.contract import Upscaled, Upscaler
from skipsr.cli.allocator import ask_for_huge_pages, map_blocks_from
from skipsr.clip import Clip
from skipsr.evaluation.record import write_aside
from skipsr.evaluation.samples import Sample, choose_items, read_sample, write_low
from skipsr.evaluation.settings import EvalSettings
from skipsr.loading import load_upscaler
from skipsr.metrics.fidelity import psnr_y
from skipsr.metrics.flicker import border_flicker
from skipsr.metrics.metric import MetricError
from skipsr.metrics.pattern import VISIBLE, pattern
from skipsr.metrics.vmaf import vmaf
from skipsr.pipeline.job import upscale_video
from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings
from skipsr.tracing import Trace
from skipsr.video import open_source

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
            options = {"crf": str(crf), "preset": "medium"}
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        with open_source(path) as source:
            low = next(source.clips(len(frames), 0)).frames
    return Sample(sample.name, low, sample.truth, sample.scale)


def run(upscaler: Upscaler, sample: Sample) -> tuple[Upscaled, Trace]:
    with Trace() as trace:
        done = upscaler.upscale(Clip(sample.low), sample.size)
    return done, trace


def job_seconds(upscaler: Upscaler, sample: Sample) -> float:
    """Of the whole job, from PNG files to H.264."""
    with tempfile.TemporaryDirectory() as name:
        low = write_low(sample, Path(name))
        began = time.perf_counter()
        upscale_video(low, Path(name) / "high.mp4", upscaler, JobSettings(scale=4.0))
        return time.perf_counter() - began


def measure(upscalers: Mapping[str, Upscaler], sample: Sample, rounds: int) -> Row:
    """Both ways of one clip."""
    assert sample.truth is not None
    seconds: dict[str, list[float]] = {name: [] for name in upscalers}
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in upscalers}
    results: dict[str, Upscaled] = {}
    for _ in range(rounds):
        for name, upscaler in upscalers.items():
            results[name], trace = run(upscaler, sample)
            seconds[name].append(trace.total)
            stages[name].append(trace.seconds)
    plain = upscalers["dense"].enlarge(Clip(sample.low), sample.size).frames
    row: Row = {"clip": sample.name, "size": sample.size, "frames": len(sample.low)}
    for name, upscaler in upscalers.items():
        frames = results[name].clip.frames
        tiles = pattern(frames)
        row[name] = {
            "seconds": statistics.median(seconds[name]),
            "job_seconds": job_seconds(upscaler, sample),
            "stages": {
                stage: statistics.median(found.get(stage, 0.0) for found in stages[name])
                for stage in stages[name][0]
            },
            "psnr_y": psnr_y(frames, sample.truth).mean().item(),
            **vmaf(frames, sample.truth),
            "pattern_worst": tiles.max().item(),
            "pattern_tiles": (tiles > VISIBLE).float().mean().item(),
        }
    work = results["default"].work
    try:
        flicker = border_flicker(results["default"].clip.frames, sample.truth, work.keep, work.cell)
        row["default"]["flicker"] = {"border": flicker.border, "calm": flicker.calm}
    except MetricError as problem:
        row["default"]["flicker"] = str(problem)
    row["skipped"] = 1 - work.share.mean().item()
    gap = (results["dense"].clip.frames - plain).square().mean(1, keepdim=True)
    cells = F.avg_pool2d(gap, SIDE, ceil_mode=True)
    row["oracle"] = (cells <= SERVES).float().mean().item()
    return row


def summary(row: Row) -> Row:
    """What the table shows of a clip."""
    dense, default = row["dense"], row["default"]
    return {
        "skipped": row["skipped"],
        "oracle 32": row["oracle"],
        "time": default["seconds"] / dense["seconds"],
        "bound": 1.05 - 0.8 * row["skipped"],
        "job": default["job_seconds"] / dense["job_seconds"],
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
    map_blocks_from(backbones.family(options.model)[0].mapped_from)
    torch.set_num_threads(options.threads)
    asked = {name: getattr(options, name) for name in ("quality", "tau", "budget", "speed")}
    asked = {name: value for name, value in asked.items() if value is not None}
    runtime = RuntimeSettings(dtype=options.dtype, weights=options.weights)
    upscalers: dict[str, Upscaler] = {
        "dense": load_upscaler(options.model, SkipSettings(dense=True), runtime),
        "default": load_upscaler(options.model, SkipSettings(**asked), runtime),
    }
    settings = EvalSettings(degrade="bicubic", frames=options.frames, only=options.only)
    items = choose_items(options.dir, settings)
    rows: list[Row] = []
    for number, item in enumerate(items):
        sample = read_sample(item, settings, smallest=upscalers["dense"].limits.smallest)
        sample = sample if options.crf is None else compressed(sample, options.crf)
        if not number:
            for upscaler in upscalers.values():
                run(upscaler, Sample(sample.name, sample.low[:3], None, sample.scale))  # warm-up
        rows.append(measure(upscalers, sample, options.rounds))
        print(table(rows[-1:]).splitlines()[2], flush=True)
    text = table(rows)
    print(text)
    write_aside(HERE / "results" / f"{options.name}.md", text)
    setup = {
        "model": options.model,
        "settings": asked,
        "dtype": upscalers["dense"].dtype,
        "threads": options.threads,
        "rounds": options.rounds,
        "crf": options.crf,
        "clips": options.dir.resolve().name,
    }
    save(options.name, {**setup, "rows": rows})


if __name__ == "__main__":
    main()
