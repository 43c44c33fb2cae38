"""A card's streams without a card: work is done at once, and checked for what may overlap.

Every use of memory by a stream or the host has to come after the uses before it that it would
disturb, or be disturbed by: in the same stream, or by events, waits and the host's program. Where
only luck would put them in order, `RaceError` is raised. Memory of the card counts as written when
it is allocated, and has to be let go of when other streams than that are done with it, for torch
gives it away again in the stream where it was allocated. Pinned memory torch keeps until it was
read.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CARD = torch.device("cuda", 0)
_NO_USE = {"__get__", "__set__", "empty", "empty_like", "new_empty"}
_MOVES = {"to", "cpu", "copy_"}


class RaceError(AssertionError):
    """Two uses of memory that nothing puts in order."""


class Timeline:
    """A stream's work, or the host's.

    Attributes:
        passed: of each timeline, by its number, how many uses come before what is next here.
    """

    def __init__(self, card: "Streams") -> None:
        self.card = card
        self.number = len(card.timelines)
        card.timelines.append(self)
        self.passed: Counter[int] = Counter()

    def follow(self, passed: Counter[int]) -> None:
        self.card.collect()
        self.passed |= passed

    def wait_stream(self, other: "Timeline") -> None:
        self.follow(other.passed)

    def wait_event(self, event: "Event") -> None:
        self.follow(event.passed)

    def synchronize(self) -> None:
        self.card.host.follow(self.passed)


class Event:
    def __init__(self, card: "Streams") -> None:
        self.card = card
        self.passed: Counter[int] = Counter()

    def record(self, stream: Timeline) -> None:
        self.passed = stream.passed.copy()

    def synchronize(self) -> None:
        self.card.host.follow(self.passed)


@dataclass(slots=True)
class Memory:
    """What was done with a tensor's memory, as numbers of timelines and of their uses.

    Attributes:
        owner: the stream in which the card's was allocated; None for the host's.
    """

    alive: StorageWeakRef
    owner: Timeline | None
    pinned: bool = False
    read: Counter[int] = field(default_factory=Counter)
    written: Counter[int] = field(default_factory=Counter)


class Streams(TorchFunctionMode):
    """Watches torch's functions."""

    def __init__(self) -> None:
        super().__init__()
        self.timelines: list[Timeline] = []
        self.host, self.current = Timeline(self), Timeline(self)
        self._memory: dict[int, Memory] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.collect()
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return CARD if self._of(args[0]).owner else func(*args)
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return self._of(args[0]).owner is not None
        if func == Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return self._of(args[0]).owner is None
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        there = CARD in (kwargs.get("device"), *(args[1:2] if name == "to" else ()))
        pinned = kwargs.pop("pin_memory", False)
        if there:
            kwargs.pop("device", None)
            args = tuple("cpu" if isinstance(x, torch.device) else x for x in args)
        given = {_key(x): self._of(x) for x in _tensors((args, kwargs))}
        on_card = any(memory.owner for memory in given.values())
        moved = name == "to" and (there or on_card)
        result = func(*args, **kwargs, **({"copy": True} if moved else {}))
        if name in ("cpu",) and on_card:
            result = result.clone()
        made = {_key(x): x for x in _tensors(result) if _key(x) not in given}
        goes = there or (on_card and name not in ("to", "cpu"))
        fresh = [self._of(x, self.current if goes else None, pinned) for x in made.values()]
        changed = _tensors(args[:1]) if _in_place(name) else _tensors(kwargs.get("out"))
        if name in _NO_USE or not (made or changed):
            return result  # of memory as it is, or another view
        written = [*fresh, *(self._of(x) for x in changed)]
        used = [*given.values(), *written]
        if not any(memory.owner for memory in used):
            self._use(self.host, given.values(), written)
            return result
        self.current.passed |= self.host.passed  # which queued it
        self._use(self.current, given.values(), written)
        own = [memory for memory in used if memory.owner is None]
        alone = kwargs.get("non_blocking", False) and all(memory.pinned for memory in own)
        if name in _MOVES and own and not alone:
            self.current.synchronize()
        return result

    def collect(self) -> None:
        """Look for memory of the card that was let go of.

        Raises:
            RaceError: where another stream may still be at work on it.
        """
        for key, memory in list(self._memory.items()):
            if not memory.alive.expired():
                continue
            del self._memory[key]
            if memory.owner is not None:
                after = memory.owner.passed | self.host.passed
                _in_order(after, memory.read | memory.written, "given away while it is used")

    def _of(self, x: Tensor, owner: Timeline | None = None, pinned: bool = False) -> Memory:
        key = _key(x)
        if key in self._memory:
            return self._memory[key]
        made = Memory(StorageWeakRef(x.untyped_storage()), owner, pinned)
        if owner is not None or pinned:  # the host's own needs no order but that of its program
            self._memory[key] = made
        if owner is not None:
            owner.passed |= self.host.passed
            self._use(owner, (), [made])
        return made

    def _use(self, who: Timeline, read: Any, written: Any) -> None:
        for memory in read:
            _in_order(who.passed, memory.written, "read before it is written")
        for memory in written:
            _in_order(who.passed, memory.read | memory.written, "written while it is used")
        who.passed[who.number] += 1
        for memory in read:
            memory.read[who.number] = who.passed[who.number]
        for memory in written:
            memory.written[who.number] = who.passed[who.number]

    @contextmanager
    def stream(self, stream: Timeline) -> Generator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


@contextmanager
def card_streams(monkeypatch: pytest.MonkeyPatch) -> Generator[Streams]:
    """Inside, a card is there, whose streams are watched."""
    with monkeypatch.context() as patch, Streams() as card:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "Stream", lambda _device: Timeline(card))
        patch.setattr(torch.cuda, "current_stream", lambda _device: card.current)
        patch.setattr(torch.cuda, "stream", card.stream)
        patch.setattr(torch.cuda, "Event", lambda: Event(card))
        yield card


def _in_order(passed: Counter[int], used: Counter[int], what: str) -> None:
    if not used <= passed:
        raise RaceError(f"memory may be {what}: {dict(used)} after {dict(passed)}")


def _in_place(name: str) -> bool:
    return name == "__setitem__" or (name.endswith("_") and not name.startswith("__"))


def _tensors(x: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor)]


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata
