"""What skipping blocks saves: 320x180 to 1280x720, against the dense network and a known yardstick.

    python benchmarks/skipvsr_speed.py [--threads 2] [--clips DIR] [--quality DIR]

Timed in turn within one run, medians over rounds: the arithmetic of realesr-animevideov3 x4 (18
convolutions, random weights), the model dense, and the model at falling budgets down to all blocks
skipped. For each budget: blocks executed, share of the dense FLOPs (flow network included, first
frames as well), share of the dense time, and the one over the other (1 = skipping pays in full;
the aim is 0.85). --quality adds PSNR-Y and VMAF-NEG as `skipsr eval` measures them. On a machine
with other work `--clock cpu` counts the processor's time of all threads instead of the wall's;
stages are always the wall's. Writes `results/skipvsr_speed.json` and `.svg`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import HERE, save
from torch import Tensor, nn

from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.clip import Clip
from skipsr.evaluation.charts import curves
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.quality import Methods, measure_quality
from skipsr.evaluation.record import describe_run, rounded, write_text
from skipsr.loading import load_upscaler
from skipsr.memory import ask_for_huge_pages
from skipsr.settings import EvalSettings, RuntimeSettings, SkipSettings
from skipsr.tracing import Trace
from skipsr.video import open_source

LOW, HIGH = (180, 320), (720, 1280)
SAMPLE = Path(__file__).parents[1] / "src/skipsr/assets/sample.mp4"
BUDGETS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
AIM = 0.85
DENSE, YARDSTICK, FLOOR = "dense", "realesr-animevideov3", "all blocks skipped"
BUDGET = "budget "  # begins the names of the others
STYLE = """
text { fill: #5f6368; font: 12px system-ui, sans-serif; } .end { text-anchor: end; }
.mid { text-anchor: middle; } .grid { stroke: #dcdde0; } .dot { fill: var(--c); stroke: #fff; }
.curve { fill: none; stroke-width: 2; stroke: var(--c); } .s0 { --c: #8a8f98; }
.s1 { --c: #1f6fd6; } .s2 { --c: #d9730d; } .s3 { --c: #2a9d63; }
"""
Rows = Mapping[str, dict[str, Any]]


class Yardstick(nn.Module):
    """Layers of realesr-animevideov3 x4: 18 3x3 convolutions, 64 channels, PReLU between them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.PReLU(64)]
        for _ in range(16):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.PReLU(64)]
        self.body = nn.Sequential(*layers, nn.Conv2d(64, 48, 3, padding=1))

    def forward(self, frame: Tensor) -> Tensor:
        base = F.interpolate(frame, scale_factor=4, mode="nearest")
        return F.pixel_shuffle(self.body(frame), 4) + base

    @property
    def multiply_adds(self) -> int:
        """Per LR pixel."""
        return sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Conv2d))


def read_clips(paths: Sequence[Path], frames: int) -> list[Clip]:
    """The middle of each clip's first frames, 16:9, at 320x180."""
    found: list[Clip] = []
    for path in paths:
        with open_source(path) as source:
            high = next(source.clips(frames, 0)).frames
        h, w = high.shape[2:]
        rows, columns = min(h, w * LOW[0] // LOW[1]), min(w, h * LOW[1] // LOW[0])
        top, left = (h - rows) // 2, (w - columns) // 2
        high = high[:, :, top : top + rows, left : left + columns]
        low = F.interpolate(high, LOW, mode="bicubic", antialias=True, align_corners=False)
        found.append(Clip(low.clamp(0, 1)))
    return found


def yardstick_run(clips: Sequence[Clip], dtype: torch.dtype) -> Callable[[], None]:
    torch.manual_seed(0)
    network = Yardstick().to(dtype).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def run() -> None:
        for clip in clips:
            result = torch.empty(len(clip), 3, *HIGH)
            for i, frame in enumerate(clip.frames):
                low = frame[None].to(dtype, memory_format=torch.channels_last)
                result[i] = network(low)[0].clamp(0, 1)

    return run


def rounds(runs: Mapping[str, Callable[[], Any]], count: int, clock: str) -> Rows:
    """Median seconds of each run, and of its stages; all run in turn."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    for run in runs.values():
        run()  # warm-up
    times: dict[str, list[float]] = {name: [] for name in runs}
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            began = now()
            with Trace() as trace:
                run()
            times[name].append(now() - began)
            stages[name].append(trace.seconds)
    return {
        name: {
            "seconds": statistics.median(times[name]),
            "fastest": min(times[name]),
            "stages": {
                stage: statistics.median(found[stage] for found in stages[name])
                for stage in stages[name][0]
            },
        }
        for name in runs
    }


def add_shares(rows: Rows, upscalers: Mapping[str, Any], clips: Sequence[Clip]) -> None:
    """What each budget spent, in blocks, FLOPs and time."""
    always = cost_of(upscalers[DENSE].model.config).share(0.0)
    for name, upscaler in upscalers.items():
        maps = [upscaler.compute_map(clip, HIGH) for clip in clips]
        executed = sum(w.units_run for w in maps) / sum(w.units_total for w in maps)
        flops = always + (1 - always) * executed
        time_share = rows[name]["seconds"] / rows[DENSE]["seconds"]
        rows[name] |= {
            "budget": {DENSE: 1.0, FLOOR: always}.get(name) or float(name.removeprefix(BUDGET)),
            "executed": executed,
            "flops_share": flops,
            "time_share": time_share,
            "efficiency": flops / time_share,
        }


def add_quality(rows: Rows, upscalers: Mapping[str, Any], options: argparse.Namespace) -> None:
    """PSNR-Y and VMAF-NEG of each budget, means over clips."""
    settings = EvalSettings(
        degrade="bicubic", frames=options.quality_frames, metrics=("fidelity", "vmaf")
    )
    record = describe_run(options.quality, list(upscalers), upscalers[DENSE], {})
    methods = Methods(upscalers=upscalers)
    clips = find_clips(options.quality, settings, print)
    quality, _ = measure_quality(clips, methods, settings, record)
    for name in upscalers:
        means = quality.means(name)
        rows[name] |= {
            column: means[column] for column in ("psnr_y", "vmaf_neg") if column in means
        }
    for note in quality.notes:
        print(note)


def plot(rows: Rows, upscalers: Mapping[str, Any]) -> str:
    """Time and, where it was measured, quality against budget, one below the other."""
    points = [rows[name] for name in upscalers]
    share = {
        "time": [(row["budget"], row["time_share"]) for row in points],
        "FLOPs": [(row["budget"], row["flops_share"]) for row in points],
    }
    first = "of dense: time blue, FLOPs grey"
    charts = [curves(share, "budget", first, colours=(1, 0))]
    for column, name, colour in (("psnr_y", "PSNR-Y (dB)", 2), ("vmaf_neg", "VMAF-NEG", 3)):
        if found := [(row["budget"], row[column]) for row in points if column in row]:
            charts.append(curves({name: found}, "budget", name, colours=(colour,)))
    height = 270
    placed = "".join(
        chart.replace("<svg ", f'<svg y="{height * place}" width="640" height="260" ', 1)
        for place, chart in enumerate(charts)
    )
    box = f'viewBox="0 0 640 {height * len(charts)}"'
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    name = 'xmlns="http://www.w3.org/2000/svg"'
    return f"<svg {name} {box}><style>{STYLE}</style>{paper}{placed}</svg>\n"


def tell(rows: Rows, frames: int) -> None:
    """A table, and where the time goes."""
    print(f"{'':24}ms/frame  budget  blocks   FLOPs    time  FLOPs/time  speed-up")
    for name, row in rows.items():
        line = f"{name:24}{row['seconds'] * 1e3 / frames:8.2f}"
        if "budget" in row:
            line += f"{row['budget']:8.2f}{row['executed']:8.1%}{row['flops_share']:8.1%}"
            line += f"{row['time_share']:8.1%}{row['efficiency']:12.3f}"
        else:
            line += " " * 44
        print(f"{line}{rows[DENSE]['seconds'] / row['seconds']:10.2f}")
        stages = (f"{stage} {s * 1e3 / frames:.2f}" for stage, s in row["stages"].items())
        if row["stages"]:
            print(f"{'':8}{'  '.join(stages)}")
    worst = min(row["efficiency"] for row in rows.values() if "efficiency" in row)
    print(f"least FLOPs share over time share {worst:.3f}, aim {AIM}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="skipvsr:nano")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--frames", type=int, default=12, help="of each clip")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--clip", type=Path, default=SAMPLE, help="the clip to time on")
    where.add_argument("--clips", type=Path, help="a folder of clips to time on")
    parser.add_argument("--quality", type=Path, help="a folder of HR clips to measure on")
    parser.add_argument("--quality-frames", type=int, default=25)
    parser.add_argument("--name", default="skipvsr_speed", help="of the files in results/")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    ask_for_huge_pages()  # memory as the command line settles it
    torch.set_num_threads(options.threads)
    runtime = RuntimeSettings(device="cpu", dtype=options.dtype, weights=options.weights)
    skips = {DENSE: SkipSettings(dense=True)}
    skips |= {f"{BUDGET}{budget:g}": SkipSettings(budget=budget) for budget in options.budgets}
    skips[FLOOR] = SkipSettings(threshold=1.0)
    upscalers = {
        name: load_upscaler(options.model, s, runtime, {"skip": "blocks"})
        for name, s in skips.items()
    }
    dtype = upscalers[DENSE].dtype
    paths = [options.clip] if options.clips is None else sorted(options.clips.iterdir())
    clips = read_clips(paths, options.frames)
    frames = sum(map(len, clips))
    runs: dict[str, Callable[[], Any]] = {YARDSTICK: yardstick_run(clips, getattr(torch, dtype))}
    for name, upscaler in upscalers.items():
        runs[name] = lambda u=upscaler: [u.upscale(clip, HIGH) for clip in clips]
    rows = rounds(runs, options.rounds, options.clock)
    add_shares(rows, upscalers, clips)
    if options.quality is not None:
        add_quality(rows, upscalers, options)
    tell(rows, frames)
    write_text(HERE / "results" / f"{options.name}.svg", plot(rows, upscalers))
    told = ("model", "threads", "clock", "rounds")
    setup = {name: getattr(options, name) for name in told} | {
        "dtype": dtype,
        "low": LOW,
        "high": HIGH,
        "clips": [path.name for path in paths],
        "frames": frames,
        "quality": options.quality and options.quality.resolve().name,
        "yardstick_multiply_adds": Yardstick().multiply_adds,
    }
    found = rounded({**setup, "rows": rows})
    assert isinstance(found, dict)
    save(options.name, found)


if __name__ == "__main__":
    main()
