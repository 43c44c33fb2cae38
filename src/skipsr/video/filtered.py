"""Decoded frames through a filter of FFmpeg's."""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

from av.error import BlockingIOError as WantsMore
from av.error import EOFError as EndOfStream
from av.filter import Graph
from av.video.frame import VideoFrame


class FrameFilter:
    """One filter, for frames of one size and format, which come out with the times they had.

    Raises:
        av.FFmpegError: if the filter refuses a frame.
    """

    def __init__(self, first: VideoFrame, name: str, arguments: str) -> None:
        self._like = _shape(first)
        # times: the filter's own are in other units
        self._held: deque[tuple[int | None, int | None]] = deque()
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=first.width,
            height=first.height,
            format=first.format,
            time_base=first.time_base or Fraction(1, 90000),
        )
        made = self._graph.add(name, arguments)
        self._graph.link_nodes(source, made, self._graph.add("buffersink")).configure()

    def fits(self, frame: VideoFrame) -> bool:
        return _shape(frame) == self._like

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Gives the frames that are ready with this one."""
        self._held.append((frame.pts, frame.dts))
        self._graph.vpush(frame)
        return self._ready()

    def flush(self) -> Iterator[VideoFrame]:
        """Gives what was held back."""
        self._graph.vpush(None)
        return self._ready()

    def _ready(self) -> Iterator[VideoFrame]:
        for frame in ready(self._graph):
            frame.pts, frame.dts = self._held.popleft()
            yield frame


def ready(graph: Graph) -> Iterator[VideoFrame]:
    """The frames that a graph has for its sink."""
    while True:
        try:
            yield graph.vpull()
        except (WantsMore, EndOfStream):
            return


def _shape(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
