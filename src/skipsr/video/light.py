"""HDR10's static metadata: the display a video was graded on, and how bright it gets."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame

Point = tuple[Fraction, Fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """A mastering display, SMPTE ST 2086."""

    red: Point
    """Chromaticity, x and y, as the next three."""
    green: Point
    blue: Point
    white: Point
    darkest: Fraction
    """Luminance in cd/m2, as the next."""
    brightest: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """What players use to map an HDR video to their screen."""

    display: Display | None
    content: tuple[int, int] | None
    """MaxCLL and MaxFALL, CTA-861.3: the brightest pixel and frame, in cd/m2."""


@dataclass(frozen=True, slots=True)
class _Words:
    """How an encoder's library is told."""

    option: str  # of FFmpeg, for the library's own parameters
    display: str
    content: str
    steps: tuple[int, int] | None  # integers of 1 / so much chromaticity and cd/m2, or decimals


_WORDS = {
    "libx264": _Words("x264-params", "mastering-display", "cll", (50000, 10000)),
    "libx265": _Words("x265-params", "master-display", "max-cll", (50000, 10000)),
    "libsvtav1": _Words("svtav1-params", "mastering-display", "content-light", None),
}


def source_light(frame: VideoFrame) -> Light | None:
    """What a decoded frame says, None if nothing."""
    mastering = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    level = frame.side_data.get("CONTENT_LIGHT_LEVEL")
    display = None if mastering is None else _display(bytes(mastering))
    content = None
    if level is not None:
        brightest, average = np.frombuffer(bytes(level), "=u4")[:2].tolist()
        content = brightest, average
    return None if display is None and content is None else Light(display=display, content=content)


def light_options(light: Light, encoder: str) -> dict[str, str]:
    """The option that makes an FFmpeg encoder write it, none for one that cannot."""
    words = _WORDS.get(encoder)
    if words is None:
        return {}
    parts: list[str] = []
    if light.display is not None:
        parts.append(f"{words.display}={_text(light.display, words.steps)}")
    if light.content is not None:
        parts.append(f"{words.content}={light.content[0]},{light.content[1]}")
    return {words.option: ":".join(parts)}


def _display(data: bytes) -> Display | None:
    """From FFmpeg's AVMasteringDisplayMetadata: ten rationals and two flags."""
    numbers = np.frombuffer(data, "=i4").tolist()
    if not numbers[20] or not numbers[21]:
        return None  # one half of it: no encoder takes that
    pairs = zip(numbers[:20:2], numbers[1:20:2], strict=True)
    values = [Fraction(top, bottom) for top, bottom in pairs]
    return Display(
        red=(values[0], values[1]),
        green=(values[2], values[3]),
        blue=(values[4], values[5]),
        white=(values[6], values[7]),
        darkest=values[8],
        brightest=values[9],
    )


def _text(display: Display, steps: tuple[int, int] | None) -> str:
    def write(value: Fraction, which: int) -> str:
        return f"{float(value):.5f}" if steps is None else str(round(value * steps[which]))

    points = {"G": display.green, "B": display.blue, "R": display.red, "WP": display.white}
    colours = "".join(f"{name}({write(x, 0)},{write(y, 0)})" for name, (x, y) in points.items())
    return f"{colours}L({write(display.brightest, 1)},{write(display.darkest, 1)})"
