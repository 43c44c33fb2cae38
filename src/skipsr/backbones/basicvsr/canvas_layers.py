"""The layers of a BasicVSR on canvases (`skipping.canvas`)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.backbones.basicvsr.beyond import Beyond
from skipsr.backbones.basicvsr.blocks import ResidualBlock, Trunk
from skipsr.nn.convolution import (
    convolve_add,
    convolve_add_,
    convolve_relu,
    convolve_relu_,
    fuses,
)
from skipsr.skipping.canvas import CanvasPlan


def run_blocks(trunk: Trunk, plan: CanvasPlan, x: Tensor, beyond: Beyond | None = None) -> Tensor:
    """All residual blocks on the middle of a canvas, `1 h' w' c`, whose last place is cleared.

    Args:
        beyond: the guesses of all layers of this trunk; None: zeros.
    """
    if plan.full:
        x = x.permute(0, 3, 1, 2)
        for block in trunk.blocks:
            x = block(x)
        return x.permute(0, 2, 3, 1)
    canvas, padding = plan.padded(x), plan.padding
    between = torch.empty_like(canvas)
    enclose, enclose_between = plan.encloser(canvas), plan.encloser(between)
    seen, inner = (each.permute(0, 3, 1, 2) for each in (canvas, between))
    sums, first = (each[:, :, *plan.middle] for each in (seen, inner))
    fill, fill_between = (_filler(beyond, each) for each in (canvas, between))

    def run_first(block: ResidualBlock, layer: int) -> None:
        if fuses(seen, block.conv1.weight):
            convolve_relu_(seen, block.conv1, padding, first)
            enclose_between()
        else:  # one step in place of many, each of which a GPU has to be sent
            y = convolve_relu(seen, block.conv1, padding)
            plan.padded(y.permute(0, 2, 3, 1), between)
        fill_between(layer)

    fill(0)
    *blocks, last = trunk.blocks
    for i, block in enumerate(blocks):
        run_first(block, 2 * i + 1)
        convolve_add_(inner, block.conv2, padding, sums)
        enclose()
        fill(2 * i + 2)
    run_first(last, 2 * len(blocks) + 1)
    x = convolve_add(inner, last.conv2, padding, sums).permute(0, 2, 3, 1)  # keeps no canvas
    x[:, -1, -1] = 0  # stands for what is skipped
    return x


def _filler(beyond: Beyond | None, canvas: Tensor) -> Callable[[int], None]:
    return (lambda _layer: None) if beyond is None else beyond.filler(canvas)


def run_layer(plan: CanvasPlan, x: Tensor, conv: nn.Module, beyond: Beyond | None = None) -> Tensor:
    """A convolution from middle to middle, `1 h' w' c -> 1 h' w' c'`."""
    if plan.full:
        return convolve(x, conv, (1, 1))
    canvas = plan.padded(x)
    if beyond is not None:
        beyond.filler(canvas)(0)
    return convolve(canvas, conv, plan.padding)


def convolve(x: Tensor, conv: nn.Module, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """`1 h w c -> 1 h' w' c'`."""
    assert isinstance(conv, nn.Conv2d)
    y = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=padding)
    return y.permute(0, 2, 3, 1)
