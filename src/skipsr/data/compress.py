"""Lossy compression of clips: JPEG frame by frame, and real video codecs.

Shapes are `c t h w`, c = 3, with values in [0, 1]; results lie on the 8-bit grid k/255.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.data.filters import Dice, check_range
from skipsr.errors import SettingsError

if TYPE_CHECKING:
    from skipsr.video.roundtrip import LossyCodec

_MCU = 16  # pixels a side that share one block of each chroma plane
_BLOCK = 8
# ITU-T T.81, tables K.1 and K.2: steps of luma and chroma at quality 50
_LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
_TO_YCC = (  # JFIF 1.02, page 3: BT.601 at full range
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg:
    """Each frame as a JPEG, at a quality that drifts."""

    probability: float = 1.0
    quality: tuple[int, int] = (30, 95)
    """Lowest and highest, of 1 to 100."""

    def __post_init__(self) -> None:
        check_range("JPEG probability", (self.probability, self.probability), 0, 1)
        check_range("JPEG quality", self.quality, 1, 100)

    def at(self, strength: float) -> "Jpeg":
        """The same at higher quality; 0 is quality 100."""
        low, high = (100 - round((100 - bound) * strength) for bound in self.quality)
        return replace(self, quality=(low, high))

    def __call__(self, frames: Tensor, dice: Dice) -> Tensor:
        if not dice.chance(self.probability):
            return frames
        return compress_jpeg(frames, dice.walk(self.quality, frames.shape[1]).round())


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """The clip as one H.264 or MPEG-4 stream of constant quality.

    RealBasicVSR draws bit rates instead, but what a bit rate does depends on the size of the crop.
    These ranges run from hardly visible to strongly blocked.
    """

    h264: float = 2 / 3
    """Share of H.264; the rest is MPEG-4 part 2."""
    crf: tuple[int, int] = (18, 35)
    """Best and worst CRF of H.264, of 0 to 51."""
    quantizer: tuple[int, int] = (2, 12)
    """Finest and coarsest quantiser of MPEG-4, of 1 to 31."""

    def __post_init__(self) -> None:
        check_range("share of H.264", (self.h264, self.h264), 0, 1)
        check_range("CRF", self.crf, 0, 51)
        check_range("MPEG-4 quantiser", self.quantizer, 1, 31)

    def at(self, strength: float) -> "Video":
        """The same at better quality; 0 is CRF 0 and quantiser 1."""
        crf, quantizer = (
            (best + round((low - best) * strength), best + round((high - best) * strength))
            for best, (low, high) in ((0, self.crf), (1, self.quantizer))
        )
        return replace(self, crf=crf, quantizer=quantizer)

    def __call__(self, frames: Tensor, dice: Dice) -> Tensor:
        codec: LossyCodec = "h264" if dice.chance(self.h264) else "mpeg4"
        low, high = self.crf if codec == "h264" else self.quantizer
        return compress_video(frames, codec, low + int(dice.uniform(0, high - low + 1)))


def compress_jpeg(frames: Tensor, quality: Tensor | int) -> Tensor:
    """What a JPEG file does to each frame: 4:2:0, the tables of T.81 annex K scaled by quality.

    Computed on the device of the frames. Everything lossy of the format is here; its entropy
    coding is lossless and is left out. Differs from libjpeg by rounding only.

    Args:
        frames: `c t h w`, c = 3, in [0, 1].
        quality: 1 to 100, one number or one per frame, `t`.

    Returns:
        `c t h w` on the 8-bit grid, in the type of `frames`.
    """
    _, t, h, w = frames.shape
    qualities = torch.as_tensor(quality, dtype=torch.float32).expand(t).to(frames.device)
    pixels = frames.float().clamp(0, 1).mul(255).round()
    # chroma around 0: its shift by 128 is undone by that of the blocks
    ycc = _mix(F.pad(pixels, (0, -w % _MCU, 0, h % 2), mode="replicate"), _TO_YCC).round()
    luma = _requantize(ycc[0] - 128, _steps(_LUMA_STEPS, qualities)) + 128
    # halves go down and up in turn from column to column, as in libjpeg
    bias = torch.tensor([0.25, 0.5]).to(ycc).repeat(ycc.shape[3] // 4)
    halves = (F.avg_pool2d(ycc[1:], 2) + bias).floor()
    steps = _steps(_CHROMA_STEPS, qualities)
    small = torch.stack([_requantize(plane, steps) for plane in halves])[..., : (w + 1) // 2]
    # bilinear at half a pixel's offset is the triangle filter of common decoders
    chroma = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False).round()
    decoded = torch.cat([luma[None, :, :h, :w].clamp(0, 255), chroma[..., :h, :w].clamp(-128, 127)])
    return (_mix(decoded, _TO_RGB).round().clamp(0, 255) / 255).to(frames)


def compress_video(frames: Tensor, codec: "LossyCodec", quality: int) -> Tensor:
    """The clip through a video codec and back, in memory.

    Args:
        frames: `c t h w`, c = 3, in [0, 1].
        codec: "h264" or "mpeg4".
        quality: CRF of H.264 or quantiser of MPEG-4; lower is better.

    Returns:
        `c t h w` on the 8-bit grid, on the device and in the type of `frames`.

    Raises:
        SettingsError: if PyAV is missing or cannot encode, or for a quality the codec has not.
    """
    check_video()
    from skipsr.video.roundtrip import round_trip  # noqa: PLC0415 - training can do without PyAV

    pixels = rearrange(frames, "c t h w -> t h w c").clamp(0, 1).mul(255).round().byte()
    decoded = round_trip(np.ascontiguousarray(pixels.cpu().numpy()), codec, quality)
    return rearrange(torch.from_numpy(decoded), "t h w c -> c t h w").to(frames) / 255


@cache
def check_video() -> None:
    """Refuse, before anything is drawn, what only fails with the first compressed clip.

    Raises:
        SettingsError: if PyAV is not installed.
    """
    if find_spec("av") is None:
        raise SettingsError(
            "video compression needs PyAV: install it (pip install av), "
            "or train with Degradation(video=0)"
        )


def _mix(planes: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:  # c t h w -> d t h w
    return torch.einsum("d c, c t h w -> d t h w", torch.tensor(matrix).to(planes), planes)


def _steps(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """Quantisation steps at some qualities, as libjpeg scales them: `t -> t 64`."""
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    base = torch.tensor(table, dtype=torch.float32, device=quality.device).flatten()
    scaled = (base * percent[:, None] + 50) / 100
    return scaled.floor().clamp(1, 255)


def _requantize(plane: Tensor, steps: Tensor) -> Tensor:
    """Round the cosine transform of 8x8 blocks to whole steps: `t h w`, `t 64 -> t h w`.

    The last row is repeated to complete a block; w must be a multiple of 8.
    """
    height = plane.shape[1]
    padded = F.pad(plane[None], (0, 0, 0, -height % _BLOCK), mode="replicate")[0]
    blocks = rearrange(padded, "t (y i) (x j) -> t (y x) (i j)", i=_BLOCK, j=_BLOCK)
    # one product with a 64x64 matrix is faster than two with many small ones
    transform = _cosines().to(plane)
    # libjpeg keeps eighths, and rounds halves away from zero; after, halves go up
    eighths = (blocks @ transform.T * 8).round()
    levels = (eighths.abs() / (8 * steps[:, None]) + 0.5).floor() * eighths.sign()
    restored = (levels * steps[:, None] @ transform + 0.5).floor()
    rows = padded.shape[1] // _BLOCK
    whole = rearrange(restored, "t (y x) (i j) -> t (y i) (x j)", y=rows, i=_BLOCK)
    return whole[:, :height]


@cache
def _cosines() -> Tensor:
    """The orthonormal cosine transform of an 8x8 block as a matrix, `64 64`."""
    place = torch.arange(_BLOCK, dtype=torch.float64)
    rows = torch.cos(math.pi / _BLOCK * (place + 0.5) * place[:, None]) / 2
    rows[0] /= math.sqrt(2)
    both = torch.einsum("u i, v j -> u v i j", rows, rows)
    return rearrange(both, "u v i j -> (u v) (i j)").float()
