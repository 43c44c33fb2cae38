"""Steps that are recorded, by pretended streams: a card that is not the current one gets them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from skipsr.train.captured import CapturedTurn
from skipsr.train.objective import Batch, ClipBatch, Losses, Phase
from skipsr.train.settings import TrainSettings

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


class OnSecond(Tensor):
    """Says that it is on the second card."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: SECOND)  # type: ignore[assignment]


class Cards:
    """Two cards, of which the first is the current one; what is recorded is what a stream gets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.current = FIRST
        self.streams = {card: Stream(card) for card in (FIRST, SECOND)}
        self.recording: Stream | None = None
        self.graphs: list[Graph] = []
        patch.setattr(torch.cuda, "Stream", lambda device=None: Stream(device or self.current))
        patch.setattr(torch.cuda, "current_stream", lambda: self.streams[self.current])
        patch.setattr(torch.cuda, "device", self._device)
        patch.setattr(torch.cuda, "stream", self._stream)
        patch.setattr(torch.cuda, "graph", self._graph)
        patch.setattr(torch.cuda, "CUDAGraph", Graph)

    def work(self, card: torch.device) -> None:
        """Something is queued there."""
        if self.recording is self.streams[card]:
            self.graphs[-1].recorded += 1

    @contextmanager
    def _device(self, card: torch.device) -> Generator[None]:
        before, self.current = self.current, card
        yield
        self.current = before

    @contextmanager
    def _stream(self, stream: "Stream") -> Generator[None]:
        with self._device(stream.card):
            before, self.streams[stream.card] = self.streams[stream.card], stream
            yield
            self.streams[stream.card] = before

    @contextmanager
    def _graph(
        self, graph: "Graph", stream: "Stream | None" = None, **_: object
    ) -> Generator[None]:
        self.graphs.append(graph)
        with self._stream(stream or Stream(self.current)):
            self.recording = self.streams[self.current]
            yield
            self.recording = None


class Stream:
    def __init__(self, card: torch.device) -> None:
        self.card = card

    def wait_stream(self, other: "Stream") -> None:
        assert other.card == self.card


class Graph:
    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def replay(self) -> None:
        self.replayed += 1


class Optimizer:
    def __init__(self, weight: Tensor) -> None:
        self.param_groups = [{"params": [weight], "lr": torch.tensor(0.0), "share": 1.0}]

    def step(self) -> None:
        pass


def test_steps_are_recorded_where_the_parameters_are(monkeypatch: pytest.MonkeyPatch):
    cards, ran = Cards(monkeypatch), list[torch.device]()
    weight = torch.ones(2).as_subclass(OnSecond).requires_grad_()

    def losses(batch: Batch) -> Losses:
        ran.append(cards.current)
        cards.work(weight.device)
        return Losses((weight * batch.high.mean()).sum(), {})

    settings = TrainSettings(model="skipvsr:tiny", steps=6, batch=1, warmup=1)
    phase = Phase("model", torch.nn.Module(), losses, static=True)
    optimizer: Any = Optimizer(weight)
    turn = CapturedTurn(phase, optimizer, settings)
    high = torch.rand(1, 3, 2, 4, 4)
    for _ in range(6):
        found = turn(ClipBatch(high, high, ()), 1e-3)
    assert found["loss"].item() == pytest.approx(2 * high.mean().item())
    assert ran == [SECOND] * 4  # three as they are, one recorded
    (graph,) = cards.graphs
    assert graph.recorded == 1
    assert graph.replayed == 3
    assert cards.current == FIRST
