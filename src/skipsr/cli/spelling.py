"""Settings, which messages and docstrings name by their Python names in backticks, as flags."""

import logging
import re


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def spell(text: str, form: str = "{}") -> str:
    """The text with `max_memory` as --max-memory, put into `form`."""
    return re.sub(r"`([a-z][a-z0-9_]*)`", lambda name: form.format(flag(name[1])), text)


class SpellingFormatter(logging.Formatter):
    """Log lines for people at a command line."""

    def format(self, record: logging.LogRecord) -> str:
        return spell(super().format(record))
