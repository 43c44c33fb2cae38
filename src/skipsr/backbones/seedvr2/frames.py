"""Preparing frames for the autoencoder, and the published preparation.

skipsr pads to the sizes the network needs and trims after, so that no row of the picture is lost;
the published scripts crop (1080 rows become 1072). `fit_area` and `center_crop` are theirs.
"""

import math

import torch.nn.functional as F
from torch import Tensor

SIDE = 16  # pixels: 8 in the autoencoder times 2 in the transformer's patch


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with antialias to `(height, width)`, clamped to [0, 1]. Frames `t c h w` in [0,
    1]."""
    if frames.shape[-2:] == size:
        return frames
    sized = F.interpolate(frames, size, mode="bicubic", align_corners=False, antialias=True)
    return sized.clamp(0, 1)


def fit_area(size: tuple[int, int], resolution: tuple[int, int]) -> tuple[int, int]:
    """The published size rule: keep the aspect ratio of `size`, take the area of `resolution`."""
    scale = math.sqrt(math.sqrt(resolution[0] * resolution[1]) ** 2 / (size[0] * size[1]))
    return round(size[0] * scale), round(size[1] * scale)


def center_crop(frames: Tensor, multiple: int = SIDE) -> Tensor:
    """Crop `... h w` to sides that are multiples, about the centre (offsets rounded half to
    even)."""
    h, w = (n // multiple * multiple for n in frames.shape[-2:])
    top, left = (round((a - b) / 2) for a, b in zip(frames.shape[-2:], (h, w), strict=True))
    return frames[..., top : top + h, left : left + w]


def padded_count(frames: int, parts: int = 1) -> int:
    """Frames after the published padding to `4 n parts + 1`; a single frame stays one."""
    if frames == 1:
        return 1
    step = 4 * parts
    return max(1, math.ceil((frames - 1) / step)) * step + 1
