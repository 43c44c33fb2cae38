"""Frame rates as people give them."""

from fractions import Fraction

from skipsr.errors import SettingsError

_LEAST, _MOST = Fraction(1, 1000), 1000
_ROUNDED = Fraction(1, 200)  # as 23.98 is


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
    return ntsc if abs(ntsc - rate) < _ROUNDED else rate
