"""Where the colour of 4:2:0 lies, for codecs whose files do not say so."""

from collections.abc import Iterator
from fractions import Fraction

from av.filter import Graph
from av.video.frame import VideoFrame

_SILENT = ("vp9", "av1")
"""Mostly made of H.264, whose colour lies left in the middle; swscale takes it for centred. What
AV1 may say instead cannot be told from nothing here."""


def sited(frames: Iterator[VideoFrame], codec: str, *, hdr: bool) -> Iterator[VideoFrame]:
    """The same frames, with those of silent codecs said to have their colour left in the middle.

    Args:
        codec: its FFmpeg name, such as "av1".
        hdr: HDR video has it top left, and AV1 says so.

    Raises:
        av.FFmpegError: if the filter refuses a frame.
    """
    if codec not in _SILENT or hdr:
        yield from frames
        return
    graph, like = Graph(), None
    for frame in frames:
        if "420" not in frame.format.name:
            yield frame
            continue
        if like != (frame.width, frame.height, frame.format.name):
            like = frame.width, frame.height, frame.format.name
            graph = _graph(frame)
        time, decoded = frame.pts, frame.dts
        graph.vpush(frame)
        frame = graph.vpull()
        frame.pts, frame.dts = time, decoded
        yield frame


def _graph(like: VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=like.width,
        height=like.height,
        format=like.format,
        time_base=like.time_base or Fraction(1, 90000),
    )
    says = graph.add("setparams", "chroma_location=left")
    graph.link_nodes(source, says, graph.add("buffersink")).configure()
    return graph
