"""Writing a video file: encoding, colour tags, exact frame times, the source's other streams."""

import logging
import math
import os
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.codec.context import Flags
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.stream import VideoStream
from numpy.typing import NDArray

from skipsr.errors import MediaError
from skipsr.video.color import (
    ColorTags,
    FrameMaker,
    Matrix,
    chroma_step,
    color_range,
    output_tags,
)
from skipsr.video.container import check_frames, media_errors, open_output
from skipsr.video.formats import (
    ENCODERS,
    MUXERS,
    X265_COLUMNS,
    VideoSpec,
    encoder_name,
    pixel_format,
)
from skipsr.video.light import light_options
from skipsr.video.remux import Remuxer, copied_streams

log = logging.getLogger(__name__)
_HEADERS_INSIDE = ("mpegts", "avi")  # containers that leave a codec's headers to its packets
_SQUARE = ("matroska", "webm", "avi")  # containers in which PyAV cannot say a pixel's shape,
_ASPECTS = ("h264", "h265")  # and codecs that do
_SVT_RATE = Fraction(240)  # frames a second; SVT-AV1 takes no more
_UNORDERED = 2  # frames among which there is no B-frame: decoding times are presentation times


class VideoEncoder:
    """Encodes frames into one container, with the audio and subtitles of the source.

    Frames have times in the source's time base. Raises whatever FFmpeg raises.
    """

    def __init__(self, path: Path, spec: VideoSpec, *, whole: Path | None = None) -> None:
        """
        Args:
            whole: what this is a part of (`skipsr.video.join`). A part holds the video alone, its
                packets as an encoder of the whole makes them; its suffix is a muxer's name.
        """
        self._path, self._spec, self._info = path, spec, spec.info
        self._container = MUXERS[(whole or path).suffix.lower()]
        self._is_part = whole is not None
        self._frames = FrameMaker(pixel_format(spec), _tags(spec))
        self._written = self._copied = 0
        self._remuxer: Remuxer | None = None
        self._output, self._stream = self._open()

    @property
    def bits(self) -> int:
        """Depth of the pixels that `encode` takes: 8 or 16."""
        return self._frames.bits

    def encode(self, array: NDArray[Any], time: int) -> None:
        """Write one frame, pixels `h w 3` of `bits` bits, shown at `time` of the source."""
        frame = self._frames.make(array)
        frame.time_base = self._time_base
        frame.pts = self._written if self._is_counted else time - self._info.origin
        self._copy_others(time)
        self._mux(self._stream.encode(frame))
        self._written += 1

    def copy(self, packet: "Packet[VideoStream]", time: int, decoded: int) -> None:
        """Write a packet of a part in place of a frame, shown and decoded at times of the source.

        Packets come in the order in which they are decoded.
        """
        packet.stream = self._stream
        packet.time_base = self._time_base
        if self._is_counted:  # no codec that AVI holds changes the order
            packet.pts = packet.dts = self._written
        else:
            packet.pts, packet.dts = time - self._info.origin, decoded - self._info.origin
        packet.duration = 0  # that of one frame, as an encoder leaves it
        self._copy_others(time)
        self._mux([packet])
        self._written += 1
        self._copied += 1

    def finish(self, *, whole: bool = True) -> None:
        """Write what the encoder still holds, close the file, and count its frames.

        Args:
            whole: whether the source's other streams are copied to their ends.

        Raises:
            MediaError: if the file does not hold every frame.
        """
        if self._copied == 0:
            packets = self._stream.encode(None)
            if self._written <= _UNORDERED:
                for packet in packets:  # x265 leaves their decoding times to chance
                    packet.dts = packet.pts
            self._mux(packets)
        if self._remuxer is not None and whole:
            self._remuxer.copy_until(None)
        self.close()
        check_frames(self._path, self._written)

    def close(self) -> None:
        """Close the file as it is; closing twice is fine."""
        if self._remuxer is not None:
            self._remuxer.close()
        self._output.close()

    def _mux(self, packets: "Iterable[Packet[VideoStream]]") -> None:
        info = self._info
        last = None if info.last_time is None else info.last_time - info.origin
        for packet in packets:
            if packet.pts == last and not self._is_counted:
                packet.duration = info.last_duration  # others are shown until the next
            self._output.mux_one(packet)

    def _copy_others(self, time: int) -> None:
        if self._remuxer is not None:
            self._remuxer.copy_until(time * self._info.time_base)

    @property
    def _is_counted(self) -> bool:
        """AVI has no times: frames follow each other at a constant rate."""
        return self._container == "avi" and not self._is_part

    @property
    def _time_base(self) -> Fraction:
        return 1 / self._info.rate if self._is_counted else self._info.time_base

    def _open(self) -> tuple[OutputContainer, VideoStream]:
        """Write the header; without those of the source's other streams with which that fails."""
        try:
            opened = self._begin()
        except (FFmpegError, ValueError):
            if not self._copies:
                raise
            streams = copied_streams(self._info)
            refused = [one for one in streams if not self._takes(one, streams)]
            try:
                opened = self._begin(refused)  # of all streams, after a passing fault of the disk
            except (FFmpegError, ValueError):
                opened = self._begin(streams)
        if self._remuxer is not None:
            self._remuxer.say_what_is_lost()
        return opened

    def _begin(self, without: Collection[int] = ()) -> tuple[OutputContainer, VideoStream]:
        """Write the header, without some of the streams that are copied."""
        muxer = self._path.suffix[1:] if self._is_part else self._container
        output = open_output(self._path, muxer, self._muxer_options())
        try:
            stream = self._add_stream(output)
            if self._copies:
                self._remuxer = Remuxer(self._info, output, without)
            output.start_encoding()
        except BaseException:
            self._discard(output)
            raise
        return output, stream

    def _takes(self, stream: int, streams: Collection[int]) -> bool:
        """Whether the header can be written with this one alone of the streams to copy."""
        try:
            output, _ = self._begin([one for one in streams if one != stream])
        except (FFmpegError, ValueError):
            return False
        self._discard(output)
        return True

    @property
    def _copies(self) -> bool:
        """Whether the source's other streams are to be copied."""
        return self._info.kind == "video" and not self._is_part

    def _muxer_options(self) -> dict[str, str]:
        if not self._is_part and self._container in ("matroska", "webm"):
            return {"fflags": "+bitexact"}  # or ids in it are random: no two files are alike
        if self._is_part or self._container not in ("mp4", "mov"):
            return {}
        # a late start is stored in the movie's own ticks, by default rounded to milliseconds
        ticks = math.lcm(self._info.time_base.denominator, 1000)
        return {"movflags": "faststart", "movie_timescale": str(ticks if ticks < 10**8 else 1000)}

    def _discard(self, output: OutputContainer) -> None:
        if self._remuxer is not None:
            self._remuxer.close()
            self._remuxer = None
        with media_errors(self._path, "write"):
            output.close()

    def _add_stream(self, output: OutputContainer) -> VideoStream:
        codec, size, encoder = self._spec.codec, self._spec.size, encoder_name(self._spec.codec)
        if encoder == "libx265" and size[1] < X265_COLUMNS:
            raise MediaError(
                f"{codec} cannot encode {size[1]}x{size[0]} pixels safely, which are less than "
                f"{X265_COLUMNS} across: choose another size or another `codec`"
            )
        # a rate steers encoders; when frames are shown, their times say
        rate = min(self._info.rate, _SVT_RATE) if encoder == "libsvtav1" else self._info.rate
        stream = output.add_stream(encoder, rate=rate, options=self._options())
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.height, context.width = size
        context.pix_fmt = self._frames.pixel_format
        context.time_base = self._time_base
        if self._info.sample_aspect is not None:
            context.sample_aspect_ratio = self._info.sample_aspect
        tags = self._frames.tags
        context.colorspace = int(tags.matrix)
        context.color_range = int(color_range(tags))
        context.color_primaries = tags.primaries
        context.color_trc = tags.transfer
        context.thread_type = "AUTO"
        if self._is_part and self._container in _HEADERS_INSIDE:
            context.flags &= ~Flags.global_header
        if not self._is_part and codec == "h265" and self._container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # what Apple's players ask for
        try:
            with _quiet_svt():
                context.open()
        except FFmpegError as error:
            raise MediaError(
                f"{codec} cannot encode {size[1]}x{size[0]} pixels ({error.strerror}): "
                "choose another size or another `codec`"
            ) from error
        return stream

    def _options(self) -> dict[str, str]:
        encoder, asked = ENCODERS[self._spec.codec], self._spec.encoding
        given = {"crf": encoder.crf if asked.crf is None else asked.crf, "preset": asked.preset}
        options = encoder.options | {k: str(v) for k, v in given.items() if v is not None}
        steers = f"{encoder_name(self._spec.codec)[3:]}-params"  # x264's and x265's own
        if steers in options and "420" in self._frames.pixel_format:
            options[steers] += ":chromaloc=1"  # swscale centres chroma, players expect it left
        for key, value in self._light.items():
            options[key] = f"{options[key]}:{value}" if key in options else value
        return options

    @property
    def _light(self) -> dict[str, str]:
        light = self._info.light
        return light_options(light, encoder_name(self._spec.codec)) if light is not None else {}

    def say_what_is_lost(self) -> None:
        """Tell the log what the codec cannot hold of the source."""
        info, codec, size = self._info, self._spec.codec, self._spec.size
        if info.light is not None and not self._light:
            log.warning("%s: its HDR10 metadata is left out: %s files hold none", info.path, codec)
        aspect = info.sample_aspect
        if aspect not in (None, 1) and self._container in _SQUARE and codec not in _ASPECTS:
            log.warning(
                "%s: that its pixels are %d:%d is left out, and players show the result squeezed: "
                "`codec` h265 keeps it",
                *(info.path, *aspect.as_integer_ratio()),
            )
        stored = chroma_step(VideoFormat(self._frames.pixel_format))
        sides = zip(stored, info.chroma_step, size[::-1], (info.width, info.height), strict=True)
        if any(step > own and side / step < whole / own for step, own, side, whole in sides):
            log.warning(
                "%s: %s stores less colour detail than it has: `codec` ffv1 keeps all of it",
                info.path,
                codec,
            )


@contextmanager
def _quiet_svt() -> Generator[None]:
    """Keep SVT-AV1 from printing its settings: it asks the environment, and only when it opens."""
    before = os.environ.get("SVT_LOG")
    os.environ["SVT_LOG"] = "0"
    try:
        yield
    finally:
        os.environ.pop("SVT_LOG")
        if before is not None:
            os.environ["SVT_LOG"] = before


def _tags(spec: VideoSpec) -> ColorTags:
    tags = output_tags(spec.info.color, spec.size)
    if ENCODERS[spec.codec].plain.startswith("yuv"):
        return tags
    return ColorTags(
        matrix=Matrix.RGB, full_range=True, primaries=tags.primaries, transfer=tags.transfer
    )
