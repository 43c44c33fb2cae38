"""Frames through a lossy codec and back, in memory: what compression does to footage."""

import io
from dataclasses import dataclass
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
from skipsr.video.formats import X265_COLUMNS

LossyCodec = Literal["h264", "hevc", "mpeg2", "mpeg4", "vp9"]
Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"]

_ENCODERS: dict[LossyCodec, str] = {
    "h264": "libx264",
    "hevc": "libx265",
    "mpeg2": "mpeg2video",
    "mpeg4": "mpeg4",
    "vp9": "libvpx-vp9",
}
_QUALITIES: dict[LossyCodec, range] = {
    "h264": range(52),
    "hevc": range(52),
    "mpeg2": range(1, 32),
    "mpeg4": range(1, 32),
    "vp9": range(64),
}
_TAGS = ColorTags(matrix=Matrix.SMPTE170M)  # limited range BT.601, as most small footage
_MACROBLOCK = 16  # pixels a side
_RATE = Fraction(25)  # frames per second


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeWay:
    """How an encoder goes about it; None leaves the encoder's own default."""

    preset: Preset | None = None
    """Of H.264 and HEVC, which are "veryfast" and "ultrafast" by default; others have none."""
    gop: int | None = None
    """Frames from one key frame to the next."""
    b_frames: int | None = None
    """Most B-frames in a row; VP9 has none."""


AS_IT_COMES = EncodeWay()


def round_trip(
    frames: NDArray[np.uint8], codec: LossyCodec, quality: int, way: EncodeWay = AS_IT_COMES
) -> NDArray[np.uint8]:
    """Encode frames as 4:2:0 video and decode them; the same input always gives the same output.

    Args:
        frames: `t h w 3`, RGB, full range. Borders are repeated up to whole macroblocks.
        codec: H.264 by libx264, with B-frames and deblocking, HEVC by libx265, MPEG-2, MPEG-4
            part 2, or VP9 by libvpx, as in a live stream.
        quality: constant quality, lower is better: the CRF of H.264 and HEVC, 0 to 51, or of VP9,
            0 to 63, or the quantiser of MPEG-2 and MPEG-4, 1 to 31.
        way: preset, distance of key frames and B-frames.

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
    columns = max(w + -w % _MACROBLOCK, X265_COLUMNS if codec == "hevc" else 0)
    padding = ((0, 0), (0, -h % _MACROBLOCK), (0, columns - w), (0, 0))
    packets = _encode(np.pad(frames, padding, mode="edge"), codec, quality, way)
    decoder = VideoCodecContext.create(AVCodec(_ENCODERS[codec], "w").canonical_name, "r")
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
    frames: NDArray[np.uint8], codec: LossyCodec, quality: int, way: EncodeWay
) -> "list[Packet[VideoStream] | None]":
    """Packets, and None at the end: it asks a decoder for the frames it holds back."""
    encoder = _open_encoder(codec)
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = 1 / _RATE, _RATE
    _steer(encoder, codec, quality, way)
    maker = FrameMaker("yuv420p", _TAGS)
    packets: list[Packet[VideoStream] | None] = []
    for time, pixels in enumerate(frames):
        frame = maker.make(np.ascontiguousarray(pixels))
        frame.pts, frame.time_base = time, 1 / _RATE
        packets += encoder.encode(frame)
    return [*packets, *encoder.encode(None), None]


def _steer(encoder: VideoCodecContext, codec: LossyCodec, quality: int, way: EncodeWay) -> None:
    """One thread, and no choices by processor: otherwise bytes vary from machine to machine."""
    encoder.thread_count = 1
    if way.gop is not None:
        encoder.gop_size = way.gop
    if way.b_frames is not None and codec != "vp9":
        encoder.max_b_frames = way.b_frames
    crf = {"crf": str(quality)}
    match codec:
        case "h264":
            steady = "lookahead-threads=1:cpu-independent=1"
            encoder.options = {"preset": way.preset or "veryfast", **crf, "x264-params": steady}
        case "hevc":
            steady = "log-level=none:pools=none:frame-threads=1:wpp=0"
            encoder.options = {"preset": way.preset or "ultrafast", **crf, "x265-params": steady}
        case "vp9":
            encoder.bit_rate = 0  # otherwise CRF is a bound of a rate
            encoder.options = {"deadline": "realtime", "cpu-used": "7", "row-mt": "0", **crf}
        case _:
            encoder.qmin = encoder.qmax = quality


def _open_encoder(codec: LossyCodec) -> VideoCodecContext:
    try:
        context = CodecContext.create(AVCodec(_ENCODERS[codec], "w"))
    except (FFmpegError, ValueError) as error:
        raise SettingsError(
            f"this installation of PyAV has no {_ENCODERS[codec]}: install the one from PyPI"
        ) from error
    assert isinstance(context, VideoCodecContext)
    return context
