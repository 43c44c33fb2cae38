"""What causal layers on canvases remember of the frames before (`regional_layers`)."""

import math

from torch import Tensor

from skipsr.backbones.seedvr2.canvas_levels import CanvasLevels
from skipsr.nn.causal import CausalConv3d
from skipsr.nn.fused import copy_rows
from skipsr.nn.tails import TailMemory


class RegionalTails:
    """The last frames that each layer saw of one clip, on the canvas that it sees next.

    That is no larger than the one they come from, so that of a first frame that is run whole no
    more is held than its successors keep.
    """

    def __init__(self, room: int | None = None) -> None:
        """Args:
        room: see `TailMemory`.
        """
        self._room = TailMemory(room)
        self._memory: dict[CausalConv3d, Tensor] = {}
        self._tails: dict[CausalConv3d, Tensor] = {}

    def __contains__(self, conv: CausalConv3d) -> bool:
        return conv in self._tails

    def put_before(self, conv: CausalConv3d, out: Tensor) -> None:
        """Write the last frames before those that come now, `t height width c`."""
        tail = self._tails[conv]
        out.copy_(tail[len(tail) - len(out) :], non_blocking=True)

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
        frames, shape = seen[-last:], (last, *after.plan(pixels).shape, seen.shape[3])
        size = math.prod(shape)
        memory = self._memory.get(conv)
        if memory is None or len(memory) < size:
            memory = self._memory[conv] = self._room.take(seen, (size,))
        tail = self._tails[conv] = memory[:size].view(shape)
        if after is not levels:
            moved = tail if tail.device == seen.device else seen.new_empty(shape)
            copy_rows(frames.flatten(1, 2), levels.onto(pixels, after), moved.flatten(1, 2))
            frames = moved
        if frames is not tail:
            tail.copy_(frames, non_blocking=True)
