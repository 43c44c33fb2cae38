"""Prefetching of clips and deferred writing of results: a thread each, beside the computing one.

Both keep the order, and hold one thing at most: the next to be computed, and the last that was.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


@contextmanager
def ahead(items: Iterator[T], stop: Callable[[], None]) -> Generator[Iterator[T]]:
    """The same items, of which the next is made while the last is used.

    What `items` raises is raised where the item would have come. After leaving nothing runs.

    Args:
        stop: called on leaving, so that `items`, which may be at work then, ends soon.
    """
    context = copy_context()  # a trace that is entered counts what is done in there, too
    with ThreadPoolExecutor(1, "skipsr-read") as thread:

        def ask() -> "Future[T | object]":
            return thread.submit(context.run, next, items, _END)

        def given() -> Iterator[T]:
            coming = ask()
            while (item := coming.result()) is not _END:
                coming = ask()
                yield item  # type: ignore[misc]

        try:
            yield given()
        finally:
            stop()


class Behind(Generic[T]):
    """Does something with one thing after another while whoever hands them over goes on.

    A context manager. What it raises is raised at the next call; leaving waits for what is under
    way, so that nothing of it is lost, also after an exception.
    """

    def __init__(self, do: Callable[[T], None], *, beside: bool = True) -> None:
        """Without `beside` all is done at once, by whoever hands it over."""
        self._do, self._beside = do, beside
        self._thread = ThreadPoolExecutor(1, "skipsr-write")
        self._coming: Future[None] | None = None

    def __enter__(self) -> "Behind[T]":
        self._context = copy_context()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if error is None:
                self.settle()
        finally:
            self._thread.shutdown()
            self._coming = None  # one fault is enough to tell

    def put(self, item: T) -> None:
        """Hand over the next, once the last is done with."""
        if not self._beside:
            self._do(item)
            return
        self.settle()
        self._coming = self._thread.submit(self._context.run, self._do, item)

    def settle(self) -> None:
        """Wait for what is under way."""
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.result()

    def check(self) -> None:
        """Raise what was raised, if anything was by now; waits for nothing."""
        if self._coming is not None and self._coming.done():
            self.settle()
