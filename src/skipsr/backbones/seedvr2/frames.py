"""Preparing frames for the autoencoder, and finishing what it gives.

skipsr pads to the sizes the network needs and trims after, so that no row of the picture is lost;
the published scripts crop (1080 rows become 1072).
"""

import torch
from torch import Tensor

from skipsr.limits import Limits
from skipsr.nn.color_fix import transfer_low_frequencies
from skipsr.skipping.route import over_pixels
from skipsr.timeline import TOKEN_SIDE

_GOLDEN = 0.618034
SIZES = Limits(step=4, side=TOKEN_SIDE, smallest=8)  # as the published padding has them


def thinned(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """`size` of the pixels of larger frames `t c h w`, as they are, so that noise stays noise.

    Of pixels that lie together one is taken, by the golden ratio: few patterns repeat in step.
    """
    axes = zip(frames.shape[2:], size, strict=True)
    down, across = (_taken(length, count, frames.device) for length, count in axes)
    return frames[:, :, down[:, None], across]


def _taken(length: int, count: int, device: torch.device) -> Tensor:
    number, step = torch.arange(count, device=device), length / count
    return (number * step + (number * _GOLDEN % 1) * (step - 1) + 0.5).long()


def finish(frames: Tensor, source: Tensor, shown: Tensor | None) -> Tensor:
    """Decoded frames `t 3 h w` with the colours of `source`, in [0, 1].

    Args:
        shown: bool `t rows columns`, tokens outside which `source` stands; None: they are all.
    """
    if shown is not None:
        wide = over_pixels(shown, TOKEN_SIDE, frames.shape[2:])
        frames = torch.where(wide[:, None], frames, source)
    return transfer_low_frequencies(frames, source).clamp_(0, 1)
