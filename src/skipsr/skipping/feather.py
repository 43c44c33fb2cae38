"""The soft edge between refined cells and the plain picture beside them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.nn.transfer import send

RAMP = (1 / 3, 2 / 3)  # of the refined picture on the last pixels beside the plain one


def feather(
    refined: Tensor, size: tuple[int, int], side: int, ramp: Sequence[float] = RAMP
) -> Tensor:
    """Weights of the refined picture in a blend with the base, `h w` in [0, 1].

    They fall over the last pixels before a cell that shows the base, and are zero in there.

    Args:
        refined: bool `rows columns`, cells of `side` pixels.
        size: `(h, w)`; the last cells may reach beyond.
        ramp: the weights of those last pixels, from the border on.
    """
    rows, columns = feather_axes(refined, side, ramp)
    weight = torch.einsum("rcy,rcx->rycx", rows * refined[..., None], columns)
    return weight.flatten(2).flatten(0, 1)[: size[0], : size[1]]


def feather_axes(refined: Tensor, side: int, ramp: Sequence[float] = RAMP) -> tuple[Tensor, Tensor]:
    """The two factors of `feather` in refined cells, `rows columns side` each: down, across."""
    around = F.pad(refined.float()[None, None], (1, 1, 1, 1), mode="replicate")[0, 0] > 0
    rise = torch.tensor([*ramp, *[1.0] * (side - len(ramp))], dtype=torch.float32)
    rise = send(rise, refined.device)
    whole = torch.ones_like(rise)

    def axis(before: Tensor, after: Tensor) -> Tensor:
        return torch.where(before[..., None], whole, rise) * torch.where(
            after[..., None], whole, rise.flip(0)
        )

    return (
        axis(around[:-2, 1:-1], around[2:, 1:-1]),
        axis(around[1:-1, :-2], around[1:-1, 2:]),
    )
