"""Writing an animated GIF: a palette for each frame, times in hundredths of a second."""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from skipsr.video.container import check_frames, open_output
from skipsr.video.filtered import ready
from skipsr.video.probe import SourceInfo
from skipsr.video.remux import copied_streams

log = logging.getLogger(__name__)
_TICK = Fraction(1, 100)
_FASTEST = 50  # frames a second: what is quicker most players show ten times as slowly


class GifEncoder:
    """Encodes frames into a GIF that is shown again and again; see `VideoEncoder`."""

    bits = 8  # of the pixels that `encode` takes

    def __init__(self, path: Path, info: SourceInfo, size: tuple[int, int]) -> None:
        self._path, self._info = path, info
        self._written, self._last = 0, -1
        self._palettes = _palettes(size)
        final = round((info.last_duration or info.step) * info.time_base / _TICK) or -1
        self._output = open_output(path, "gif", {"loop": "0", "final_delay": str(final)})
        stream = self._output.add_stream("gif", rate=1 / _TICK)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.height, context.width = size
        context.pix_fmt, context.time_base = "pal8", _TICK
        self._stream = stream

    def encode(self, array: NDArray[Any], time: int) -> None:
        """Write one frame, RGB `h w 3` uint8, shown at `time` of the source."""
        frame = VideoFrame.from_ndarray(array, "rgb24")
        shown = round((time - self._info.origin) * self._info.time_base / _TICK)
        self._last = frame.pts = max(shown, self._last + 1)  # no two at once
        frame.time_base = _TICK
        self._palettes.push(frame)
        self._mux()
        self._written += 1

    def finish(self, *, whole: bool = True) -> None:
        """Close the file and count its frames; `whole` makes no difference.

        Raises:
            MediaError: if the file does not hold every frame.
        """
        self._palettes.push(None)
        self._mux()
        self._output.mux(self._stream.encode(None))
        self.close()
        check_frames(self._path, self._written)

    def close(self) -> None:
        """Close the file as it is; closing twice is fine."""
        self._output.close()

    def say_what_is_lost(self) -> None:
        """Tell the log what a GIF cannot hold of the source."""
        if self._info.kind == "video" and copied_streams(self._info):
            log.warning("%s: a GIF holds no sound and no texts: they are left out", self._info.path)
        if self._info.rate > _FASTEST:
            log.warning(
                "%s has %.4g frames a second: most players show a GIF of more than %d slowly",
                *(self._info.path, self._info.rate, _FASTEST),
            )

    def _mux(self) -> None:
        for frame in ready(self._palettes):
            self._output.mux(self._stream.encode(frame))


def _palettes(size: tuple[int, int]) -> Graph:
    """Gives each frame 256 colours of its own, dithered only where it changes."""
    graph = Graph()
    source = graph.add_buffer(
        height=size[0], width=size[1], format=VideoFormat("rgb24"), time_base=_TICK
    )
    split, made = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    used, sink = graph.add("paletteuse", "new=1:diff_mode=rectangle"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(made, 0, 0)
    split.link_to(used, 1, 0)
    made.link_to(used, 0, 1)
    used.link_to(sink)
    graph.configure()
    return graph
