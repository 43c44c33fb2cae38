"""How much each way to choose cells can skip at equal loss, and what choosing costs.

    python benchmarks/predictors.py DIR [--frames 9] [--model skipvsr:nano]

Every clip of DIR is shrunk by four (bicubic with antialias, 8 bits) and enlarged again once, with
everything computed. Then 16x16-pixel cells of that result are replaced by the base, the picture
that a model shows where it is not run, in the order that a measure gives them, lowest first and
across all frames. A measure's figure is the largest share of cells that one threshold of it can
replace while the clip's mean PSNR-Y stays within `--loss` of the dense result's. The model is not
run again, so what skipped neighbours do to kept cells is not in it, nor are strips, steadiness and
soft borders.

`oracle` goes by the true mean square between the dense result and the base, `need` by
the bundled predictor's head for the model, `lost` by its head for what plain upsampling loses,
`halved` by how much LR loses when halved and enlarged again, the largest of 3x3 cells, and `latent`
(of models with a mask predictor) by that, which reads the encoded clip. Times are a measure's own,
medians over rounds; the latent predictor's includes the encoding. Writes
`benchmarks/results/predictors_MODEL.json` and `.md`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from record import HERE, save
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.backbones.trainable import Denoiser
from skipsr.clip import Clip, extend
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.record import rounded, write_text
from skipsr.evaluation.samples import Sample, read_sample
from skipsr.loading import load_upscaler
from skipsr.memory import ask_for_huge_pages
from skipsr.metrics.fidelity import CAP, luma
from skipsr.metrics.metric import levels
from skipsr.nn.resize import resize_bicubic
from skipsr.settings import EvalSettings, RuntimeSettings, SkipSettings
from skipsr.skipping.need import CELL, LOST, head_of, load_need
from skipsr.timeline import TOKEN_SIDE, token_layer

SIDE = TOKEN_SIDE  # pixels of a cell in the result: a token's side, and four times CELL
Measure = Callable[[Sample], Tensor]  # `t rows columns`: the higher, the more a cell is needed
Row = dict[str, Any]


def by_need(head: int) -> Measure:
    """The bundled predictor's ln error."""
    predictor = load_need()
    return lambda sample: predictor(sample.low).mean[:, head]


def halved(sample: Sample) -> Tensor:
    """What LR loses when halved and enlarged again; a cell counts as its worst neighbour."""
    low = sample.low
    half = F.avg_pool2d(low, 2)
    again = F.interpolate(half, low.shape[2:], mode="bilinear", align_corners=False)
    cells = F.avg_pool2d((low - again).square().mean(1, keepdim=True), CELL, ceil_mode=True)
    return F.max_pool2d(cells, 3, 1, 1)[:, 0]


def by_latent(upscaler: Upscaler) -> Measure:
    """The mask predictor's logits at its usual tau, a layer's for each of its frames."""
    model: Denoiser = upscaler.model  # pyright: ignore

    def scores(sample: Sample) -> Tensor:
        rows, columns = (-(-side // SIDE) for side in sample.size)
        padded = upscaler.limits.pad_side(sample.size[0]), upscaler.limits.pad_side(sample.size[1])
        frames = resize_bicubic(sample.low.to(upscaler.device), sample.size)
        frames = extend(frames, upscaler.limits.pad_frames(len(frames)), padded)
        latent = model.encode(rearrange(frames, "t c h w -> 1 c t h w"))
        layers = [token_layer(frame) for frame in range(len(sample.low))]
        return model.scores(latent)[0].float().cpu()[layers, :rows, :columns]

    return scores


def measures_of(upscaler: Upscaler) -> dict[str, Measure]:
    """All that are to be had for a model but the oracle."""
    found: dict[str, Measure] = {"need": by_need(head_of(upscaler.name))}
    found |= {"lost": by_need(LOST), "halved": halved}
    model = getattr(upscaler, "model", None)
    if isinstance(model, Denoiser) and model.predicts:
        found["latent"] = by_latent(upscaler)
    return found


def timed(measure: Measure, sample: Sample, rounds: int) -> tuple[Tensor, float]:
    """A measure's values, and the median of its seconds after a warm-up."""
    values = measure(sample)
    taken: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        measure(sample)
        taken.append(time.perf_counter() - began)
    return values, statistics.median(taken)


def cell_sums(values: Tensor) -> Tensor:
    """The sum of `t h w` over each cell, `t rows columns`; the last ones may be cut."""
    h, w = values.shape[1:]
    whole = F.pad(values, (0, -w % SIDE, 0, -h % SIDE))
    return rearrange(whole, "t (r p) (c q) -> t r p c q", p=SIDE, q=SIDE).sum((2, 4))


def luma_errors(frames: Tensor, truth: Tensor) -> Tensor:
    """Of each cell, squared errors of 8-bit luma, `t rows columns`, as float64."""
    return cell_sums((luma(levels(frames)) - luma(levels(truth))).double().square())


def mean_psnr(errors: Tensor, pixels: int) -> Tensor:
    """PSNR-Y of summed errors `t ...`, averaged over the frames."""
    return (10 * torch.log10(255**2 * pixels / errors)).clamp(max=CAP).mean(0)


def largest_share(need: Tensor, dense: Tensor, plain: Tensor, pixels: int, loss: float) -> float:
    """The share of cells below the highest threshold at which PSNR-Y loses no more than `loss`.

    All thresholds are tried, since PSNR may rise before it falls: the errors of both pictures add
    up cell by cell, so the clip after one more cell is a sum away.

    Args:
        need, dense, plain: a measure, and the errors of both pictures, `t rows columns`.
        pixels: of a frame.
    """
    order = need.flatten().argsort()
    frame = torch.arange(len(need)).repeat_interleave(need[0].numel())[order]
    gained = (plain - dense).flatten()[order]
    whole = dense.flatten(1).sum(1)
    steps = torch.stack([torch.where(frame == t, gained, 0.0).cumsum(0) for t in range(len(need))])
    found = mean_psnr((whole[:, None] + steps).clamp_min(0), pixels)
    ranked = need.flatten()[order]
    apart = torch.ones_like(ranked, dtype=torch.bool)
    apart[:-1] = ranked[1:] != ranked[:-1]  # no threshold parts equal values
    serves = (apart & (found >= mean_psnr(whole, pixels) - loss)).nonzero()
    return (int(serves[-1]) + 1) / len(order) if len(serves) else 0.0


@torch.inference_mode()
def measure_clip(
    upscaler: Upscaler, measures: Mapping[str, Measure], sample: Sample, options: argparse.Namespace
) -> Row:
    """All measures on one clip."""
    assert sample.truth is not None
    began = time.perf_counter()
    dense = upscaler.upscale(Clip(sample.low), sample.size).clip.frames
    seconds = time.perf_counter() - began
    plain = upscaler.upsample(Clip(sample.low), sample.size).frames
    needs = {"oracle": cell_sums((dense - plain).square().mean(1))}
    times: dict[str, float] = {}
    for name, measure in measures.items():
        needs[name], times[name] = timed(measure, sample, options.rounds)
    pixels = sample.size[0] * sample.size[1]
    errors = luma_errors(dense, sample.truth), luma_errors(plain, sample.truth)
    frames = len(sample.low)
    return {
        "clip": sample.name,
        "size": sample.size,
        "frames": frames,
        "psnr_y": mean_psnr(errors[0].flatten(1).sum(1), pixels).item(),
        "plain_psnr_y": mean_psnr(errors[1].flatten(1).sum(1), pixels).item(),
        "dense_ms": 1000 * seconds / frames,
        "ms": {name: 1000 * taken / frames for name, taken in times.items()},
        "shares": {
            name: largest_share(need, *errors, pixels, options.loss) for name, need in needs.items()
        },
    }


def table(rows: list[Row]) -> str:
    """Markdown: a line of shares for each clip, their means, and the measures' times."""
    names = list(rows[0]["shares"])
    lines = ["| clip | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        shares = " | ".join(f"{row['shares'][name]:.3f}" for name in names)
        lines.append(f"| {row['clip']} | {shares} |")
    means = [statistics.fmean(row["shares"][name] for row in rows) for name in names]
    lines.append("| **mean** | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    for label, form in (("ms a frame", "{ms:.2f}"), ("of the dense time", "{part:.2%}")):
        cells: list[str] = []
        for name in names:
            found = cost(rows, name)
            cells.append("" if found is None else form.format(**found))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cost(rows: list[Row], name: str) -> dict[str, float] | None:
    """A measure's mean time, and its share of the dense model's; None for the oracle."""
    if name not in rows[0]["ms"]:
        return None
    ms = statistics.fmean(row["ms"][name] for row in rows)
    return {"ms": ms, "part": ms / statistics.fmean(row["dense_ms"] for row in rows)}


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--model", default="skipvsr:nano")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--loss", type=float, default=0.05, help="of PSNR-Y, dB")
    parser.add_argument("--rounds", type=int, default=3, help="of the measures' times")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--name", help="of the files in results/, instead of predictors_MODEL")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    ask_for_huge_pages()  # memory as the command line settles it
    torch.set_num_threads(options.threads)
    runtime = RuntimeSettings(dtype=options.dtype, weights=options.weights)
    upscaler = load_upscaler(options.model, SkipSettings(dense=True), runtime)
    measures = measures_of(upscaler)
    settings = EvalSettings(degrade="bicubic", frames=options.frames, only=options.only)
    rows: list[Row] = []
    items = find_clips(options.dir, settings, sys.exit).items  # all of them or none
    for number, item in enumerate(items):
        sample = read_sample(item, settings, smallest=upscaler.limits.smallest)
        if not number:
            upscaler.upscale(Clip(sample.low[:5]), sample.size)  # warm-up
        rows.append(measure_clip(upscaler, measures, sample, options))
        print(table(rows[-1:]).splitlines()[2], flush=True)
    text = table(rows)
    print(text)
    name = options.name or f"predictors_{options.model.replace(':', '_')}"
    write_text(HERE / "results" / f"{name}.md", text)
    told = ("model", "loss", "threads", "rounds")
    setup = {each: getattr(options, each) for each in told}
    setup |= {"dtype": upscaler.dtype, "clips": options.dir.resolve().name}
    setup["costs"] = {each: cost(rows, each) for each in measures}
    record = rounded({**setup, "rows": rows})
    assert isinstance(record, dict)
    save(name, record)


if __name__ == "__main__":
    main()
