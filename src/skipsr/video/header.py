"""A file's header, read without decoding: to refuse files that are too large to be taken."""

from dataclasses import dataclass
from pathlib import Path

import av
from av.video.stream import VideoStream

from skipsr.video.container import media_errors, open_input
from skipsr.video.images import is_image, probe_image


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Of a video or an image. A file may say anything: its frames are checked when they come."""

    streams: int
    """Of all kinds; 1 for an image."""
    pixels: int
    """Of the largest picture."""
    seconds: float
    """Length of a video; 0 where nothing is said."""


def read_header(path: Path) -> Header:
    """Look at a video or an image without decoding it.

    Raises:
        MediaError: if it cannot be read.
    """
    if is_image(path):
        info = probe_image(path)
        return Header(streams=1, pixels=info.width * info.height, seconds=0.0)
    with media_errors(path), open_input(path) as container:
        pictures = [
            stream.codec_context.width * stream.codec_context.height
            for stream in container.streams
            if isinstance(stream, VideoStream)
        ]
        return Header(
            streams=len(container.streams),
            pixels=max(pictures, default=0),
            seconds=(container.duration or 0) / av.time_base,
        )
