"""Settings, which messages and docstrings name by their Python names in backticks, as flags."""

import logging
import re


def spell(text: str) -> str:
    """The text with `max_memory` as --max-memory."""
    return re.sub(r"`([a-z][a-z0-9_]*)`", lambda name: "--" + name[1].replace("_", "-"), text)


class SpellingFormatter(logging.Formatter):
    """Log lines for people at a command line."""

    def format(self, record: logging.LogRecord) -> str:
        return spell(super().format(record))
