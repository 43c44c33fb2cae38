"""Uncompressed video that programs hand to each other (YUV4MPEG2): read once, written in order."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Self

import av
from av.error import ArgumentError, FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from skipsr.errors import MediaError
from skipsr.settings import Deinterlace, Encoding
from skipsr.video.color import (
    FrameMaker,
    Matrix,
    RGBReader,
    chroma_step,
    color_range,
    output_tags,
    sample_bits,
    source_tags,
)
from skipsr.video.container import media_errors, video_stream
from skipsr.video.deinterlace import progressive
from skipsr.video.formats import VideoSpec, pixel_format
from skipsr.video.probe import SourceInfo

_FORMAT = "yuv4mpegpipe"
_IN, _OUT = Path("stdin"), Path("stdout")  # as messages name them
_NOT_ONE = (
    "what comes on stdin is no YUV4MPEG2: let `ffmpeg -i FILE -f yuv4mpegpipe -strict -1 -` or "
    "`vspipe -c y4m` write it"
)
_CHROMA = Encoding(codec="h265")  # of the codecs the one of whose formats all can be written


class _Readable:
    """A stream of which PyAV sees no more than this, and so does not try to seek in it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read


class _Writable:
    """The same, to write to."""

    def __init__(self, stream: BinaryIO) -> None:
        self.write = stream.write


class PipeReader:
    """Frames that come on a stream. A context manager.

    Attributes:
        info: what the header and the first frame say; nobody knows how many frames come.
    """

    def __init__(self, stream: BinaryIO, deinterlace: Deinterlace = "auto") -> None:
        """
        Raises:
            MediaError: for what is no YUV4MPEG2, or holds no frame.
        """
        try:
            with media_errors(_IN):
                container = av.open(_Readable(stream), "r", format=_FORMAT)
        except MediaError as error:
            if isinstance(error.__cause__, ArgumentError):
                raise MediaError(_NOT_ONE) from error
            raise
        with ExitStack() as stack:
            stack.callback(container.close)
            video = video_stream(container, _IN)
            with media_errors(_IN):
                decoded = container.decode(video)
                first = next(decoded, None)
            if first is None:
                raise MediaError("no frame comes on stdin: see what the program before it says")
            self.info = _describe(video, first, deinterlace)
            self._decoded = itertools.chain([first], decoded)
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def frames(self) -> Iterator[NDArray[Any]]:
        """Pixels `h w 3` of uint8 or uint16 of every frame, once.

        Raises:
            MediaError: where the stream is damaged.
        """
        reader = RGBReader(self.info.color, self.info.bits)
        with media_errors(_IN):
            for frame in progressive(self._decoded, self.info):
                yield reader.read(frame)


def _describe(stream: VideoStream, first: VideoFrame, deinterlace: Deinterlace) -> SourceInfo:
    rate = stream.average_rate or Fraction(25)
    return SourceInfo(
        path=_IN,
        kind="frames",
        width=first.width,
        height=first.height,
        rate=rate,
        frames=0,
        bits=sample_bits(first),
        color=source_tags(first),
        time_base=1 / rate,
        chroma_step=chroma_step(first.format),
        deinterlace=deinterlace == "auto",
        sample_aspect=stream.sample_aspect_ratio or None,
    )


class PipeWriter:
    """Writes frames to a stream. A context manager; leaving it writes the last of them."""

    def __init__(self, stream: BinaryIO, info: SourceInfo, size: tuple[int, int]) -> None:
        """
        Args:
            info: the source, whose rate, depth and chroma the frames have.
            size: `(height, width)`.
        """
        spec = VideoSpec(info, size, _CHROMA)
        is_rgb = info.color.matrix == Matrix.RGB
        tags = output_tags(info.color, size) if is_rgb else info.color  # whoever reads is not told
        self._frames = FrameMaker(pixel_format(spec), tags)
        self.bits = self._frames.bits
        """Depth of the pixels that `write` takes: 8 or 16."""
        with media_errors(_OUT, "write"):
            # more than 8 bits are an extension of the format
            self._container = av.open(
                _Writable(stream), "w", format=_FORMAT, container_options={"strict": "-1"}
            )
            self._stream = self._container.add_stream("wrapped_avframe", rate=info.rate)
            context = self._stream.codec_context
            context.height, context.width = size
            context.pix_fmt = self._frames.pixel_format
            context.time_base = 1 / info.rate
            context.color_range = int(color_range(self._frames.tags))
            if info.sample_aspect is not None:
                context.sample_aspect_ratio = info.sample_aspect
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        if kind is not None:
            with suppress(FFmpegError, OSError):
                self._container.close()
            return
        with media_errors(_OUT, "write"):
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def write(self, array: NDArray[Any]) -> None:
        """Write a frame, pixels `h w 3` of `bits` bits.

        Raises:
            MediaError: when whoever reads has gone.
        """
        with media_errors(_OUT, "write"):
            frame = self._frames.make(array)
            frame.pts = self._written
            self._container.mux(self._stream.encode(frame))
        self._written += 1
