"""How well are cuts found, and what does it cost?

Pieces of clips are joined by hard cuts, dissolves and fades, with flashes and fast pans inside
pieces; they are written as H.264, and read back by every detector. PySceneDetect is compared where
it is installed.

python benchmarks/shots.py DIR [--streams 12] [--seed 0] [--name shots]
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from record import save
from torch import Tensor

from skipsr.clip import Clip
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import upscale_video
from skipsr.settings import Encoding
from skipsr.shots import FoundShots
from skipsr.video import frames_info, open_source, open_target

HIGH, WIDE = 180, 320  # of what is shown
ROOM = 1.5  # a picture is as many times as large, for a camera to pan over
FRAMES = 96  # of a clip, at most
PIECES = 12  # of a stream
SLACK = 1  # frames by which a hard cut may be missed
Frames = NDArray[np.uint8]  # t h w 3


@dataclass(frozen=True, slots=True)
class Label:
    """A change of shots: between the frames `[first, last]` the second one takes over."""

    kind: str
    first: int
    last: int


@dataclass(slots=True)
class Stream:
    """Joined pieces, and what is in them."""

    frames: list[Frames] = field(default_factory=list[Frames])
    labels: list[Label] = field(default_factory=list[Label])
    events: list[Label] = field(default_factory=list[Label])  # that are no cuts

    @property
    def count(self) -> int:
        return sum(map(len, self.frames))


def read_clips(folder: Path) -> dict[str, Frames]:
    """The clips of a folder and of those in it, as pictures with room around what is shown."""
    found: dict[str, Frames] = {}
    for path in sorted(folder.rglob("*.mp4")):
        parts: list[Tensor] = []
        with open_source(path) as source:
            for clip in source.clips(8, 0):
                parts.append(_fitted(clip.frames))
                if 8 * len(parts) >= FRAMES:
                    break
        found[path.stem] = Clip(torch.cat(parts)).to_array()
    return found


def _fitted(frames: Tensor) -> Tensor:
    """The middle of `t 3 h w` at the size of pictures, shrunk as a scaler does."""
    high, wide = round(HIGH * ROOM), round(WIDE * ROOM)
    scale = max(high / frames.shape[2], wide / frames.shape[3])
    size = [max(least, round(side * scale)) for least, side in
            zip((high, wide), frames.shape[2:], strict=True)]  # fmt: skip
    frames = F.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False)
    top, left = (size[0] - high) // 2, (size[1] - wide) // 2
    return frames[..., top : top + high, left : left + wide].clamp(0, 1)


def make_stream(clips: Mapping[str, Frames], seed: int) -> Stream:
    """Pieces of clips, no two of one clip after another."""
    rng = random.Random(seed)
    stream, before = Stream(), ""
    for _ in range(PIECES):
        before = rng.choice([name for name in clips if name != before])
        piece, events = _piece(clips[before], rng)
        kind = rng.choices(("cut", "dissolve", "fade"), (0.7, 0.15, 0.15))[0]
        _join(stream, piece, kind if stream.frames else "first", rng)
        stream.events += [Label(e.kind, e.first + stream.count - len(piece),
                                e.last + stream.count - len(piece)) for e in events]  # fmt: skip
    return stream


def _piece(picture: Frames, rng: random.Random) -> tuple[Frames, list[Label]]:
    """Some frames of a clip, what is shown of them, and what happens in there."""
    count = min(len(picture), rng.choice((rng.randint(3, 12), rng.randint(16, 48))))
    start = rng.randint(0, len(picture) - count)
    rooms = picture.shape[1] - HIGH, picture.shape[2] - WIDE
    event = rng.choice(("pan", "flash", "")) if count >= 16 else ""
    top, left = rng.randint(0, rooms[0]), rng.randint(0, rooms[1])
    speed = rng.choice((-1, 1)) * rng.uniform(6, 20) if event == "pan" else 0.0
    lefts = [_bounced(left + speed * i, rooms[1]) for i in range(count)]
    shown = np.stack(
        [frame[top : top + HIGH, x : x + WIDE]
         for frame, x in zip(picture[start : start + count], lefts, strict=True)]
    )  # fmt: skip
    if event == "flash":
        first, long = rng.randint(4, count - 6), rng.choice((1, 2))
        light = rng.uniform(0.4, 0.95)
        lit = shown[first : first + long].astype(np.float32)
        shown[first : first + long] = (lit + light * (255 - lit)).astype(np.uint8)
        return shown, [Label("flash", first, first + long)]
    return shown, [Label("pan", 1, count - 1)] if event else []


def _bounced(place: float, room: int) -> int:
    """A camera that turns back where the picture ends."""
    turn = place % (2 * room)
    return round(min(turn, 2 * room - turn))


def _join(stream: Stream, piece: Frames, kind: str, rng: random.Random) -> None:
    long = min(rng.randint(8, 16), len(piece) - 2)
    place = stream.count
    if kind == "dissolve" and long >= 3 and len(stream.frames[-1]) > long + 2:
        weights = (np.arange(1, long + 1) / (long + 1)).reshape(-1, 1, 1, 1)
        last = stream.frames[-1]
        mixed = (last[-long:] * (1 - weights) + piece[:long] * weights).round().astype(np.uint8)
        stream.frames[-1] = last[:-long]
        stream.labels.append(Label(kind, place - long, place))
        piece[:long] = mixed
    elif kind == "fade" and long >= 4 and len(stream.frames[-1]) > long + 2:
        dark = (np.arange(1, long + 1) / long).reshape(-1, 1, 1, 1)
        last = stream.frames[-1]
        last[-long:] = (last[-long:] * (1 - dark)).round().astype(np.uint8)
        piece[:long] = (piece[:long] * dark).round().astype(np.uint8)
        stream.labels.append(Label(kind, place - long, place + long))
    elif kind != "first":
        stream.labels.append(Label("cut", place, place))
    stream.frames.append(piece)


@dataclass(slots=True)
class Score:
    """What a detector found of all streams."""

    labels: Counter[str] = field(default_factory=Counter[str])
    found: Counter[str] = field(default_factory=Counter[str])
    false: Counter[str] = field(default_factory=Counter[str])  # by what is there instead

    def add(self, firsts: Sequence[int], stream: Stream) -> None:
        """Count the first frames of shots, but frame 0, that were found in a stream."""
        left = set(firsts)
        for label in stream.labels:
            near = {f for f in firsts if label.first - SLACK <= f <= label.last + SLACK}
            self.labels[label.kind] += 1
            self.found[label.kind] += bool(near & left)
            left -= near
        for first in left:
            events = [e.kind for e in stream.events if e.first - SLACK <= first <= e.last + SLACK]
            self.false[events[0] if events else "nothing"] += 1

    def told(self) -> dict[str, Any]:
        recall = {kind: round(self.found[kind] / n, 4) for kind, n in self.labels.items()}
        right, wrong = self.found.total(), self.false.total()
        return {
            "recall": recall,
            "precision": round(right / max(1, right + wrong), 4),
            "false": dict(self.false),
        }


def our_shots(path: Path) -> list[int]:
    """What the pipeline finds."""
    with open_source(path) as source:
        return [i for i, (_, begins) in enumerate(source.frames(FoundShots())) if begins and i]


def their_shots(detector: Callable[[], Any]) -> Callable[[Path], list[int]]:
    """What a detector of PySceneDetect finds."""

    def find(path: Path) -> list[int]:
        scenes = import_module("scenedetect").detect(str(path), detector())
        return [start.frame_num for start, _ in scenes][1:]

    return find


def detectors() -> dict[str, Callable[[Path], list[int]]]:
    """By name; those of PySceneDetect as they come, and for shots as short as some are here."""
    found: dict[str, Callable[[Path], list[int]]] = {"skipsr": our_shots}
    if find_spec("scenedetect") is not None:
        theirs = import_module("scenedetect.detectors")
        for name, kind in (("content", theirs.ContentDetector),
                           ("adaptive", theirs.AdaptiveDetector)):  # fmt: skip
            found[f"PySceneDetect {name}"] = their_shots(kind)
            found[f"PySceneDetect {name}, 2 frames"] = their_shots(partial(kind, min_scene_len=2))
    return found


def write(stream: Stream, path: Path) -> None:
    """As H.264 of a usual quality."""
    frames = np.concatenate(stream.frames)
    info = frames_info((HIGH, WIDE), count=len(frames))
    with open_target(path, info, (HIGH, WIDE), Encoding(crf=23)) as target:
        target.write(Clip.from_array(frames))


def milliseconds(paths: Sequence[Path]) -> tuple[float, float]:
    """A frame's cost: of finding shots in what was decoded, and of the default job at x4."""
    with open_source(paths[0]) as source:
        frames = [frame.pixels for frame, _ in source.frames()]
    began = time.perf_counter()
    for _ in FoundShots().mark(frames, lambda frame: frame):
        pass
    found = (time.perf_counter() - began) / len(frames)
    upscaler = load_upscaler("skipvsr:nano")
    with tempfile.TemporaryDirectory() as folder:
        report = upscale_video(paths[0], Path(folder) / "out.mp4", upscaler)
    return 1000 * found, 1000 * report.seconds["total"] / report.frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--streams", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="shots")
    options = parser.parse_args()
    clips = read_clips(options.folder)
    streams = [make_stream(clips, options.seed + i) for i in range(options.streams)]
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.mp4" for i in range(len(streams))]
        for stream, path in zip(streams, paths, strict=True):
            write(stream, path)
        for name, find in detectors().items():
            score = Score()
            for stream, path in zip(streams, paths, strict=True):
                score.add(find(path), stream)
            told[name] = score.told()
            print(name, told[name])
        ours, job = milliseconds(paths)
    save(
        options.name,
        {
            "clips": sorted(clips),
            "frames": sum(stream.count for stream in streams),
            "labels": dict(Counter(label.kind for s in streams for label in s.labels)),
            "events": dict(Counter(event.kind for s in streams for event in s.events)),
            "detectors": told,
            "milliseconds_a_frame": {"finding": round(ours, 3), "default_job": round(job, 1)},
        },
    )


if __name__ == "__main__":
    main()
