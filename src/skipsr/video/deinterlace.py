"""Deinterlacing, by FFmpeg's filter bwdif."""

import logging
from collections.abc import Iterator

from av.video.frame import VideoFrame

from skipsr.video.filtered import FrameFilter
from skipsr.video.probe import SourceInfo

log = logging.getLogger(__name__)
_BWDIF = "bwdif", "mode=send_frame:deint=interlaced"  # it gives each frame once it has the next


def progressive(frames: Iterator[VideoFrame], info: SourceInfo) -> Iterator[VideoFrame]:
    """As many frames, at the same times, with the interlaced ones deinterlaced.

    Those that are not flagged, or all if the source is not to be deinterlaced, stay as they are.

    Raises:
        av.FFmpegError: if the filter refuses a frame.
    """
    bwdif: FrameFilter | None = None
    told = False
    for frame in frames:
        if frame.interlaced_frame and not told:
            done = "deinterlaced as it is read" if info.deinterlace else "taken as it is"
            log.warning("%s is interlaced: it is %s", info.path, done)
            told = True
        if bwdif is None or not bwdif.fits(frame):
            if bwdif is not None:
                yield from bwdif.flush()
            wanted = frame.interlaced_frame and info.deinterlace
            bwdif = FrameFilter(frame, *_BWDIF) if wanted else None
        if bwdif is None:
            yield frame
        else:
            yield from bwdif.push(frame)
    if bwdif is not None:
        yield from bwdif.flush()
