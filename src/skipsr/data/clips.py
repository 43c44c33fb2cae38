"""Training batches: random space-time crops of clips, and of photographs that move."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from skipsr.data.sources import Pixels, Store
from skipsr.errors import MediaError, SettingsError

T = TypeVar("T")

IMAGE_SHARE = 0.35  # of the samples
SUBPIXEL_SHARE = 0.5  # of the samples from images
SHRINK_SHARE = 0.25  # of the samples: halved first, for more detail per pixel
TOP_SPEED = 4.0  # of the window over an image, pixels of the crop per frame


class ClipDataset:
    """Random high-resolution crops; the same seed, step and place always give the same.

    An image becomes a clip by moving the crop window over it at a constant speed.

    Args:
        root: folder searched recursively. A file belongs to the nearest MANIFEST.csv in its folder,
            in those above it, up to the one that holds `root`; then it must have a row there
            (columns file, licence), and a non-commercial licence leaves it out.
        crop: side of the square crops, pixels.
        frames: consecutive frames in a crop.
        seed: a natural number.
        cache: folder for the decoded sources, 8 bits per sample; None keeps all of them in memory.

    Attributes:
        sources: what is used, names relative to `root`, sorted.
        excluded: what is not used, and why.
        cached: whether the pixels are on disk, so that other processes can have the data cheaply.

    Raises:
        SettingsError: for a crop or number of frames below 1.
        MediaError: when a file or manifest cannot be read, or nothing usable is left.
    """

    def __init__(
        self, root: Path, *, crop: int, frames: int, seed: int = 0, cache: Path | None = None
    ) -> None:
        if crop < 1 or frames < 1:
            raise SettingsError(f"cannot cut {frames} frames of {crop}x{crop}: give 1 or more")
        self.crop, self.frames, self.seed = crop, frames, seed
        self.cached = cache is not None
        self._store = Store(root, cache)
        self.excluded = dict(self._store.excluded)
        self.sources: list[str] = []
        for name, (t, h, w) in sorted(self._store.shapes.items()):
            if min(h, w) < crop:
                self.excluded[name] = f"{w}x{h} is smaller than the crop of {crop}x{crop}"
            elif 1 < t < frames:
                self.excluded[name] = f"{t} frames are fewer than {frames}"
            else:
                self.sources.append(name)
        if not self.sources:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.excluded.items())[:3])
            raise MediaError(f"nothing to train on in {root} ({reasons or 'no clips or images'})")
        images = [name for name in self.sources if self._store.shapes[name][0] == 1]
        clips = [name for name in self.sources if self._store.shapes[name][0] > 1]
        self._images, self._clips = images or clips, clips or images

    def sample(self, step: int, place: int) -> Tensor:
        """One clip of a step's batch: `c t h w`, float32 in [0, 1], c = 3."""
        return self._sample(np.random.default_rng([self.seed, step, place]))

    def _sample(self, rng: np.random.Generator) -> Tensor:  # c t h w
        names = self._images if rng.random() < IMAGE_SHARE else self._clips
        # square root: a clip of a hundred times the pixels should not come a hundred times as often
        weights = np.sqrt([np.prod(self._store.shapes[name]) for name in names])
        name = names[rng.choice(len(names), p=weights / weights.sum())]
        t, h, w = self._store.shapes[name]
        still = t == 1
        roomy = min(h, w) > 2 * self.crop
        subpixel = still and roomy and rng.random() < SUBPIXEL_SHARE
        shrink = 2 if subpixel or (roomy and rng.random() < SHRINK_SHARE) else 1
        window = shrink * self.crop + subpixel  # interpolation reads one pixel more
        speed = TOP_SPEED * shrink if still else 0.0
        path = _path(rng, self.frames, (h - window, w - window), speed, whole=not subpixel)
        times = (
            np.zeros(self.frames, int)
            if still
            else rng.integers(t - self.frames + 1) + np.arange(self.frames)
        )
        pixels = self._store.load(name)
        frames = _cut(pixels, times, path, window)
        if subpixel:
            frames = _shift(frames, torch.from_numpy(path % 1).float())
        if shrink > 1:
            frames = F.avg_pool2d(frames, shrink)
        if rng.random() < 0.5:
            frames = frames.flip(3)
        if rng.random() < 0.5:
            frames = frames.flip(0)
        if still:
            frames = torch.rot90(frames, int(rng.integers(4)), (2, 3))
        return rearrange(frames, "t c h w -> c t h w").contiguous()


class Prefetcher(Generic[T]):
    """Iterates over `fn(step)` in order, with the coming steps computed in background threads.

    Use as a context manager, so that the threads end. An error inside `fn` is raised at its step.

    Args:
        fn: must depend on nothing but the step.
        steps: in order.
        depth: results computed ahead, each in a thread of its own.
    """

    def __init__(self, fn: Callable[[int], T], steps: range, *, depth: int) -> None:
        self._fn, self._steps = fn, iter(steps)
        self._pool = ThreadPoolExecutor(depth, thread_name_prefix="prefetch")
        self._ahead: deque[Future[T]] = deque()
        for _ in range(depth):
            self._submit()

    def _submit(self) -> None:
        if (step := next(self._steps, None)) is not None:
            self._ahead.append(self._pool.submit(self._fn, step))

    def __iter__(self) -> Iterator[T]:
        while self._ahead:
            result = self._ahead.popleft().result()
            self._submit()
            yield result

    def __enter__(self) -> "Prefetcher[T]":
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what was not yet started and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _path(
    rng: np.random.Generator, frames: int, room: tuple[int, int], speed: float, *, whole: bool
) -> NDArray[np.float64]:  # t 2
    """Corners of a window that moves at a constant pace up to `speed`, within 0 to `room`."""
    angle, pace = rng.uniform(0, 2 * np.pi), rng.uniform(0, speed)
    velocity = pace * np.array([np.sin(angle), np.cos(angle)])
    if whole:
        velocity = np.rint(velocity)
    limit = np.array(room) / max(1, frames - 1)
    velocity = np.clip(velocity, -limit, limit)
    if whole:
        velocity = np.trunc(velocity)  # after the clip, towards zero: still within the room
    travel = velocity * (frames - 1)
    start = rng.uniform(np.maximum(0, -travel), np.array(room) - np.maximum(0, travel))
    if whole:
        start = np.rint(start)
    path: NDArray[np.float64] = start + velocity * np.arange(float(frames))[:, None]
    return np.clip(path, np.zeros(2), np.array(room, np.float64))  # against rounding errors only


def _cut(pixels: Pixels, times: NDArray[np.int_], path: NDArray[np.float64], side: int) -> Tensor:
    """Windows of `side` pixels at the whole part of `path`: `t c h w`, float32 in [0, 1]."""
    corners = np.floor(path).astype(int)
    windows = [
        pixels[t, y : y + side, x : x + side] for t, (y, x) in zip(times, corners, strict=True)
    ]
    return rearrange(torch.from_numpy(np.stack(windows)), "t h w c -> t c h w").float() / 255


def _shift(frames: Tensor, part: Tensor) -> Tensor:  # t c h w, t 2 -> t c h-1 w-1
    """Bilinear shift by a part of a pixel, `(y, x)` for each frame."""
    y, x = part[:, :, None, None, None].unbind(1)
    rows = frames[:, :, :-1] * (1 - y) + frames[:, :, 1:] * y
    return rows[..., :-1] * (1 - x) + rows[..., 1:] * x
