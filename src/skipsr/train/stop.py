"""A request to stop, heard between two steps."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Stop:
    """While this is open, Ctrl-C and TERM only ask to stop; a second Ctrl-C interrupts at once.

    It replaces handlers that the program has set for these signals; where there is none, they are
    ignored, or end the program, as before. Outside the main thread it does nothing. A context
    manager.

    Raises:
        KeyboardInterrupt: at the end, when a request came that nobody has looked at since.
    """

    def __init__(self) -> None:
        self._asked = self._seen = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}

    def asked(self) -> bool:
        """Whether it is time to stop."""
        self._seen = self._asked
        return self._asked

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if callable(before):
                    self._before[number] = before
                    signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind is None and self._asked and not self._seen:
            raise KeyboardInterrupt

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:  # TERM comes twice from some launchers
            raise KeyboardInterrupt
        self._asked = True
