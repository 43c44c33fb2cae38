"""Opening media files: FFmpeg's errors become ours, its chatter stays silent."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import av
import av.logging
from av.container import InputContainer, OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.error import EOFError as EndOfFile
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from skipsr.errors import MediaError
from skipsr.files import check_file
from skipsr.video.clock import AnyStream

av.logging.set_level(None)  # an FFmpeg error reaches the user once, as a MediaError

_NOT_A_VIDEO = (
    "{} is not a video that can be read: it is another kind of file, "
    "or it was cut off or damaged; copy or download it again"
)
_ANOTHER_KIND = (
    "{} is not a video itself, but a playlist, a text or another kind of file: "
    "give the file with the video"
)
# FFmpeg's demuxers of files that hold their pictures themselves. Others open what a file names
# (hls, dash, concat, imf, sdp, avisynth, image2), or draw a text (tty).
_DEMUXERS = (
    "mov matroska avi mpegts mpeg mpegvideo asf asf_o flv ogg gif apng mxf gxf wtv rm nut nuv nsv "
    "dv ivf obu av1 h261 h263 h264 hevc vvc m4v dirac vc1 vc1test cavsvideo mjpeg smjpeg "
    "yuv4mpegpipe swf r3d lvf pva ty bink smk roq flic"
)

# FFmpeg looks at 5 MB, unless told otherwise, and holds in memory what it looks at
_TO_END = {"probesize": str(2**62), "analyzeduration": str(2**62), "fflags": "nobuffer"}


@contextmanager
def media_errors(path: Path, doing: Literal["read", "write"] = "read") -> Generator[None]:
    """Raise whatever FFmpeg or the file system refuse as one sentence that names the file.

    Raises:
        MediaError: in place of `av.FFmpegError` and `OSError`.
    """
    try:
        yield
    except (FFmpegError, OSError) as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise MediaError(f"cannot {doing} {path}: {reason}") from error


def open_input(path: Path, *, to_end: bool = False) -> InputContainer:
    """Open a file for reading.

    Args:
        to_end: whether all of a DVD's MPEG, which announces no stream, is looked through for them.

    Raises:
        MediaError: if it is missing, empty, a folder, a playlist, or nothing FFmpeg recognises.
    """
    check_file(path)
    options = {"format_whitelist": _DEMUXERS.replace(" ", ","), "protocol_whitelist": "file"}
    with media_errors(path):
        try:
            container = _open(path, options)
            if to_end and container.format.name == "mpeg":
                container.close()
                container = _open(path, options | _TO_END)
                container.seek(0, unsupported_byte_offset=True)
            return container
        except (InvalidDataError, EndOfFile) as error:
            raise MediaError(_NOT_A_VIDEO.format(path)) from error
        except ArgumentError as error:  # the demuxer is none of ours; it has read nothing
            raise MediaError(_ANOTHER_KIND.format(path)) from error


def _open(path: Path, options: dict[str, str]) -> InputContainer:
    # `file:` keeps a colon in a name from being taken for a network protocol
    return av.open(f"file:{path}", mode="r", container_options=options, metadata_errors="replace")


def demuxed(container: InputContainer, *streams: AnyStream) -> "Generator[Packet[AnyStream]]":
    """The packets of some streams, whether or not others begin that were not known before."""
    packets = cast("Iterator[Packet[AnyStream]]", container.demux(*streams))
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):  # with which PyAV ends where streams have been added
            return
        yield packet


def open_output(path: Path, container: str, options: dict[str, str]) -> OutputContainer:
    """Open a file for writing as the FFmpeg muxer `container`."""
    with media_errors(path, "write"):
        return av.open(f"file:{path}", mode="w", format=container, container_options=options)


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream to process: FFmpeg's choice, or the first that is no cover art.

    Raises:
        MediaError: if there is none.
    """
    best = container.streams.best("video")
    for stream in (best, *container.streams.video):
        if isinstance(stream, VideoStream) and not is_cover(stream):
            return stream
    raise MediaError(f"{path} has no video stream")


def check_frames(path: Path, written: int) -> None:
    """Count the frames of a file that was finished.

    Raises:
        MediaError: if it does not hold every one.
    """
    with open_input(path) as container:
        stream = video_stream(container, path)
        found = sum(packet.size > 0 for packet in container.demux(stream))
    if found != written:
        raise MediaError(
            f"{path.name} came out with {found} frames of {written}: "
            "check the free space of the disk, or try another `codec`"
        )


def is_cover(stream: Stream) -> bool:
    """Whether a stream is a picture to be shown for the file."""
    return bool(stream.disposition & Disposition.attached_pic)
