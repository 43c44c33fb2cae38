"""Split validation clips off a training folder, or link those that were.

    split_validation.py DATA               measure, draw, write src/skipsr/assets/validation.json
    split_validation.py DATA --copy DIR    link the listed clips into DIR/calm and DIR/busy
    split_validation.py DATA --footage DIR     write their starts into DIR/gt, and into DIR/lq what
                                               `Footage` makes of them: for `skipsr eval DIR`

DATA needs a MANIFEST.csv with file, kind, width, height, frames, source_repository, source_path and
licence. Only filmed clips are drawn from, at most one of a source; every other file of that source
is listed beside it, so that training leaves it out as well. The same data and seed give the same
list.
"""

import argparse
import csv
import json
import random
import re
import zlib
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.clip import Clip
from skipsr.data.footage import Footage
from skipsr.data.sources import CLIPS, MANIFEST, NON_COMMERCIAL
from skipsr.data.validation import ValidationClip, find_listed, read_list
from skipsr.files import atomic_write, sha256
from skipsr.settings import Encoding
from skipsr.video import frames_info, open_source, open_target

LIST = Path(__file__).parents[1] / "src/skipsr/assets/validation.json"
SEED = 0
LOSSLESS = Encoding(codec="ffv1")
EACH, POOL = 10, 15  # clips of a kind, and sources at that end of the ranking they are drawn from
SIDE, FRAMES, SMALLEST = 32, 9, 256  # a cell, frames at least and measured, pixels at least
SHOWN, CROPPED = 17, 16  # frames of a clip of footage, and what divides their sides
TAU = 1e-4  # mean square error of values in [0, 1]
MEASURE = (
    f"share of {SIDE}x{SIDE} cells x with MSE(x, U(D(x))) <= {TAU:g} in [0, 1], mean over "
    f"{FRAMES} frames spread evenly; D: bicubic antialiased /4, U: bicubic x4, whole frames"
)

# rendered or generated, which their names do not say as `-ai` would
NOT_FILMED = ("big-buck-bunny", "chrysalis", "crab", "hike-stabilised", "nurec-street", "treadmill")
ONE_SHOOT = {"toy-elf": "toys", "toy-monster": "toys", "toy-rabbit": "toys"}

Row = dict[str, str]


def share_served(frames: Tensor) -> float:
    """Share of cells that plain upsampling serves, of `t 3 h w` in [0, 1]; see `MEASURE`."""
    h, w = (n // SIDE * SIDE for n in frames.shape[-2:])
    shares: list[float] = []
    for frame in frames[..., :h, :w].split(1):
        small = F.interpolate(frame, (h // 4, w // 4), mode="bicubic", antialias=True)
        gap = frame - F.interpolate(small, (h, w), mode="bicubic")
        errors = F.avg_pool2d(gap.square().mean(1, keepdim=True), SIDE)
        shares.append((errors <= TAU).float().mean().item())
    return fmean(shares)


def read_frames(path: Path, count: int) -> Tensor:
    """`FRAMES` of the clip's `count` frames, the first and the last among them: `t 3 h w`."""
    wanted = {index * (count - 1) // (FRAMES - 1) for index in range(FRAMES)}
    with open_source(path) as source:
        return torch.cat([c.frames for c in source.clips(1, 0) if c.start in wanted])


def origin(row: Row) -> str:
    """The source of a clip: its name without the number of its part."""
    stem = re.sub(r"_\d+$", "", Path(row["file"]).stem)
    return ONE_SHOOT.get(stem, stem)


def is_eligible(row: Row) -> bool:
    """Whether a clip is filmed, free to use, and long and large enough."""
    stem = re.sub(r"_\d+$", "", Path(row["file"]).stem)
    filmed = "-ai" not in stem and stem not in NOT_FILMED
    large = min(int(row["width"]), int(row["height"])) >= SMALLEST
    free = not NON_COMMERCIAL.search(row["licence"])
    return filmed and large and free and int(row["frames"]) >= FRAMES


def video(row: Row) -> tuple[str, str]:
    return row["source_repository"], row["source_path"]


def entry(data: Path, row: Row) -> dict[str, str | int]:
    path = data / row["file"]
    return {"name": row["file"], "size": path.stat().st_size, "sha256": sha256(path)}


def split(data: Path) -> dict[str, object]:
    """The list, ready to be written."""
    with (data / MANIFEST).open(encoding="utf-8-sig", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    sources: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "clip":
            sources[origin(row)].append(row)
    homes = [(video(row), name) for name, parts in sources.items() for row in parts]
    if len(set(homes)) > len(dict(homes)):
        raise SystemExit("one video has clips of different names: put them into ONE_SHOOT")

    ranking: list[tuple[float, str, Row]] = []
    for name, parts in sources.items():
        chosen = next(filter(is_eligible, parts), None)
        if chosen is not None:
            frames = read_frames(data / chosen["file"], int(chosen["frames"]))
            ranking.append((share_served(frames), name, chosen))
            print(f"{ranking[-1][0]:.4f} {chosen['file']}", flush=True)
    ranking.sort(key=lambda place: (-place[0], place[1]))
    if len(ranking) < 2 * POOL:
        raise SystemExit(f"{len(ranking)} sources are too few to draw {2 * EACH} clips from")

    rng = random.Random(SEED)
    drawn = [("calm", place) for place in rng.sample(ranking[:POOL], EACH)]
    drawn += [("busy", place) for place in rng.sample(ranking[-POOL:], EACH)]
    drawn.sort(key=lambda found: (found[0] != "calm", -found[1][0], found[1][1]))
    clips: list[dict[str, object]] = []
    siblings: list[dict[str, object]] = []
    for kind, (share, name, chosen) in drawn:
        clips.append({**entry(data, chosen), "kind": kind, "share": round(share, 4)})
        videos = {video(row) for row in sources[name]}
        others = [row for row in rows if video(row) in videos and row is not chosen]
        siblings += [{**entry(data, row), "of": chosen["file"]} for row in others]
    return {"measure": MEASURE, "seed": SEED, "clips": clips, "siblings": siblings}


def find_clips(data: Path) -> list[tuple[ValidationClip, Path]]:
    """The listed clips and where they lie, found by content."""
    found: dict[str, tuple[ValidationClip, Path]] = {}
    for path in sorted(data.rglob("*")):
        if path.suffix.lower() in CLIPS and path.is_file():
            listed = find_listed(path)
            if isinstance(listed, ValidationClip):
                found[listed.sha256] = listed, path
    clips = [entry for entry in read_list() if isinstance(entry, ValidationClip)]
    missing = [clip.name for clip in clips if clip.sha256 not in found]
    if missing:
        raise SystemExit(f"{data} lacks {', '.join(missing)}")
    return list(found.values())


def link(data: Path, folder: Path) -> None:
    """Link the listed clips into `folder/calm` and `folder/busy`."""
    for clip, path in find_clips(data):
        place = folder / clip.kind / Path(clip.name).name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            place.unlink()
        place.symlink_to(path.resolve())


def write_footage(data: Path, folder: Path) -> None:
    """Write the listed clips' first frames into `folder/gt`, and damaged ones into `folder/lq`."""
    footage = Footage(clean=0.0)
    for clip, path in find_clips(data):
        with open_source(path) as source:
            frames, rate = next(source.clips(SHOWN, 0)).frames, source.info.rate
        h, w = (side // CROPPED * CROPPED for side in frames.shape[2:])
        truth = frames[..., :h, :w].contiguous()
        # by the name alone, so that other clips change nothing
        generator = torch.Generator().manual_seed(zlib.crc32(clip.name.encode()))
        low = footage(rearrange(truth, "t c h w -> 1 c t h w"), generator)
        name = Path(clip.name).with_suffix(".mkv").name
        for kind, shown in (("gt", truth), ("lq", rearrange(low, "1 c t h w -> t c h w"))):
            place = folder / kind / name
            place.parent.mkdir(parents=True, exist_ok=True)
            size = shown.shape[2], shown.shape[3]
            info = frames_info(size, rate=rate, count=len(shown))
            with open_target(place, info, size, LOSSLESS, overwrite=True) as target:
                target.write(Clip(shown))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="the training folder")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--copy", type=Path, metavar="DIR", help="link, by the list there is")
    other.add_argument(
        "--footage", type=Path, metavar="DIR", help="write damaged ones, by the list"
    )
    given = parser.parse_args()
    if given.copy is not None:
        link(given.data, given.copy)
        return
    torch.set_num_threads(1)  # also: sums in the same order everywhere
    if given.footage is not None:
        write_footage(given.data, given.footage)
        return
    text = json.dumps(split(given.data), indent=1) + "\n"
    with atomic_write(LIST) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
