"""Frames on their way from a card to the host's memory."""

from typing import Any

import torch
from torch import Tensor


class Landing:
    """Collects frames in the host's memory, piece by piece, while a card goes on to the next.

    A piece is brought over by the card itself, to memory that it can reach, and put into its place
    when the one after it is under way.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Args:
        shape: of all frames, `t c h w`.
        """
        self._frames = torch.empty(shape)
        self._under_way: tuple[int, Tensor, Any] | None = None

    def put(self, first: int, frames: Tensor) -> None:
        """Frames `n c h w`, of which the first is number `first`."""
        if not (frames.is_cuda and torch.cuda.is_available()):
            self._frames[first : first + len(frames)] = frames
            return
        reached = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
        reached.copy_(frames, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(frames.device))
        self._settle()
        self._under_way = first, reached, event

    def all(self) -> Tensor:
        """Every frame, once they have all been put."""
        self._settle()
        return self._frames

    def _settle(self) -> None:
        if self._under_way is None:
            return
        first, frames, event = self._under_way
        event.synchronize()
        self._frames[first : first + len(frames)] = frames
        self._under_way = None
