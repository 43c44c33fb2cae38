"""Frames that come piece by piece lie in their places."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from card_streams import CARD, RaceError, card_streams
from card_streams import Event as PassedEvent
from torch import Tensor

from skipsr.nn.landing import land
from skipsr.nn.pieces import in_pieces


def test_pieces_land_in_their_places():
    frames, result = torch.rand(7, 3, 6, 10), torch.full((7, 3, 4, 8), torch.nan)
    land(frames[:, :, 1:5, 1:9].split([3, 1, 3]), result)
    assert torch.equal(result, frames[:, :, 1:5, 1:9])


class Card:
    """Copies for which nobody waits come when their event is waited for, and what was done."""

    def __init__(self) -> None:
        self.under_way: list[Callable[[], object]] = []
        self.done: list[str] = []

    def event(self) -> "Event":
        return Event(self)


class Event:
    def __init__(self, card: Card) -> None:
        self.card, self.number = card, card.done.count("sent")

    def record(self, _stream: object) -> None:
        self.copies, self.card.under_way = self.card.under_way, []
        self.card.done.append("sent")

    def synchronize(self) -> None:
        for copy in self.copies:
            copy()
        self.card.done.append(f"waited for {self.number}")


class Piece(Tensor):
    """On the card."""

    card: Card
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        copies = func is Tensor.copy_ and (kwargs or {}).get("non_blocking")
        if not copies:
            return super().__torch_function__(func, types, args, kwargs)
        target, source = args[0], args[1].as_subclass(Tensor)
        cls.card.under_way.append(lambda: target.copy_(source))
        return target


def test_a_card_sends_a_piece_while_the_one_before_is_put_into_its_place(
    monkeypatch: pytest.MonkeyPatch,
):
    card, empty = Card(), torch.empty
    monkeypatch.setattr(Piece, "card", card, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    monkeypatch.setattr(torch.cuda, "Event", card.event)
    pinned: list[tuple[int, ...]] = []

    def memory(shape: tuple[int, ...], dtype: torch.dtype, pin_memory: bool) -> Tensor:
        assert pin_memory
        pinned.append(tuple(shape))
        return empty(shape, dtype=dtype).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", memory)
    frames, result = torch.rand(7, 3, 4, 8), torch.full((7, 3, 4, 8), torch.nan)
    pieces = (piece.as_subclass(Piece) for piece in frames.split([3, 1, 3]))
    land(pieces, result)
    assert torch.equal(result, frames)
    assert pinned == [(3, 3, 4, 8), (1, 3, 4, 8), (3, 3, 4, 8)]
    assert card.done == [
        "sent", "sent", "waited for 0", "sent", "waited for 1", "waited for 2"
    ]  # fmt: skip


def test_the_host_reads_what_has_come_and_a_piece_s_memory_is_free_at_once(
    monkeypatch: pytest.MonkeyPatch,
):
    frames, result = torch.rand(7, 3, 4, 8), torch.full((7, 3, 4, 8), torch.nan)

    def pieces() -> Iterator[Tensor]:
        for part in frames.to(CARD).split([3, 1, 3]):
            piece = part + 1
            yield piece
            piece.fill_(0)

    with torch.inference_mode(), card_streams(monkeypatch):
        land(pieces(), result)
        assert torch.equal(result, frames + 1)
        monkeypatch.setattr(PassedEvent, "synchronize", lambda _: None)
        with pytest.raises(RaceError):
            land(pieces(), result)


@pytest.mark.parametrize(
    ("a", "b", "pieces"),
    [
        (torch.zeros(5, 8), torch.zeros(5, 8), 2),
        (torch.zeros(5, 16).bfloat16(), torch.zeros(5, 16).bfloat16(), 2),
        (torch.zeros(5, 12)[:, 4:], torch.zeros(5, 8), 2),
        (torch.zeros(5, 12)[:, 2:10], torch.zeros(5, 8), None),  # begins within one
        (torch.zeros(5, 9)[:, :8], torch.zeros(5, 8), None),  # rows do
        (torch.zeros(5, 6), torch.zeros(5, 6), None),
        (torch.zeros(8, 5).T, torch.zeros(5, 8), None),
        (torch.zeros(5, 8), torch.zeros(5, 8).half(), None),
    ],
)
def test_pieces_of_16_bytes_where_memory_allows(
    a: torch.Tensor, b: torch.Tensor, pieces: int | None
):
    seen = in_pieces(a, b)
    if pieces is None:
        assert seen[0] is a
        assert seen[1] is b
    else:
        assert seen[0].shape == seen[1].shape == (5, pieces)
        assert seen[0].data_ptr() == a.data_ptr()
