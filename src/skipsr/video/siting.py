"""Where the colour of 4:2:0 lies, for codecs whose files do not say so."""

from collections.abc import Iterator

from av.video.frame import VideoFrame

from skipsr.video.filtered import FrameFilter

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
    says: FrameFilter | None = None
    for frame in frames:
        if codec not in _SILENT or hdr or "420" not in frame.format.name:
            yield frame
            continue
        if says is None or not says.fits(frame):
            says = FrameFilter(frame, "setparams", "chroma_location=left")
        yield from says.push(frame)
