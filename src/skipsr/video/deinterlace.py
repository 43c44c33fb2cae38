"""Deinterlacing, by FFmpeg's filter bwdif."""

import logging
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

from av.error import BlockingIOError as WantsMore
from av.error import EOFError as EndOfStream
from av.filter import Graph
from av.video.frame import VideoFrame

from skipsr.video.probe import SourceInfo

log = logging.getLogger(__name__)


def progressive(frames: Iterator[VideoFrame], info: SourceInfo) -> Iterator[VideoFrame]:
    """As many frames, at the same times, with the interlaced ones deinterlaced.

    Those that are not flagged, or all if the source is not to be deinterlaced, stay as they are.

    Raises:
        av.FFmpegError: if the filter refuses a frame.
    """
    bwdif: _Bwdif | None = None
    told = False
    for frame in frames:
        if frame.interlaced_frame and not told:
            done = "deinterlaced as it is read" if info.deinterlace else "taken as it is"
            log.warning("%s is interlaced: it is %s", info.path, done)
            told = True
        if bwdif is None or not bwdif.fits(frame):
            if bwdif is not None:
                yield from bwdif.flush()
            bwdif = _Bwdif(frame) if frame.interlaced_frame and info.deinterlace else None
        if bwdif is None:
            yield frame
        else:
            yield from bwdif.push(frame)
    if bwdif is not None:
        yield from bwdif.flush()


class _Bwdif:
    """The filter, for frames of one size and format. It gives each frame once it has the next."""

    def __init__(self, first: VideoFrame) -> None:
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
        bwdif = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink")).configure()

    def fits(self, frame: VideoFrame) -> bool:
        return _shape(frame) == self._like

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        self._held.append((frame.pts, frame.dts))
        self._graph.vpush(frame)
        return self._ready()

    def flush(self) -> Iterator[VideoFrame]:
        self._graph.vpush(None)
        return self._ready()

    def _ready(self) -> Iterator[VideoFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except (WantsMore, EndOfStream):
                return
            frame.pts, frame.dts = self._held.popleft()
            yield frame


def _shape(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
