"""Frames through a lossy codec and back, in memory: what compression does to footage."""

import io
from fractions import Fraction
from typing import Literal

import numpy as np
from av.codec import Codec as AVCodec
from av.codec.context import CodecContext
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from skipsr.errors import SettingsError
from skipsr.video.color import ColorTags, FrameMaker, Matrix, RGBReader

LossyCodec = Literal["h264", "mpeg4"]

_ENCODERS: dict[LossyCodec, str] = {"h264": "libx264", "mpeg4": "mpeg4"}
_QUALITIES: dict[LossyCodec, range] = {"h264": range(52), "mpeg4": range(1, 32)}
_TAGS = ColorTags(matrix=Matrix.SMPTE170M)  # limited range BT.601, as most small footage
_MACROBLOCK = 16  # pixels a side
_RATE = Fraction(25)  # frames per second


def round_trip(frames: NDArray[np.uint8], codec: LossyCodec, quality: int) -> NDArray[np.uint8]:
    """Encode frames as 4:2:0 video and decode them; the same input always gives the same output.

    Args:
        frames: `t h w 3`, RGB, full range. Borders are repeated up to whole macroblocks.
        codec: H.264 by libx264, with B-frames and deblocking, or MPEG-4 part 2.
        quality: constant quality, lower is better: the CRF of H.264, 0 to 51, or the quantiser of
            MPEG-4, 1 to 31.

    Returns:
        `t h w 3`, as `frames`.

    Raises:
        SettingsError: for a quality outside its range, or a PyAV built without the encoder.
    """
    if quality not in _QUALITIES[codec]:
        bounds = _QUALITIES[codec]
        raise SettingsError(
            f"the quality of {codec} goes from {bounds[0]} (best) to {bounds[-1]}, not {quality}"
        )
    h, w = frames.shape[1:3]
    padding = ((0, 0), (0, -h % _MACROBLOCK), (0, -w % _MACROBLOCK), (0, 0))
    packets = _encode(np.pad(frames, padding, mode="edge"), codec, quality)
    decoder = VideoCodecContext.create(codec, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    reader = RGBReader(_TAGS, 8)
    decoded = [reader.read(frame) for packet in packets for frame in decoder.decode(packet)]
    return np.stack(decoded)[:, :h, :w]


def jpeg_round_trip(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Encode an RGB image `h w 3` as a 4:2:0 JPEG of a quality of 1 to 100, and decode it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.array(Image.open(file))


def _encode(
    frames: NDArray[np.uint8], codec: LossyCodec, quality: int
) -> "list[Packet[VideoStream] | None]":
    """Packets, and None at the end: it asks a decoder for the frames it holds back."""
    encoder = _open_encoder(codec)
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = 1 / _RATE, _RATE
    # one thread, and no choices by processor: otherwise the bytes vary from machine to machine
    encoder.thread_count = 1
    if codec == "h264":
        steady = "lookahead-threads=1:cpu-independent=1"
        encoder.options = {"preset": "veryfast", "crf": str(quality), "x264-params": steady}
    else:
        encoder.qmin = encoder.qmax = quality
    maker = FrameMaker("yuv420p", _TAGS)
    packets: list[Packet[VideoStream] | None] = []
    for time, pixels in enumerate(frames):
        frame = maker.make(np.ascontiguousarray(pixels))
        frame.pts, frame.time_base = time, 1 / _RATE
        packets += encoder.encode(frame)
    return [*packets, *encoder.encode(None), None]


def _open_encoder(codec: LossyCodec) -> VideoCodecContext:
    try:
        context = CodecContext.create(AVCodec(_ENCODERS[codec], "w"))
    except (FFmpegError, ValueError) as error:
        raise SettingsError(
            f"this installation of PyAV has no {_ENCODERS[codec]}: install the one from PyPI"
        ) from error
    assert isinstance(context, VideoCodecContext)
    return context
