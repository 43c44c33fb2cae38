"""Frames in memory. The only place where layouts, ranges and bit depths change."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from skipsr.errors import MediaError


@dataclass(frozen=True, slots=True)
class Clip:
    """Consecutive frames and where they sit in their source.

    Attributes:
        frames: `t c h w`, c = 3 (RGB), float32 in [0, 1].
        start: index of the first frame in the source.
        times: when each frame is shown, in units of the source's time base, rising; empty where
            that is not known, and frames are spaced evenly.

    Raises:
        ValueError: for another rank, another number of channels, another dtype, or another number
            of times than of frames.
    """

    frames: Tensor
    start: int = 0
    times: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.frames.shape)
        if len(shape) != 4 or shape[1] != 3 or 0 in shape:
            raise ValueError(f"a clip is t c h w with three channels, not {shape}")
        if self.frames.dtype != torch.float32:
            raise ValueError(f"a clip is float32 in [0, 1], not {self.frames.dtype}")
        if self.times and len(self.times) != len(self):
            raise ValueError(f"a clip of {len(self)} frames has no {len(self.times)} times")

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def end(self) -> int:
        """Index of the frame after the last."""
        return self.start + len(self)

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` in pixels."""
        return self.frames.shape[2], self.frames.shape[3]

    def part(self, first: int, end: int) -> "Clip":
        """Frames `[first, end)` of this clip."""
        return Clip(self.frames[first:end], self.start + first, self.times[first:end])

    @staticmethod
    def from_array(array: NDArray[Any], start: int = 0, times: tuple[int, ...] = ()) -> "Clip":
        """A clip from integers `t h w c`: uint8 or uint16, full scale.

        Raises:
            ValueError: for another dtype, whose full scale nobody means, or what makes no clip.
        """
        if array.dtype.name not in ("uint8", "uint16"):
            raise ValueError(f"a clip is made of uint8 or uint16, not {array.dtype}")
        scale = float(np.iinfo(array.dtype).max)
        frames = torch.from_numpy(array.astype(np.float32) / scale)
        return Clip(rearrange(frames, "t h w c -> t c h w").contiguous(), start, times)

    def to_array(self, bits: int = 8) -> NDArray[Any]:
        """Integers `t h w c`, clamped and rounded: uint8 for 8 bits, else uint16 at full scale.

        Raises:
            MediaError: for values that are no numbers, which would be black.
        """
        dtype = np.uint8 if bits == 8 else np.uint16
        scaled = self.frames.clamp(0, 1).mul(float(np.iinfo(dtype).max)).round_()
        if scaled.sum().isnan():
            raise MediaError(
                f"of the frames from {self.start} on some are no numbers (NaN): in float16 values "
                "can leave its range, so give `dtype` float32 or bfloat16"
            )
        return rearrange(scaled, "t c h w -> t h w c").cpu().numpy().astype(dtype)


def extend(frames: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Repeat the last frame, row and column of `t c h w` up to `count` and `size`."""
    rows, columns = size[0] - frames.shape[2], size[1] - frames.shape[3]
    if rows or columns:
        frames = F.pad(frames, (0, columns, 0, rows), mode="replicate")
    if extra := count - frames.shape[0]:
        frames = torch.cat((frames, frames[-1:].expand(extra, -1, -1, -1)))
    return frames
