"""Where causal layers keep the last frames that they saw of a clip."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class TailMemory:
    """On the device as long as there is room, then in the host's memory."""

    def __init__(self, room: int | None = None) -> None:
        """Args:
        room: bytes on the device; None: for all.
        """
        self._room, self._taken = room, 0

    def take(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """Memory for a tail, of the dtype of `like`, on its device or the host's."""
        size = math.prod(shape) * like.element_size()
        full = self._room is not None and self._taken + size > self._room
        if full and like.device.type != "cpu":
            return self._on_host(like, shape)
        self._taken += size
        return like.new_empty(shape)

    def _on_host(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        pinned = torch.cuda.is_available()  # so that copies need not be waited for
        return torch.empty(shape, dtype=like.dtype, pin_memory=pinned)
