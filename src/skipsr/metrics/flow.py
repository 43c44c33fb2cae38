"""Dense optical flow, coarse to fine, by Lucas and Kanade (1981; pyramids as Bouguet 2000)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.nn.warp import warp

_SMALLEST = 16  # pixels: no coarser level has a shorter side
_STEPS = 2  # refinements per level
_RADIUS = 4  # of each of the two box blurs that make the window
_STIFFNESS = 1e-5  # of squared gradients in [0, 1]: keeps flat regions still
_LONGEST = 1.0  # pixels of one refinement; larger ones are out of the linear range


def optical_flow(start: Tensor, end: Tensor) -> Tensor:
    """Where each pixel of `start` lies in `end`: start(x) = end(x + flow).

    Args:
        start, end: grey pictures `n h w` in [0, 1].

    Returns:
        `n h w 2` in pixels, across then down, as `nn.warp` takes it; good to a tenth of a pixel on
        texture, a guess where there is none.
    """
    levels = [(start[:, None], end[:, None])]
    while min(levels[-1][0].shape[-2:]) >= 2 * _SMALLEST:
        one, other = (F.avg_pool2d(_blur(x, 1), 2) for x in levels[-1])
        levels.append((one, other))
    flow = start.new_zeros(len(start), 2, *levels[-1][0].shape[-2:])
    for one, other in reversed(levels):
        size, before = one.shape[-2:], flow.shape[-2:]
        if size != before:
            ratio = flow.new_tensor([size[1] / before[1], size[0] / before[0]])
            flow = F.interpolate(flow, size, mode="bilinear", align_corners=False)
            flow = flow * ratio[:, None, None]
        for _ in range(_STEPS):
            moved = warp(other, rearrange(flow, "n two h w -> n h w two"), padding="border")
            flow = flow + _refine(one, moved)
    return rearrange(flow, "n two h w -> n h w two")


def visible(forth: Tensor, back: Tensor) -> Tensor:
    """Pixels of the first picture that the second shows too: bool `n h w`.

    Those whose way forth and back, both `n h w 2`, ends where it began, by the rule of Sundaram,
    Brox and Keutzer (2010), and which stay inside the picture.
    """
    h, w = forth.shape[1:3]
    returned = warp(rearrange(back, "n h w two -> n two h w"), forth, padding="border")
    returned = rearrange(returned, "n two h w -> n h w two")
    gap = (forth + returned).square().sum(-1)
    length = (forth.square() + returned.square()).sum(-1)
    columns, rows = torch.arange(w, device=forth.device), torch.arange(h, device=forth.device)
    across, down = columns + forth[..., 0], rows[:, None] + forth[..., 1]
    inside = (across > -0.5) & (across < w - 0.5) & (down > -0.5) & (down < h - 0.5)
    return (gap < 0.01 * length + 0.5) & inside


def _refine(start: Tensor, end: Tensor) -> Tensor:
    """The shift that makes `end` (`n 1 h w`) fit `start` best in a window about each pixel."""
    dx, dy = _gradients((start + end) / 2)
    change = start - end
    products = torch.cat((dx * dx, dx * dy, dy * dy, dx * change, dy * change), 1)
    xx, xy, yy, xt, yt = _blur(_blur(products, _RADIUS), _RADIUS).split(1, 1)
    xx, yy = xx + _STIFFNESS, yy + _STIFFNESS
    shift = torch.cat((yy * xt - xy * yt, xx * yt - xy * xt), 1) / (xx * yy - xy * xy)
    return shift.clamp(-_LONGEST, _LONGEST)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences across and down, border replicated."""
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    dx = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    dy = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return dx, dy


def _blur(x: Tensor, radius: int) -> Tensor:
    """Box mean along rows and columns; at the border, of the pixels there are."""
    side = 2 * radius + 1
    for kernel, padding in (((1, side), (0, radius)), ((side, 1), (radius, 0))):
        x = F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
    return x
