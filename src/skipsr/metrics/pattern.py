"""Screen-door (checkerboard) patterns: a texture that repeats every four pixels.

Networks that enlarge by four leave it when one output pixel of the four is a little too bright.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.metrics.fidelity import luma
from skipsr.metrics.metric import Metric, check_frames, levels

PERIOD = 4  # pixels
TILE = 96  # pixels a side
VISIBLE = 0.5  # grey levels above which a tile counts in `pattern_tiles`


def pattern(frames: Tensor) -> Tensor:
    """Strength of the 4-periodic pattern in every tile of every frame, in grey levels of 255.

    Luma less its mean over 4x4 pixels (rows and columns i-2 to i+1) leaves fine detail. Of a tile,
    the median is taken over the pixels of each of the 16 phases, the position modulo 4 in rows and
    columns: detail that does not repeat cancels out. The strength is the standard deviation of the
    16 medians; a pattern that adds `a` to half of the phases and takes it from the others gives
    `a`.

    Tiles are 96x96 pixels from the top left corner, and what does not fill one is left out. A side
    shorter than that has tiles of its greatest multiple of 4, with fewer pixels in each phase and
    so with more of the picture left in the medians.

    Args:
        frames: `t 3 h w` in [0, 1]; rounded to 8 bits.

    Returns:
        `t rows columns`, float32, 0 or more.

    Raises:
        MetricError: for sides below 4 pixels.
    """
    check_frames(frames, what="a pattern", smallest=PERIOD)
    h, w = frames.shape[-2:]
    tile = min(TILE, h // PERIOD * PERIOD), min(TILE, w // PERIOD * PERIOD)
    # frame by frame, which bounds the memory
    return torch.stack([_of_plane(_grey(frame), tile) for frame in frames])


def _grey(frame: Tensor) -> Tensor:
    """Luma `h w` of a frame `3 h w`, full range: 0 to 255."""
    return (luma(levels(frame)) - 16) * (255 / 219)


def _of_plane(plane: Tensor, tile: tuple[int, int]) -> Tensor:
    """Strengths `rows columns` in a plane `h w` of grey levels."""
    h, w = (size // side * side for size, side in zip(plane.shape, tile, strict=True))
    plane = plane[None, :h, :w]
    before, after = PERIOD // 2, PERIOD - PERIOD // 2 - 1
    padded = F.pad(plane, (before, after, before, after), mode="replicate")
    detail = plane - F.avg_pool2d(padded, PERIOD, stride=1)
    phases = rearrange(
        detail[0],
        "(r y p) (c x q) -> r c (p q) (y x)",
        y=tile[0] // PERIOD,
        x=tile[1] // PERIOD,
        p=PERIOD,
        q=PERIOD,
    )
    return _median(phases).std(-1, correction=0)


def _median(values: Tensor) -> Tensor:
    """Median along the last axis; of an even number, the mean of the middle two."""
    ordered = values.sort(-1).values
    count = values.shape[-1]
    return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2


def _measure(frames: Tensor, truth: Tensor | None) -> dict[str, float]:
    check_frames(frames, truth)
    found = pattern(frames)
    return {
        "pattern_worst": found.max().item(),
        "pattern_mean": found.mean().item(),
        "pattern_tiles": (found > VISIBLE).float().mean().item(),
    }


PATTERN = Metric(
    name="pattern",
    columns={"pattern_worst": "lower", "pattern_mean": "lower", "pattern_tiles": "lower"},
    needs_truth=False,
    default=True,
    measure=_measure,
)
"""Grey levels of the worst tile of all frames, their mean over tiles and frames, and the share of
tiles over half a level, 0 to 1."""
