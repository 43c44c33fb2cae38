"""Weights that come while others are used, with streams that are watched (`card_streams`)."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from card_streams import CARD, RaceError, Streams, Timeline, card_streams
from torch import Tensor, nn

from skipsr.nn.residence import OffloadedNetwork, StreamedBlocks


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    with torch.inference_mode(), card_streams(monkeypatch) as made:
        yield made


def linear(count: int) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(8, 8).requires_grad_(False) for _ in range(count)]


def passed(blocks: list[nn.Linear], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def break_off(blocks: list[nn.Linear], x: Tensor) -> None:
    blocks[0](x)
    with pytest.raises(RuntimeError):
        blocks[1](x[:, :7])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_blocks_come_in_time_and_stay_as_long_as_they_are_used(count: int, card: Streams):
    blocks, x = linear(count), torch.rand(3, 8)
    wanted = passed(blocks, x)
    StreamedBlocks(blocks, CARD)
    for _ in range(2):
        assert torch.equal(passed(blocks, x.to(CARD)).cpu(), wanted)
    assert len(card.timelines) == 3


def test_a_pass_that_broke_off_disturbs_no_other(card: Streams):
    blocks, x = linear(4), torch.rand(3, 8)
    wanted = passed(blocks, x)
    streamed = StreamedBlocks(blocks, CARD)
    break_off(blocks, x.to(CARD))
    assert torch.equal(passed(blocks, x.to(CARD)).cpu(), wanted)
    assert not streamed._places
    break_off(blocks, x.to(CARD))
    left = weakref.ref(streamed)
    del streamed, blocks
    gc.collect()
    assert left() is None
    card.collect()


def test_places_of_a_pass_that_broke_off_go_before_there_are_others(
    card: Streams, monkeypatch: pytest.MonkeyPatch
):
    """There may be no room for both: that may be why it broke off."""
    blocks, x = linear(4), torch.rand(3, 8)
    streamed, empty, held = StreamedBlocks(blocks, CARD), torch.empty, list[int]()
    break_off(blocks, x)

    def memory(*size: Any, **told: Any) -> Tensor:
        if told.get("device") == CARD:
            held.append(len(streamed._places))
        return empty(*size, **told)

    monkeypatch.setattr(torch, "empty", memory)
    passed(blocks, x)
    assert held == [0, 0]


def test_a_network_that_takes_turns_is_there_while_it_is_used(card: Streams):
    (network,), x = linear(1), torch.rand(3, 8)
    wanted, turn = network(x), OffloadedNetwork(network, CARD)
    for _ in range(2):
        with turn:
            found = network(x.to(CARD))
        assert torch.equal(found.cpu(), wanted)


def whole(blocks: list[nn.Linear], x: Tensor) -> None:
    passed(blocks, x)


def again(blocks: list[nn.Linear], x: Tensor) -> None:
    break_off(blocks, x)
    passed(blocks, x)


def gone(blocks: list[nn.Linear], x: Tensor) -> None:
    break_off(blocks, x)
    blocks.clear()
    gc.collect()
    x.sum()  # something that looks for what is gone


NEEDED: dict[str, tuple[str, bool, Callable[[list[nn.Linear], Tensor], None]]] = {
    # a call, whether it is the side stream's, and where it is needed
    "what comes is waited for": ("wait_event", False, whole),
    "what is used is not overwritten": ("wait_event", True, whole),
    "memory is free when it is filled": ("wait_stream", True, whole),
    "what broke off is waited for": ("wait_stream", False, again),
    "what broke off is waited for at the end": ("synchronize", True, gone),
}


@pytest.mark.parametrize("why", NEEDED)
def test_no_wait_is_for_nothing(why: str, card: Streams, monkeypatch: pytest.MonkeyPatch):
    name, side, run = NEEDED[why]
    real, first = getattr(Timeline, name), card.current

    def wait(self: Timeline, *given: Any) -> None:
        if (self is first) == side:
            real(self, *given)

    blocks, x = linear(4), torch.rand(3, 8).to(CARD)
    monkeypatch.setattr(Timeline, name, wait)
    StreamedBlocks(blocks, CARD)
    with pytest.raises(RaceError):
        run(blocks, x)
