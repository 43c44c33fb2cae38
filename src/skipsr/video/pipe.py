"""Uncompressed video that programs hand to each other (YUV4MPEG2): read once, written in order."""

import itertools
import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Self

import av
import numpy as np
from av.container import InputContainer
from av.error import ArgumentError
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
    is_transparent,
    output_tags,
    sample_bits,
    source_tags,
)
from skipsr.video.container import media_errors, video_stream
from skipsr.video.deinterlace import progressive
from skipsr.video.formats import VideoSpec, pixel_format
from skipsr.video.probe import SourceInfo, say_what_is_lost

_FORMAT = "yuv4mpegpipe"
_IN, _OUT = Path("stdin"), Path("stdout")  # as messages name them
_NOT_ONE = (
    "what comes on stdin is no YUV4MPEG2: let `ffmpeg -i FILE -f yuv4mpegpipe -strict -1 -` or "
    "`vspipe -c y4m` write it"
)
_CHROMA = Encoding(codec="h265")  # of the codecs the one of whose formats all can be written
_LENGTH = re.compile(rb"YUV4MPEG2 [^\n]* XLENGTH=(\d+)[ \n]")  # as vspipe writes it


class _Readable:
    """A stream of which PyAV sees no more than this, and so does not try to seek in it.

    Attributes:
        given: bytes that were read.
        expected: frames that the header announces; 0 where it does not.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.given = self.expected = 0
        self._stopped: BaseException | None = None
        reads = self._reads(stream)
        next(reads)
        self.read = reads.send
        """Takes how many bytes to read. A generator's, since then an interrupt is always inside of
        its `try`: out of a callback PyAV only prints it, and goes on."""

    def _reads(self, stream: BinaryIO) -> Generator[bytes, int]:
        data = b""
        try:
            while True:
                data = stream.read((yield data))
                if self.given == 0 and (found := _LENGTH.match(data)):
                    self.expected = int(found[1])
                self.given += len(data)
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            self._stopped = error
            raise InterruptedError from None

    @contextmanager
    def errors(self) -> Generator[None]:
        """As `media_errors`, around all that reads."""
        try:
            with media_errors(_IN):
                yield
        finally:
            if self._stopped is not None:
                raise self._stopped from None


class PipeReader:
    """Frames that come on a stream. A context manager.

    Attributes:
        info: what the header and the first frame say; `frames` is 0 where nobody knows how many
            come.
        depth: bits of a sample, 8 to 16.
    """

    def __init__(self, stream: BinaryIO, deinterlace: Deinterlace = "auto") -> None:
        """
        Raises:
            MediaError: for what is no YUV4MPEG2, or holds no frame.
        """
        self._source = _Readable(stream)
        try:
            with self._source.errors():
                container = av.open(self._source, "r", format=_FORMAT)
        except MediaError as error:
            if isinstance(error.__cause__, ArgumentError):
                raise MediaError(_NOT_ONE) from error
            raise
        with ExitStack() as stack:
            stack.callback(container.close)
            self._end = 0  # of the last whole frame, in bytes
            video = video_stream(container, _IN)
            decoded = self._decode(container, video)
            with self._source.errors():
                first = next(decoded, None)
            if first is None:
                raise MediaError("no frame comes on stdin: see what the program before it says")
            self.info = _describe(video, first, deinterlace, self._source.expected)
            self.depth = max(part.bits for part in first.format.components)
            say_what_is_lost(self.info)
            self._decoded = itertools.chain([first], decoded)
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _decode(self, container: InputContainer, video: VideoStream) -> Iterator[VideoFrame]:
        for packet in container.demux(video):
            if packet.pos is not None:
                self._end = packet.pos + packet.size
            yield from packet.decode()

    def frames(self) -> Iterator[NDArray[Any]]:
        """Pixels `h w 3` of uint8 or uint16 of every whole frame, once; see `check_end`.

        Raises:
            MediaError: where the stream is damaged.
        """
        reader = RGBReader(self.info.color, self.info.bits)
        with self._source.errors():
            for frame in progressive(self._decoded, self.info):
                yield reader.read(frame)

    def check_end(self) -> None:
        """Once all frames were taken, tell whether the last was whole, as of a program that ended
        early it is not.

        Raises:
            MediaError: if it was not.
        """
        if self._source.given > self._end:
            raise MediaError(
                "what comes on stdin ends within a frame: see what the program before it says"
            )


def _describe(
    stream: VideoStream, first: VideoFrame, deinterlace: Deinterlace, expected: int
) -> SourceInfo:
    rate = stream.average_rate or Fraction(25)
    return SourceInfo(
        path=_IN,
        kind="frames",
        width=first.width,
        height=first.height,
        rate=rate,
        frames=expected,
        bits=sample_bits(first),
        color=source_tags(first),
        time_base=1 / rate,
        chroma_step=chroma_step(first.format),
        transparent=is_transparent(first),
        deinterlace=deinterlace == "auto",
        sample_aspect=stream.sample_aspect_ratio or None,
    )


class PipeWriter:
    """Writes frames to a stream, after a header that comes with the first of them."""

    def __init__(
        self, stream: BinaryIO, info: SourceInfo, size: tuple[int, int], depth: int | None = None
    ) -> None:
        """
        Args:
            info: the source, whose rate, shape of pixels and chroma the frames have.
            size: `(height, width)`.
            depth: bits of a sample; by default 8, or 10 for deeper sources.
        """
        spec = VideoSpec(info, size, _CHROMA)
        is_rgb = info.color.matrix == Matrix.RGB
        tags = output_tags(info.color, size) if is_rgb else info.color  # whoever reads is not told
        stored = pixel_format(spec)
        if depth is not None and info.bits > 8:
            stored = stored.replace("p10le", f"p{depth}le")
        self._frames = FrameMaker(stored, tags)
        self.bits = self._frames.bits
        """Depth of the pixels that `write` takes: 8 or 16."""
        self._stream = stream
        self._header = _header(info, size, self._frames)

    def write(self, array: NDArray[Any]) -> None:
        """Write a frame, pixels `h w 3` of `bits` bits.

        Raises:
            MediaError: when whoever reads has gone.
        """
        planes = _planes(self._frames.make(array))
        with media_errors(_OUT, "write"):
            for part in (self._header + b"FRAME\n", *planes):
                left = memoryview(part)
                while left:  # a stream without a buffer may take less
                    left = left[self._stream.write(left) :]
            self._stream.flush()
        self._header = b""


def _header(info: SourceInfo, size: tuple[int, int], frames: FrameMaker) -> bytes:
    rate, shape = info.rate, info.sample_aspect
    aspect = "0:0" if shape is None else f"{shape.numerator}:{shape.denominator}"
    chroma = frames.pixel_format.removeprefix("yuv").removesuffix("le")
    if frames.bits == 8:
        chroma = {"420p": "420jpeg"}.get(chroma, chroma[:-1])  # centred, as swscale makes it
    levels = "FULL" if frames.tags.full_range else "LIMITED"
    tags = f"F{rate.numerator}:{rate.denominator} Ip A{aspect} C{chroma} XCOLORRANGE={levels}"
    return f"YUV4MPEG2 W{size[1]} H{size[0]} {tags}\n".encode()


def _planes(frame: VideoFrame) -> Iterator[bytes]:
    """Samples row by row, without what fills the rows up."""
    sample = 1 if frame.format.components[0].bits == 8 else 2
    for plane in frame.planes:
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
        yield rows[:, : plane.width * sample].tobytes()
