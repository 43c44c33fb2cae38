"""Frames on their way from a card to the host's memory."""

from collections.abc import Iterable

import torch
from torch import Tensor

_UnderWay = tuple[Tensor, Tensor, torch.cuda.Event]  # place, what comes there, when it has come


def land(pieces: Iterable[Tensor], frames: Tensor) -> None:
    """Put pieces `n c h w`, one after another, into `frames`, `t c h w` in the host's memory.

    A card brings a piece over by itself, to memory that it can reach, and it is put into its place
    when the one after it is under way.
    """
    done, under_way = 0, None
    for piece in pieces:
        place = frames[done : done + len(piece)]
        done += len(piece)
        if not (piece.is_cuda and torch.cuda.is_available()):
            place.copy_(piece)
            continue
        reached = torch.empty(piece.shape, dtype=piece.dtype, pin_memory=True)
        reached.copy_(piece, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(piece.device))
        _settle(under_way)
        under_way = place, reached, event
    _settle(under_way)


def _settle(under_way: _UnderWay | None) -> None:
    if under_way is not None:
        place, reached, event = under_way
        event.synchronize()
        place.copy_(reached)
