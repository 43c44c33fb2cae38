"""Shots that are known beforehand, and the file that lists them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from skipsr.errors import SettingsError
from skipsr.files import atomic_write, check_free, text_encoding
from skipsr.times import read_time

T = TypeVar("T")
_LONGEST = 200  # characters of a line: what is longer is no list


@dataclass(frozen=True, slots=True)
class ListedShots:
    """Shots that begin at the frames `firsts`, and at frame 0 in any case."""

    firsts: tuple[int, ...] = ()

    def mark(
        self, frames: Iterable[T], pixels: Callable[[T], NDArray[Any]], start: int = 0
    ) -> Iterator[tuple[T, bool]]:
        """Every frame, and whether a shot begins with it; `pixels` are not looked at.

        Args:
            start: which of all frames is the first of these.
        """
        firsts = {0, *self.firsts}
        return ((frame, place in firsts) for place, frame in enumerate(frames, start))

    def since(self, frame: int) -> "ListedShots":
        """The same shots, where the frames before one are left out."""
        return ListedShots(tuple(first - frame for first in self.firsts if first >= frame))


ONE_SHOT = ListedShots()


def read_list(path: Path, rate: Fraction | None, frames: int | None) -> ListedShots:
    """The shots that a file lists: the first frame of each, a line, in order.

    A whole number is a frame, counted from 0; a number with a point or colons is the time since the
    first frame, in seconds or h:mm:ss. What follows a # is left out.

    Args:
        rate: frames per second; None where times do not tell frames.
        frames: of the source, if that is known.

    Raises:
        SettingsError: for a file that cannot be read, or naming the line that is at fault.
    """
    found: list[int] = []
    for number, text in _lines(path):
        place = f"`shots` {path}, line {number}: {text}"
        first = _frame(text, place, rate)
        if found and first <= found[-1]:
            raise SettingsError(
                f"{place} does not come after frame {found[-1]}: sort the lines, each frame once"
            )
        if frames is not None and first >= frames:
            raise SettingsError(f"{place} is beyond the source, which has {frames} frames")
        found.append(first)
    return ListedShots(tuple(found))


def list_shots(firsts: Iterable[tuple[int, Fraction]]) -> str:
    """The text of a file for `read_list`: first frames, and their times, seconds, as remarks."""
    return "".join(f"{first:<7} # {_clock(time)}\n" for first, time in firsts)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raises SettingsError where a list cannot be written, or would replace one that was edited."""
    if path.is_dir() or not path.parent.is_dir():
        raise SettingsError(f"{path} cannot be a file: give a name in a folder that is there")
    check_free(path, overwrite=overwrite)


def write_list(path: Path, text: str) -> None:
    """Write what `list_shots` made; the file appears when it is complete."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say something, counted from 1."""
    try:
        with path.open("rb") as data:  # opened once, since it may be a pipe
            file = TextIOWrapper(data, encoding=text_encoding(data.peek(2)))
            number = 0
            while line := file.readline(_LONGEST):
                number += 1
                if text := line.partition("#")[0].strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise SettingsError(f"`shots` {path} is no text: {_WANTED}") from error
    except OSError as error:
        raise SettingsError(f"`shots` {path}: {error.strerror}; {_WANTED}") from error


_WANTED = "give auto, off, or a text file with the first frame of a shot, or its time, a line"


def _frame(text: str, place: str, rate: Fraction | None) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    seconds = read_time(text)
    if seconds is None:
        raise SettingsError(
            f"{place} is neither a frame, such as 250, nor a time, such as 10.4 or 00:00:10.400"
        )
    if rate is None:
        raise SettingsError(
            f"{place} is a time, and frames here are not evenly spaced: give frames"
        )
    return round(seconds * rate)


def _clock(seconds: Fraction) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"
