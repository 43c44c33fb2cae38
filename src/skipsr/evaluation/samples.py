"""From an item of a benchmark to an LR clip and its truth, cropped so that they fit each other."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from skipsr.clip import Clip
from skipsr.data.benchmarks import Item
from skipsr.data.degrade import Degradation, downscale, downscale_bd, quantize
from skipsr.errors import MediaError
from skipsr.settings import ClipSettings
from skipsr.video import Source, open_source
from skipsr.video.images import write_image


@dataclass(frozen=True, slots=True)
class Sample:
    """An LR clip to measure on, and its truth."""

    name: str
    low: Tensor  # t 3 h w in [0, 1], on the 8-bit grid; h and w even
    truth: Tensor | None  # t 3 (scale h) (scale w) in [0, 1]; None where there is none
    scale: int
    whole: tuple[int, int]  # (height, width) of a result before clip and truth were cropped

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` of the result."""
        h, w = self.low.shape[2:]
        return h * self.scale, w * self.scale


def read_sample(item: Item, settings: ClipSettings, smallest: int) -> Sample:
    """Read the first frames of an item and make its LR clip where it must be made.

    Sizes are cropped at the right and below to an even LR size, so that 4:2:0 metrics see whole
    chroma samples.

    Args:
        smallest: shortest LR side that the models take, pixels.

    Raises:
        MediaError: when a file cannot be read, is too small, or LR and truth do not fit, in size or
            number of frames.
    """
    if item.truth is None:
        assert item.low is not None
        low, truth = read_first(item.low, settings.frames), None
    elif item.low is not None and settings.degrade is None:
        low, truth = _read_both(item.low, item.truth, settings.frames)
    else:
        truth = read_first(item.truth, settings.frames)
        h, w = (n // (2 * settings.scale) * 2 * settings.scale for n in truth.shape[2:])
        _check_size(item.truth, truth, min(h, w) // settings.scale, smallest)
        low = _degrade(truth[:, :, :h, :w], item.name, settings)
    return _fit(item, low, truth, settings.scale, smallest)


def write_low(sample: Sample, folder: Path) -> Path:
    """The LR clip as a folder of PNG files; returns it."""
    target = folder / "low"
    target.mkdir()
    for index, image in enumerate(Clip(sample.low).to_array()):
        write_image(target / f"{index:05d}.png", image, None)
    return target


def read_first(path: Path, frames: int) -> Tensor:
    """The first frames of a file, fewer if it has no more: `t 3 h w` in [0, 1].

    Raises:
        MediaError: when it cannot be read, or is cut off before so many.
    """
    with open_source(path) as source:
        return next(source.clips(frames, 0)).frames


def _read_both(low: Path, truth: Path, frames: int) -> tuple[Tensor, Tensor]:
    """The first frames of an LR clip and of its truth, `t 3 h w` each: frame by frame the same."""
    with open_source(low) as given, open_source(truth) as whole:
        if given.info.frames != whole.info.frames:
            count, expected = (_count(source) for source in (given, whole))
            if count != expected:
                raise MediaError(
                    f"{low} has {count} frames and its truth {expected}, so that it is not known "
                    "which belong together: give both the same frames"
                )
        lows, truths = (next(source.clips(frames, 0)).frames for source in (given, whole))
    return lows, truths


def _count(source: Source) -> int:
    """Frames of a source; those of a video, which it only estimates, by decoding it."""
    if source.info.kind == "video":
        return sum(1 for _ in source.frames())
    return source.info.frames


def _fit(item: Item, low: Tensor, truth: Tensor | None, scale: int, smallest: int) -> Sample:
    h, w = low.shape[2:]
    whole = h * scale, w * scale
    if truth is not None:
        whole = max(whole[0], truth.shape[2]), max(whole[1], truth.shape[3])
        sizes = list(zip(truth.shape[2:], low.shape[2:], strict=True))
        if any(round(high / part) != scale for high, part in sizes):
            (th, h), (tw, w) = sizes
            raise MediaError(
                f"{item.low} is {w}x{h} and its truth {tw}x{th}, which is not `scale` {scale}"
            )
        h, w = (min(part, high // scale) for high, part in sizes)
    h, w = h // 2 * 2, w // 2 * 2
    _check_size(item.low or item.truth, low, min(h, w), smallest)
    cropped = None if truth is None else truth[:, :, : h * scale, : w * scale]
    return Sample(item.name, quantize(low[:, :, :h, :w]), cropped, scale, whole)


def _check_size(path: Path | None, frames: Tensor, side: int, smallest: int) -> None:
    if side < smallest:
        h, w = frames.shape[2:]
        raise MediaError(
            f"{path} is {w}x{h}: its LR clip would have {side} pixels a side, "
            f"and at least {smallest} are needed"
        )


def _degrade(truth: Tensor, name: str, settings: ClipSettings) -> Tensor:
    """LR frames; the draws depend on the seed and the clip's name, not on the other clips."""
    frames = rearrange(truth, "t c h w -> 1 c t h w")
    if settings.degrade == "bd":
        low = downscale_bd(frames, settings.scale, "even")  # the one that shifts nothing
    elif settings.degrade == "real":
        seed = (settings.seed * 1_000_003 + zlib.crc32(name.encode())) % 2**64
        generator = torch.Generator().manual_seed(seed)
        low = Degradation(scale=settings.scale, clean=0.0)(frames, generator)
    else:
        low = downscale(frames, settings.scale)
    return rearrange(low, "1 c t h w -> t c h w").clamp(0, 1)
