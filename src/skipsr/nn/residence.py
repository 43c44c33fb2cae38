"""Where a network's weights are while it is not at work: on its device, or in the host's memory.

Weights are only read, so that nothing is ever copied back.
"""

import weakref
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn

from skipsr.nn.pinned import aligned, power_above
from skipsr.nn.transfer import copy_over, send

Residence = Literal["device", "in turn", "streamed"]
_PIECE = 2**29  # bytes, a power of two


class OffloadedNetwork:
    """A network that is on `device` inside, and in the host's memory otherwise.

    It has to be in the host's memory when this is made; calls may not be nested.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._weights = _HostWeights(network, device, _pinned_for(device))

    def __enter__(self) -> None:
        self._weights.show(self._weights.upload())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._weights.hide()


class StreamedBlocks:
    """Blocks that are run one after another, of which two are on `device` at most.

    While one is run the next is copied, on CUDA on a stream of its own, into two places in turn.
    What `travels` has to be in the host's memory when this is made, and other buffers on the
    device.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._side is not None:  # a pass that broke off may still be copied to its places
            weakref.finalize(self, self._side.synchronize).atexit = False
        pinned = _pinned_for(device)
        self._weights = [_HostWeights(block, device, pinned) for block in blocks]
        self._places: list[Tensor] = []  # bytes on the device, while a pass runs
        self._left: list[torch.cuda.Event | None] = [None, None]  # when each place is free again
        self._ahead: dict[int, tuple[list[Tensor], torch.cuda.Event | None]] = {}
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda *_, number=number: self._begin(number))
            block.register_forward_hook(
                lambda *_, number=number: self._end(number), always_call=True
            )

    def _begin(self, number: int) -> None:
        if number not in self._ahead:  # a pass begins
            if self._side is not None and self._places:  # the one before broke off
                torch.cuda.current_stream(self._device).wait_stream(self._side)
            self._ahead.clear()
            self._places.clear()  # before there are others
            size = max(weights.bytes for weights in self._weights)
            self._places = [
                torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(2)
            ]
            self._left = [None, None]
            if self._side is not None:
                self._side.wait_stream(torch.cuda.current_stream(self._device))
            self._fetch(number)
        copies, arrived = self._ahead.pop(number)
        if arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(arrived)
        self._weights[number].show(copies)
        if number + 1 < len(self._weights):
            self._fetch(number + 1)

    def _end(self, number: int) -> None:
        self._weights[number].hide()
        if self._side is not None:
            self._left[number % 2] = _mark(torch.cuda.current_stream(self._device))
        if number + 1 == len(self._weights):  # all that was fetched has been waited for
            self._places.clear()

    def _fetch(self, number: int) -> None:
        weights, place = self._weights[number], self._places[number % 2]
        if self._side is None:
            self._ahead[number] = weights.copied_to(place), None
            return
        free = self._left[number % 2]
        with torch.cuda.stream(self._side):
            if free is not None:
                self._side.wait_event(free)
            self._ahead[number] = weights.copied_to(place), _mark(self._side)


def travels(network: nn.Module) -> list[Tensor]:
    """What of a network comes and goes: parameters, and matrices that are stored in integers."""
    codes = (buffer for buffer in network.buffers() if not buffer.is_floating_point())
    return [*network.parameters(), *codes]


class PinnedMemory:
    """Pinned memory of the host, in pieces of `_PIECE` bytes that hold tensors side by side.

    Pinned one by one, a 3B model's would take 1.8 times their bytes (`pinned`).
    """

    def __init__(self, *, pin: bool = True) -> None:
        self._pin = pin
        self._piece: Tensor | None = None  # of bytes
        self._used = 0  # of the present piece

    def hold(self, value: Tensor) -> Tensor:
        """A copy of a dense tensor, laid out as it is."""
        size = _room(value)
        if self._piece is None or self._used + size > len(self._piece):
            self._piece = torch.empty(_piece_for(size), dtype=torch.uint8, pin_memory=self._pin)
            self._used = 0
        at, self._used = self._used, self._used + size
        held = self._piece[at : at + value.numel() * value.element_size()].view(value.dtype)
        return held.as_strided(value.shape, value.stride()).copy_(value)


def pinned_bytes(sizes: Iterable[int]) -> int:
    """What `PinnedMemory` takes to hold tensors of so many bytes, in order."""
    taken = left = 0
    for size in map(aligned, sizes):
        if size > left:
            left = _piece_for(size)
            taken += left
        left -= size
    return taken


class _HostWeights:
    """Weights in the host's memory, in pinned memory if that is given: copies then overlap."""

    def __init__(
        self, network: nn.Module, device: torch.device, pinned: PinnedMemory | None
    ) -> None:
        self._device = device
        self._weights = travels(network)
        self._kept: list[Tensor] = []
        for weight in self._weights:  # one at a time, so that no two copies of all are there
            if pinned is not None:
                weight.data = pinned.hold(weight.data)
            self._kept.append(weight.data)

    @property
    def bytes(self) -> int:
        """Of a place that holds all, each at a multiple of 256."""
        return sum(map(_room, self._kept))

    def upload(self) -> list[Tensor]:
        return [send(value, self._device) for value in self._kept]

    def copied_to(self, place: Tensor) -> list[Tensor]:
        """Copies that lie in `place`, uint8 on the device."""
        copies: list[Tensor] = []
        at = 0
        for value in self._kept:
            size = value.numel() * value.element_size()
            copy = place[at : at + size].view(value.dtype).view(value.shape)
            copy_over(value, copy)
            copies.append(copy)
            at += _room(value)
        return copies

    def show(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.data = value

    def hide(self) -> None:
        self.show(self._kept)


def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """What is passed when all that was queued in a stream is done."""
    event = torch.cuda.Event()
    event.record(stream)
    return event


def _pinned_for(device: torch.device) -> PinnedMemory | None:
    return PinnedMemory() if device.type == "cuda" and torch.cuda.is_available() else None


def _room(value: Tensor) -> int:
    return aligned(value.numel() * value.element_size())


def _piece_for(size: int) -> int:
    return max(_PIECE, power_above(size))
