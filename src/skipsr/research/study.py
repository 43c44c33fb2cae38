"""A blind comparison of two methods: `study.html` shows both, `study-key.json` tells them apart."""

import hashlib
import json
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.data.benchmarks import Item
from skipsr.evaluation.clips import ClipFolder
from skipsr.evaluation.methods import run_model
from skipsr.evaluation.record import to_json, write_text
from skipsr.evaluation.report import data_uri, fill
from skipsr.evaluation.samples import read_sample
from skipsr.settings import ClipSettings, Encoding
from skipsr.video import frames_info, open_target

_CROP = (480, 640)  # height and width of one side at most
_GAP = 16  # pixels of grey between the sides
_GREY = 0.5
_STEP = 8  # pixels between the places tried for the crop
_CRF = 10  # H.264 at which coding errors are far below what is judged


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindStudy:
    """What was made of a folder."""

    page: Path
    clips: tuple[str, ...]  # on the page
    faults: Mapping[str, str]  # clips that could not be read, by name, and why


def make_study(
    clips: ClipFolder,
    upscalers: Mapping[str, Upscaler],
    settings: ClipSettings,
    folder: Path,
    record: Mapping[str, Any],
) -> BlindStudy:
    """Run two models on all clips and write the page and its key into `folder`.

    Which side is whose is drawn from the seed, each model being left in half of the clips. All
    are read before that, and one that cannot be is left out: the study is the one of the others.

    Args:
        upscalers: model A and model B by name.
        record: what the key says of the run; see `describe_run`.

    Raises:
        MediaError: when no clip can be read, or one no longer after the sides were drawn.
    """
    (name_a, a), (name_b, b) = upscalers.items()
    smallest = max(a.limits.smallest, b.limits.smallest)

    def try_to_read(item: Item) -> None:
        read_sample(item, settings, smallest)

    clips.each(try_to_read)
    items = clips.items
    draw = random.Random(settings.seed)
    sides = [index % 2 == 0 for index in range(len(items))]  # whether A is on the left
    draw.shuffle(sides)
    entries: list[dict[str, str]] = []
    for item, a_left in zip(items, sides, strict=True):
        sample = read_sample(item, settings, smallest)
        frames = (run_model(sample, upscaler, settings.seed).frames for upscaler in (a, b))
        left, right = crop(*frames)[:: 1 if a_left else -1]
        entries.append({"clip": item.name, "source": _show(left, right)})
        clips.tell(f"{item.name}  ready")
    draw.shuffle(entries)
    study = hashlib.sha256("".join(entry["source"] for entry in entries).encode()).hexdigest()[:16]
    key = {
        "study": study,
        "a": name_a,
        "b": name_b,
        "left": {item.name: "ab"[not a_left] for item, a_left in zip(items, sides, strict=True)},
        "faults": clips.faults,
        "run": record,
    }
    data = json.dumps({"study": study, "clips": entries}).replace("<", "\\u003c")
    write_text(folder / "study-key.json", to_json(key))
    page = write_text(
        folder / "study.html", fill(files("skipsr.research") / "study.html", {"data": data})
    )
    return BlindStudy(page=page, clips=tuple(item.name for item in items), faults=clips.faults)


def crop(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The part of two results `t 3 h w` of one clip, at most 640x480, where they differ most.

    Values are in [0, 1]; ties go to the upper left.
    """
    height, width = a.shape[2:]
    h, w = min(height, _CROP[0]), min(width, _CROP[1])
    gap = reduce((a - b).abs(), "t c h w -> 1 1 h w", "mean")
    sums = F.avg_pool2d(gap, (h, w), stride=_STEP)[0, 0]
    row, column = divmod(int(sums.flatten().argmax()), sums.shape[1])
    top, left = row * _STEP, column * _STEP
    part = (slice(None), slice(None), slice(top, top + h), slice(left, left + w))
    return a[part], b[part]


def _show(left: Tensor, right: Tensor) -> str:
    """Both beside each other, as a data URI: PNG for one frame, else H.264 in MP4."""
    t, _, h, _ = left.shape
    both = torch.cat((left, torch.full((t, 3, h, _GAP), _GREY), right), 3)
    if t > 1:  # there and back again, so that the loop has no jump
        both = torch.cat((both, both[1:-1].flip(0)))
    clip = Clip(both)
    suffix, kind = (".png", "image/png") if len(clip) == 1 else (".mp4", "video/mp4")
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / f"pair{suffix}"
        encoding = Encoding(crf=None if suffix == ".png" else _CRF)
        info = replace(frames_info(clip.size), chroma_step=(2, 2))  # browsers show no finer colour
        with open_target(target, info, clip.size, encoding) as writer:
            writer.write(clip)
        return data_uri(target.read_bytes(), kind)
