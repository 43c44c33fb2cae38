"""What causal layers on canvases remember of the frames before (`regional_layers`)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from skipsr.backbones.seedvr2.canvas_levels import CanvasLevels
from skipsr.nn.causal import CausalConv3d
from skipsr.nn.fused import copy_rows
from skipsr.nn.tails import TailMemory
from skipsr.nn.transfer import copy_over
from skipsr.skipping.canvas import GUTTER


class RegionalTails:
    """The last frames that each layer saw of one clip, on the canvas that it sees next.

    That is no larger than the one they come from, so that of a first frame that is run whole no
    more is held than its successors keep.
    """

    def __init__(self, room: TailMemory | None = None) -> None:
        self._room = room or TailMemory()
        self._memory: dict[CausalConv3d, Tensor] = {}
        self._tails: dict[CausalConv3d, Tensor] = {}

    def close(self) -> None:
        """Nothing is kept any more."""
        self._room.close()

    def __contains__(self, conv: CausalConv3d) -> bool:
        return conv in self._tails

    def put_before(self, conv: CausalConv3d, out: Tensor) -> None:
        """Write the last frames before those that come now, `t height width c`."""
        tail = self._tails[conv]
        copy_over(tail[len(tail) - len(out) :], out)

    def keep(
        self,
        conv: CausalConv3d,
        seen: Tensor,
        last: int,
        levels: CanvasLevels,
        after: CanvasLevels,
        pixels: int,
    ) -> None:
        """Remember the `last` frames of what a layer saw, `t height width c`, on the canvas `after`
        that of `levels`; one frame stands for several."""
        frames, tail = seen[-last:], self._take(conv, seen, last, after, pixels)
        if after is not levels:
            moved = _beside(tail, seen)
            copy_rows(frames.flatten(1, 2), levels.onto(pixels, after), moved.flatten(1, 2))
            frames = moved
        if frames is not tail:
            copy_over(frames, tail)

    def by_bands(
        self,
        conv: CausalConv3d,
        like: Tensor,
        last: int,
        levels: CanvasLevels,
        after: CanvasLevels,
        pixels: int,
    ) -> "Bands":
        """The same of one frame on a full canvas, of which a layer sees some rows after others."""
        tail = self._take(conv, like, last, after, pixels)
        return Bands(tail, _beside(tail, like), levels, after, pixels)

    def _take(
        self, conv: CausalConv3d, like: Tensor, last: int, after: CanvasLevels, pixels: int
    ) -> Tensor:
        """Memory for a tail, that of the one before if it is large enough."""
        shape = (last, *after.plan(pixels).shape, conv.in_channels)
        size = math.prod(shape)
        memory = self._memory.get(conv)
        if memory is None or len(memory) < size:
            memory = self._memory[conv] = self._room.take(like, (size,))
        tail = self._tails[conv] = memory[:size].view(shape)
        return tail


@dataclass(frozen=True, slots=True)
class Bands:
    """A tail that is put together of bands of rows, each of whole strips."""

    _tail: Tensor
    _moved: Tensor  # the same where the layer is
    _levels: CanvasLevels
    _after: CanvasLevels
    _pixels: int

    def keep(self, seen: Tensor, top: int) -> None:
        """Take canvas rows from `top` on, `1 rows width c`; the first and last only lead to what
        others show."""
        rows, width = seen.shape[1:3]
        if self._after.plan(self._pixels).full:
            self._moved[:, top : top + rows] = seen
            return
        here = self._levels.plan(self._pixels)
        columns = self._after.columns_of(self._pixels, top, top + rows - 2 * GUTTER)
        slots = self._levels.onto(self._pixels, self._after).view(self._moved.shape[1:3])
        slots = slots[:, columns].flatten()
        # the band's first row ends as the canvas' does, in zero
        slots = torch.where(slots == here.zero, here.zero, slots - top * width)
        shape = (len(self._moved), self._moved.shape[1], -1, seen.shape[3])
        found = seen.new_empty(len(self._moved), len(slots), seen.shape[3])
        copy_rows(seen.flatten(1, 2), slots, found)
        self._moved[:, :, columns] = found.view(shape)

    def finish(self) -> None:
        if self._moved is not self._tail:
            copy_over(self._moved, self._tail)


def _beside(tail: Tensor, seen: Tensor) -> Tensor:
    """A tail, or memory of its shape where `seen` is."""
    return tail if tail.device == seen.device else seen.new_empty(tail.shape)
