"""Where a network's weights are while it is not at work: on its device, or in the host's memory.

Weights are only read, so that nothing is ever copied back.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn

Residence = Literal["device", "in turn", "streamed"]


class OffloadedNetwork:
    """A network that is on `device` inside, and in the host's memory otherwise.

    It has to be in the host's memory when this is made; calls may not be nested.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._weights = _HostWeights(network, device)

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
    Parameters have to be in the host's memory when this is made, and buffers on the device.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._weights = [_HostWeights(block, device) for block in blocks]
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
            self._ahead.clear()
            size = max(weights.bytes for weights in self._weights)
            self._places = [
                torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(2)
            ]
            self._left = [None, None]
            if self._side is not None:
                self._side.wait_stream(torch.cuda.current_stream(self._device))
                for place in self._places:
                    place.record_stream(self._side)
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
        if number + 1 == len(self._weights):
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


class _HostWeights:
    """Parameters in the host's memory, pinned where that makes copies asynchronous."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._device = device
        self._parameters = list(network.parameters())
        pin = device.type == "cuda" and torch.cuda.is_available()
        self._kept = [p.data.pin_memory() if pin else p.data for p in self._parameters]
        self.hide()

    @property
    def bytes(self) -> int:
        """Of a place that holds all, each at a multiple of 256."""
        return sum(map(_room, self._kept))

    def upload(self) -> list[Tensor]:
        return [value.to(self._device, non_blocking=True) for value in self._kept]

    def copied_to(self, place: Tensor) -> list[Tensor]:
        """Copies that lie in `place`, uint8 on the device."""
        copies: list[Tensor] = []
        at = 0
        for value in self._kept:
            size = value.numel() * value.element_size()
            copy = place[at : at + size].view(value.dtype).view(value.shape)
            copies.append(copy.copy_(value, non_blocking=True))
            at += _room(value)
        return copies

    def show(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.data = value

    def hide(self) -> None:
        self.show(self._kept)


def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """What is passed when all that was queued in a stream is done."""
    event = torch.cuda.Event()
    event.record(stream)
    return event


def _room(value: Tensor) -> int:
    return -(-value.numel() * value.element_size() // 256) * 256
