"""Times and frame rates as people give them."""

import re
from fractions import Fraction
from numbers import Real

from skipsr.errors import SettingsError

_LEAST, _MOST = Fraction(1, 1000), 1000
_ROUNDED = Fraction(1, 5000)  # of itself, as 23.98 is; whole rates are five times as far off
_TIME = re.compile(r"(?:(?:(\d{1,5}):)?(\d{1,5}):)?(\d{1,9}(?:\.\d+)?)")
Trim = tuple[Fraction | None, Fraction | None]  # seconds: from where, and up to where
WHOLE: Trim = (None, None)


def as_rate(fps: object) -> Fraction:
    """Frames per second of the setting `fps`; 23.976, 29.97 and the like are those of NTSC.

    Raises:
        SettingsError: for what is no rate.
    """
    try:
        rate = Fraction(str(fps))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not _LEAST <= rate <= _MOST:
        raise SettingsError(
            f"`fps` {fps} is no frame rate: give a number such as 25 or 23.976, or 24000/1001"
        )
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return ntsc if abs(ntsc - rate) < _ROUNDED * rate else rate


def read_time(text: str) -> Fraction | None:
    """Seconds of a time such as 90, 10.4, 1:30 or 00:00:10.400; None for what is none."""
    match = _TIME.fullmatch(text) if text.isascii() else None
    if match is None:
        return None
    hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def told(seconds: float | Fraction) -> str:
    """A time as a number of seconds, to the millisecond."""
    return f"{float(seconds):.3f}".rstrip("0").rstrip(".")


def as_seconds(name: str, time: object) -> Fraction:
    """Seconds of what was given as the setting `name`, a number or a text for `read_time`.

    Raises:
        SettingsError: for what is no time.
    """
    text = str(time)
    if not isinstance(time, bool) and isinstance(time, Real):
        text = f"{float(time):f}"
    seconds = read_time(text)
    if seconds is None:
        raise SettingsError(
            f"`{name}` {time} is no time: give seconds, or one such as 1:30 or 0:01:30.5"
        )
    return seconds
