"""Frames on their way from a card to the host's memory."""

from types import TracebackType

import torch
from torch import Tensor


class Landing:
    """Puts frames into a tensor of the host piece by piece, while a card goes on to the next.

    A piece is brought over by the card itself, to memory that it can reach, and put into its place
    when the one after it is under way, or at the end of the `with`.
    """

    def __init__(self, frames: Tensor) -> None:
        """Args:
        frames: `t c h w`, all there will be.
        """
        self._frames = frames
        self._under_way: tuple[int, Tensor, torch.cuda.Event] | None = None

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

    def __enter__(self) -> "Landing":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._settle()

    def _settle(self) -> None:
        if self._under_way is None:
            return
        first, frames, event = self._under_way
        event.synchronize()
        self._frames[first : first + len(frames)] = frames
        self._under_way = None
