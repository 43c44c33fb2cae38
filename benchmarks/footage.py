"""Footage as people have it: compressed clips against their truth, and clips that have none.

    python benchmarks/footage.py truth DIR [--model skipvsr:nano] [--scale 4] [--frames 17]
        [--damage clean,crf23,crf28,crf33] [--variant LABEL KEY=VALUE ...] [--name footage_truth]
    python benchmarks/footage.py real DIR [--model skipvsr:nano] [--pictures OUT.png] ...

Compared are plain bicubic, the model by default and with everything computed (`dense`), and every
--variant: settings of skipping and options of the model's family by name, such as
`--variant blocks skip=blocks`.

truth: every clip of DIR is shrunk (antialiased bicubic, 8 bits; sides cropped to an even LR size),
compressed by x264 as each damage says, enlarged again, and compared with what it was: PSNR-Y, VMAF,
VMAF-NEG, the warping error along the truth's motion (with the truth's own to compare, for it is
lower the less a picture shows), and flicker: the mean change from frame to frame of the difference
from the truth, in 8-bit levels. real: every clip of DIR is enlarged as it is: NIQE and BRISQUE of
every fourth frame, and the same two with bicubic in the truth's place. "÷ bicubic's" is the warping
error as a multiple of bicubic's own. --pictures draws a sheet: for each clip (and damage) the most
detailed piece of the middle frame by every method, twice as large.
Writes `benchmarks/results/NAME.json` and `.md`: means over clips; per-clip figures in the JSON.
"""

import argparse
import ast
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from record import HERE, save
from regions import compressed
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.metric_suite import MetricSuite, choose_metrics
from skipsr.evaluation.record import rounded, write_text
from skipsr.evaluation.samples import Sample, read_sample
from skipsr.loading import load_upscaler
from skipsr.memory import ask_for_huge_pages
from skipsr.metrics.fidelity import psnr_y
from skipsr.metrics.temporal import error_along, motion
from skipsr.metrics.vmaf import vmaf
from skipsr.nn.resize import resize_bicubic
from skipsr.settings import ClipSettings, RuntimeSettings, SkipSettings
from skipsr.video.images import write_image

BICUBIC = "bicubic"
AS_IS = "as they are"
EVERY = 4  # frames of which one is rated without a truth: BRISQUE takes seconds for each
CROP = (144, 192)  # pixels of a picture's piece, before it is drawn twice as large
LABEL = 18  # pixels of text
Figures = dict[str, float]
Motion = Sequence[tuple[Tensor, Tensor]]
SKIPPING = {setting.name for setting in fields(SkipSettings)}


def read_variants(given: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Settings by label, the two that are always there first.

    Raises:
        SystemExit: for what is no KEY=VALUE.
    """
    variants: dict[str, dict[str, Any]] = {"default": {}, "dense": {"dense": True}}
    for label, *pairs in given:
        if not pairs or not all("=" in pair for pair in pairs):
            raise SystemExit(f"--variant {label} needs settings as KEY=VALUE, such as quality=0.3")
        settings = (pair.split("=", 1) for pair in pairs)
        variants[label] = {key: read_value(value) for key, value in settings}
    return variants


def read_damages(text: str) -> dict[str, int | None]:
    """The crf of each kind of damage; None for no compression.

    Raises:
        SystemExit: for what is no damage.
    """
    names = text.split(",")
    for name in names:
        if name not in ("clean", AS_IS) and not re.fullmatch(r"crf\d+", name):
            raise SystemExit(
                f"--damage {name} is unknown: give clean or crf28, with commas between"
            )
    return {name: int(name[3:]) if name.startswith("crf") else None for name in names}


def read_value(text: str) -> object:
    """A number, True, False or None, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def load(model: str, variant: Mapping[str, Any], runtime: RuntimeSettings) -> Upscaler:
    skip = {key: value for key, value in variant.items() if key in SKIPPING}
    own = {key: value for key, value in variant.items() if key not in SKIPPING}
    return load_upscaler(model, SkipSettings(**skip), runtime, own)


def enlarge(sample: Sample, upscalers: Mapping[str, Upscaler]) -> Iterator[tuple[str, Tensor]]:
    """Method and frames `t 3 h w`: bicubic, then every variant.

    One at a time, which bounds the memory.
    """
    low = Clip(sample.low)
    yield BICUBIC, resize_bicubic(low.frames, sample.size)
    for name, upscaler in upscalers.items():
        yield name, upscaler.upscale(low, sample.size).clip.frames.cpu()


def flicker(frames: Tensor, reference: Tensor) -> float:
    """As `skipsr.metrics.flicker` has it, over the whole picture: there is no mask to part it."""
    gaps = (frame - other for frame, other in zip(frames, reference, strict=True))
    return 255 * statistics.fmean(
        (after - before).abs().mean().item() for before, after in pairwise(gaps)
    )


def fidelity(frames: Tensor, truth: Tensor) -> Figures:
    scores = vmaf(frames, truth)
    psnr = psnr_y(frames, truth).mean().item()
    return {"PSNR-Y": psnr, "VMAF": scores["vmaf"], "VMAF-NEG": scores["vmaf_neg"]}


def look(frames: Tensor, suite: MetricSuite) -> Figures:
    """NIQE and BRISQUE, where the clip suits them: a certain size, and not all flat."""
    rated = suite.measure(frames[::EVERY], None)
    return {name.upper(): value for name, value in rated.items()}


class Sheet:
    """Rows of crops by every method, labelled; kept only where it is asked for."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: list[Tensor] = []

    def begin(self, name: str, guide: Tensor) -> None:
        """A row for the clip whose detail lies where it lies in the guide, `t 3 h w`."""
        self._name, self._crops = name, list[Tensor]()
        grey = guide[len(guide) // 2].mean(0)[None, None]
        self._shape = min(CROP[0], grey.shape[2]), min(CROP[1], grey.shape[3])
        detail = (grey - F.avg_pool2d(grey, 9, 1, 4, count_include_pad=False)).square()
        sums = F.avg_pool2d(detail, self._shape, 1)[0, 0]
        self._top, self._left = divmod(int(sums.argmax()), sums.shape[1])

    def add(self, method: str, frames: Tensor) -> None:
        if self._path is None:
            return
        (top, left), (h, w) = (self._top, self._left), self._shape
        piece = frames[len(frames) // 2, :, top : top + h, left : left + w].clamp(0, 1)
        piece = piece.repeat_interleave(2, 1).repeat_interleave(2, 2)
        piece = F.pad(piece, (0, 2 * CROP[1] - 2 * w, 0, 2 * CROP[0] - 2 * h))
        text = method if self._crops else f"{self._name}: {method}"
        self._crops.append(torch.cat((label(text, piece.shape[2]), piece), 1))

    def end(self) -> None:
        if self._path is None:
            return
        self._rows.append(torch.cat(self._crops, 2))
        pixels = Clip(torch.cat(self._rows, 1)[None]).to_array()[0]
        write_image(self._path, pixels, None)


def label(text: str, width: int) -> Tensor:
    """A line of text, `3 h width`."""
    image = Image.new("RGB", (width, LABEL + 4), "white")
    ImageDraw.Draw(image).text((3, 0), text, "black", ImageFont.load_default(LABEL - 4))
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(image.height, width, 3).permute(2, 0, 1).float() / 255


def measure(
    name: str, sample: Sample, motions: Motion | None, ways: Mapping[str, Upscaler], sheet: Sheet,
    suite: MetricSuite,
) -> dict[str, Figures]:  # fmt: skip
    """Figures of one clip by method; against its truth where it has one.

    Args:
        motions: the truth's; without one, those of the plain enlargement are found here. None: no
            warping errors.
    """
    row: dict[str, Figures] = {}
    truth = reference = sample.truth
    for method, frames in enlarge(sample, ways):
        if reference is None:  # the first, which is bicubic
            reference = frames
            motions = None if motions is None else list(motion(frames))
        if not row:
            sheet.begin(name, reference)
        row[method] = look(frames, suite) if truth is None else fidelity(frames, truth)
        if motions is not None:
            row[method]["warp error"] = error_along(frames, motions)
        row[method]["flicker"] = flicker(frames, reference)
        sheet.add(method, frames)
        figures = "  ".join(f"{key} {value:.3f}" for key, value in row[method].items())
        print(f"{name}  {method}  {figures}", flush=True)
    if truth is not None:
        sheet.add("truth", truth)
        row["truth"] = {} if motions is None else {"warp error": error_along(truth, motions)}
    sheet.end()
    base = row[BICUBIC].get("warp error")
    for figures in row.values():
        if base:  # a picture that stands still has no error
            figures["÷ bicubic's"] = figures["warp error"] / base
    return row


def table(rows: Sequence[Mapping[str, Figures]]) -> str:
    """Markdown: a line for each method, means over the clips that have the figure."""
    columns = list(dict.fromkeys(key for row in rows for key in row[BICUBIC]))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in rows[0]:
        cells: list[str] = []
        for column in columns:
            values = [row[method][column] for row in rows if column in row[method]]
            cells.append(f"{statistics.fmean(values):.3f}" if values else "–")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def read_samples(asked: argparse.Namespace, smallest: int) -> Iterator[Sample]:
    settings = ClipSettings(scale=asked.scale, frames=asked.frames, only=asked.only)
    if asked.mode == "truth":
        made = replace(settings, degrade="bicubic")
        for item in find_clips(asked.dir, made, sys.exit, truths=True).items:  # all or none
            yield read_sample(item, made, smallest)
    else:
        for item in find_clips(asked.dir, settings, sys.exit).items:  # whatever its name says
            low = replace(item, truth=None, low=item.low or item.truth)
            yield read_sample(low, settings, smallest)


def read_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    for mode in ("truth", "real"):
        own = modes.add_parser(mode)
        own.add_argument("dir", type=Path)
        own.add_argument("--model", default="skipvsr:nano")
        own.add_argument("--weights", type=Path)
        own.add_argument("--dtype", default="auto")
        own.add_argument("--scale", type=int, default=4)
        own.add_argument("--frames", type=int, default=17)
        own.add_argument("--variant", nargs="+", action="append", default=[])
        own.add_argument(
            "--motion",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="the warping error, which takes most of the time",
        )
        own.add_argument("--only", default="", help="only clips with this in their name")
        own.add_argument("--threads", type=int, default=2)
        own.add_argument("--pictures", type=Path, help="write a sheet of crops to this file")
        own.add_argument("--name", default=f"footage_{mode}", help="of the files in results/")
        if mode == "truth":
            own.add_argument("--damage", default="clean,crf23,crf28,crf33")
        else:
            own.set_defaults(damage=AS_IS)
    return parser.parse_args()


def main() -> None:
    asked = read_command_line()
    ask_for_huge_pages()  # memory as the command line settles it
    torch.set_num_threads(asked.threads)
    variants, crfs = read_variants(asked.variant), read_damages(asked.damage)
    runtime = RuntimeSettings(dtype=asked.dtype, weights=asked.weights)
    ways = {label: load(asked.model, variant, runtime) for label, variant in variants.items()}
    suite, sheet = MetricSuite(choose_metrics(("niqe", "brisque"))), Sheet(asked.pictures)
    rows: dict[str, dict[str, dict[str, Figures]]] = {damage: {} for damage in crfs}
    for sample in read_samples(asked, ways["default"].limits.smallest):
        motions: Motion | None = [] if asked.motion else None
        if asked.motion and sample.truth is not None:
            motions = list(motion(sample.truth))
        for damage, crf in crfs.items():
            damaged = sample if crf is None else compressed(sample, crf)
            name = sample.name if crf is None else f"{sample.name}, {damage}"
            rows[damage][sample.name] = measure(name, damaged, motions, ways, sheet, suite)
    tables = {damage: table(list(found.values())) for damage, found in rows.items()}
    text = "\n".join(f"### {damage}\n\n{lines}" for damage, lines in tables.items())
    print(text, *suite.notes, sep="\n")
    write_text(HERE / "results" / f"{asked.name}.md", text)
    figures = rounded(
        {
            "model": ways["default"].name,
            "dtype": ways["default"].dtype,
            "threads": asked.threads,
            "scale": asked.scale,
            "frames": asked.frames,
            "clips": asked.dir.resolve().name,
            "variants": variants,
            "notes": suite.notes,
            "rows": rows,
        }
    )
    assert isinstance(figures, dict)
    save(asked.name, figures)


if __name__ == "__main__":
    main()
