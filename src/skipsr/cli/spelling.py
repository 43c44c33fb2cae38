"""Settings, which messages and docstrings name by their Python names in backticks, as flags."""

import logging
import re

# of a terminal, in names of files; not line ends and tabs
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def spell(text: str, form: str = "{}") -> str:
    """The text with `max_memory` as --max-memory, put into `form`, and control characters shown."""
    spelled = r"`([a-z][a-z0-9_]*)`"
    return re.sub(spelled, lambda name: form.format(flag(name[1])), shown(text))


def shown(text: object) -> str:
    """The text with control characters shown, which would command a terminal."""
    return _COMMANDS.sub(lambda letter: repr(letter[0])[1:-1], str(text))


class SpellingFormatter(logging.Formatter):
    """Log lines for people at a command line."""

    def format(self, record: logging.LogRecord) -> str:
        return spell(super().format(record))
