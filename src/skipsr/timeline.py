"""Frame arithmetic in plain integers: windows over a stream of frames."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from skipsr.errors import SettingsError

T = TypeVar("T")

TOKEN_SIDE = 16  # pixels
TOKEN_FRAMES = 4  # of a token after the first layer, which has one


def token_layer(frame: int) -> int:
    """The layer of tokens that holds a frame: layer 0 frame 0, layer i the frames 4i-3 to 4i."""
    return (frame + TOKEN_FRAMES - 1) // TOKEN_FRAMES


def check_causal(shape: Sequence[int], time: int, side: int) -> None:
    """Raises ValueError unless `... t h w` is `time * n + 1` frames, sides multiples of `side`."""
    t, h, w = shape[-3:]
    if (t - 1) % time or h % side or w % side:
        raise ValueError(
            f"{t} frames of {h}x{w} are not {time}n+1 frames with sides in steps of {side}"
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Frames `[start, end)` of a source."""

    start: int
    end: int

    @property
    def frames(self) -> int:
        return self.end - self.start


def split_shots(
    frames: Iterable[tuple[T, bool]], window: int, overlap: int
) -> Iterator[tuple[Window, list[T]]]:
    """Cut a stream of frames into windows of `window` frames, neighbours sharing `overlap`.

    The stream is read once and its length need not be known. Every frame lies in some window and
    only neighbours overlap. No window holds two shots: the last of each may be shorter, and the
    next shares nothing with it.

    Args:
        frames: and whether a shot begins with each.

    Raises:
        SettingsError: unless `0 <= 2 * overlap <= window` and `window >= 1`.
    """
    check_windows(window, overlap)
    held: list[T] = []
    start = shared = 0  # of what is held, so many frames were in the window before
    for place, (frame, begins) in enumerate(frames):
        if begins:
            if len(held) > shared:
                yield Window(start, place), held
            held, start, shared = [], place, 0
        held.append(frame)
        if len(held) == window:
            yield Window(start, place + 1), held
            held, start, shared = held[window - overlap :], place + 1 - overlap, overlap
    if len(held) > shared:
        yield Window(start, start + len(held)), held


def cut(frames: int, window: int, overlap: int, firsts: Collection[int] = ()) -> Iterator[Window]:
    """The windows of a stream of so many frames, whose shots begin at `firsts`."""
    marked = ((None, place in firsts) for place in range(frames))
    return (place for place, _ in split_shots(marked, window, overlap))


def check_windows(window: int, overlap: int) -> None:
    """Refuse window sizes under which more than two windows would meet in one frame."""
    if window < 1:
        raise SettingsError(f"`window` {window} is too small: give at least 1 frame")
    if overlap < 0 or 2 * overlap > window:
        raise SettingsError(
            f"`overlap` {overlap} does not fit `window` {window}: give 0 to {window // 2} frames"
        )
