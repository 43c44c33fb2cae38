"""Where causal layers keep the last frames that they saw of a clip."""

import math
from collections.abc import Callable, Sequence
from weakref import finalize

import torch
from torch import Tensor

from skipsr.nn.pinned import aligned, power_above


class HostMemory:
    """The host's memory for tails that wait there, kept from one clip to the next.

    Pinned by themselves, tails would take up to twice their bytes, and those of clips of which more
    or less is skipped would add up (`pinned`). Here they lie side by side in a few pieces.
    """

    def __init__(self, empty: Callable[[int], Tensor] | None = None) -> None:
        """Args:
        empty: gives a tensor of so many bytes; by default pinned memory where there is a card.
        """
        self._empty = empty or _pinned
        self._free: dict[Tensor, Tensor] = {}  # by themselves, so that each is given but once

    def take(self, least: int, expected: int) -> Tensor:
        """A piece for `least` bytes or more, uint8.

        Args:
            expected: bytes of all that is still to come, about.
        """
        fitting = [piece for piece in tuple(self._free) if len(piece) >= least]
        for piece in sorted(fitting, key=len, reverse=True):
            if self._free.pop(piece, None) is not None:  # else another thread was faster
                return piece
        size = power_above(expected)
        if 4 * expected < 3 * size:  # what is left over would be more than a quarter
            size //= 2
        return self._empty(max(power_above(least), size))

    def give_back(self, pieces: list[Tensor]) -> None:
        """Whoever had these needs them no longer, but for what is queued in the same stream."""
        self._free.update(zip(pieces, pieces, strict=True))


class TailMemory:
    """Memory for one clip's tails: on the device as long as there is room, then the host's."""

    def __init__(
        self, room: int | None = None, host: HostMemory | None = None, expected: int = 0
    ) -> None:
        """Args:
        room: bytes on the device; None: for all.
        host: where the others wait; pieces of it are held as long as this lives, until closed.
        expected: bytes of the others, about.
        """
        self._room, self._taken = room, 0
        self._host, self._expected = host or HostMemory(), expected
        self._pieces: list[Tensor] = []
        self._used: list[int] = []  # bytes of each
        self._return = finalize(self, self._host.give_back, self._pieces)
        self._return.atexit = False

    def close(self) -> None:
        """Give back what is held on the host: no tail is read or written any more.

        A traceback that is kept, as of a run that was interrupted, keeps this alive.
        """
        self._return()

    def take(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """Memory for a tail, of the dtype of `like`, on its device or the host's."""
        size = math.prod(shape) * like.element_size()
        full = self._room is not None and self._taken + size > self._room
        if full and like.device.type != "cpu":
            return self._on_host(like, shape)
        self._taken += size
        return like.new_empty(shape)

    def _on_host(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        size = math.prod(shape) * like.element_size()
        room = aligned(size)
        pieces = zip(self._pieces, self._used, strict=True)
        which = next((i for i, (piece, used) in enumerate(pieces) if used + room <= len(piece)), -1)
        if which < 0:
            left = max(0, self._expected - sum(self._used))
            self._pieces.append(self._host.take(room, left))
            self._used.append(0)
        at, self._used[which] = self._used[which], self._used[which] + room
        return self._pieces[which][at : at + size].view(like.dtype).view(*shape)


def _pinned(size: int) -> Tensor:
    """So that copies need not be waited for; usable in every mode, as it stays."""
    with torch.inference_mode(mode=False):
        return torch.empty(size, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
