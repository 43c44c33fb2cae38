"""Degraded clips that are made once and kept, and cut anew for every step.

Codecs take far longer than a step of a small network on a GPU. A kept sample is larger than a crop
and has more frames, so that each use of it is another one.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from skipsr.data.clips import ClipDataset
from skipsr.files import atomic_write
from skipsr.train.batches import batch_of, data_digest, generator_of, visiting_order
from skipsr.train.objective import ClipBatch
from skipsr.train.settings import TrainSettings

_SHARD = 16  # samples in a file
_OPEN = 4096  # files kept open


@dataclass(frozen=True, slots=True)
class KeptSource:
    """Crops of kept samples, flipped and turned; every pass visits them in an order of its own."""

    folder: Path
    settings: TrainSettings
    training_input: Callable[[Tensor, tuple[int, int]], Tensor]  # of the model's backbone

    def __call__(self, step: int, places: Sequence[int]) -> ClipBatch:
        """A batch whose HR pixels are still 8 bits: `loop.move` makes floats of them."""
        return batch_of(self._pair, self.settings, step, places)

    def _pair(self, step: int, place: int) -> tuple[Tensor, Tensor]:  # c t h w each
        settings = self.settings
        turn, rank = divmod(step * settings.batch + place, settings.samples)
        number = visiting_order(settings.seed, turn, settings.samples)[rank]
        shard, row = divmod(number, _SHARD)
        high, low = (_open(str(_path(self.folder, what, shard)))[row] for what in ("high", "low"))
        rng = np.random.default_rng([settings.seed, step, place, 2])
        scale = settings.degradation.scale
        side, frames = settings.crop // scale, settings.frames
        first = int(rng.integers(low.shape[1] - frames + 1))
        y, x = (int(rng.integers(room - side + 1)) for room in low.shape[2:])
        flips = rng.random(3) < 0.5
        pair = (
            _turned(_cut(high, first, frames, scale * y, scale * x, settings.crop), flips),
            _turned(_cut(low, first, frames, y, x, side), flips),
        )
        seen = rearrange(pair[1], "c t h w -> t c h w").float() / 255
        base = self.training_input(seen, (settings.crop, settings.crop))
        return pair[0], rearrange(base, "t c h w -> c t h w")

    def fill(self, data: ClipDataset, shards: Iterator[int]) -> None:
        """Make the samples that are not there yet, on all processors if the data are in a cache.

        Args:
            data: gives samples of the size that is kept, see `larger`.
            shards: numbers of the files that this process should see to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [i for i in shards if not _path(self.folder, "low", i).exists()]
        if not missing:
            return
        workers = min(len(missing), os.cpu_count() or 1) if data.cached else 1
        if workers == 1:
            for shard in missing:
                _make(data, self.settings, self.folder, shard)
            return
        make = partial(_make, data, self.settings, self.folder)
        with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
            for _ in pool.map(make, missing):  # what has not begun is dropped after a fault
                pass


def larger(settings: TrainSettings) -> tuple[int, int]:
    """Side and frames of kept samples: those of crops, a quarter and a half more."""
    scale = settings.degradation.scale
    return settings.crop + scale * (settings.crop // scale // 4), settings.frames * 3 // 2


def shard_count(settings: TrainSettings) -> int:
    return -(-settings.samples // _SHARD)


def samples_name(data: ClipDataset, settings: TrainSettings) -> str:
    """Name of the folder for these samples: other data, sizes or degradation are another one.

    The model does not matter.
    """
    told = data.crop, data.frames, settings.degradation, settings.seed, settings.samples
    return f"samples-{data_digest(data, told)[:16]}"


def _make(data: ClipDataset, settings: TrainSettings, folder: Path, shard: int) -> None:
    pairs: list[tuple[Tensor, Tensor]] = []
    for number in range(shard * _SHARD, min((shard + 1) * _SHARD, settings.samples)):
        high = data.sample(number, 0)
        low = settings.degradation(high[None], generator_of(settings, number, 0, use=0))[0]
        pairs.append((high, low))
    for what, clips in zip(("high", "low"), zip(*pairs, strict=True), strict=True):
        pixels = torch.stack(clips).mul(255).round().byte().numpy()
        with atomic_write(_path(folder, what, shard)) as part, part.open("wb") as file:
            np.save(file, pixels)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _path(folder: Path, what: str, shard: int) -> Path:
    return folder / f"{what}-{shard:05}.npy"


@lru_cache(maxsize=_OPEN)
def _open(path: str) -> NDArray[np.uint8]:  # n c t h w
    return np.load(path, mmap_mode="r")


def _cut(clip: NDArray[np.uint8], first: int, frames: int, y: int, x: int, side: int) -> Tensor:
    window = clip[:, first : first + frames, y : y + side, x : x + side]
    return torch.from_numpy(np.ascontiguousarray(window))


def _turned(frames: Tensor, flips: NDArray[np.bool_]) -> Tensor:
    """`c t h w` flipped along rows and columns, and transposed, where `flips` says so."""
    axes = [axis for axis, flip in zip((2, 3), flips, strict=False) if flip]
    frames = frames.flip(axes)
    return frames.transpose(2, 3).contiguous() if flips[2] else frames
