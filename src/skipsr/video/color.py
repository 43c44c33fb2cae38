"""Colour: the matrix and range of a source, those of an output, and the conversion between.

Only the matrix and the range are converted. Primaries and transfer travel from source to output
as tags: the networks see the source's own RGB.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from numpy.typing import NDArray

from skipsr.errors import MediaError

HD_HEIGHT, HD_WIDTH = 720, 1280  # from here on, untagged video is BT.709
HDR_TRANSFERS = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ, HLG


class Matrix(IntEnum):
    """The YUV matrices we convert, by their number in ITU-T H.273."""

    RGB = 0
    BT709 = 1
    UNSPECIFIED = 2
    FCC = 4
    BT470BG = 5  # BT.601, 625 lines
    SMPTE170M = 6  # BT.601, 525 lines: the same numbers
    SMPTE240M = 7
    BT2020 = 9


_SWSCALE = {
    Matrix.RGB: Colorspace.ITU709,  # not used for RGB, but must be given
    Matrix.BT709: Colorspace.ITU709,
    Matrix.FCC: Colorspace.FCC,
    Matrix.BT470BG: Colorspace.ITU601,
    Matrix.SMPTE170M: Colorspace.ITU601,
    Matrix.SMPTE240M: Colorspace.SMPTE240M,
    Matrix.BT2020: Colorspace.BT2020,
}
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorTags:
    """How samples mean colours. Numbers are those of ITU-T H.273; 2 is unspecified."""

    matrix: Matrix
    full_range: bool = False
    primaries: int = int(ColorPrimaries.UNSPECIFIED)
    transfer: int = int(ColorTrc.UNSPECIFIED)

    @property
    def is_hdr(self) -> bool:
        return self.transfer in HDR_TRANSFERS


IMAGE_TAGS = ColorTags(matrix=Matrix.RGB, full_range=True)


def is_hd(height: int, width: int) -> bool:
    """Whether players take untagged video of this size, in pixels, for BT.709."""
    return height >= HD_HEIGHT or width >= HD_WIDTH


def source_tags(frame: VideoFrame) -> ColorTags:
    """Tags of a decoded frame, with the usual assumption in place of each missing one.

    Raises:
        MediaError: for a matrix we cannot convert (YCgCo, ICtCp, constant luminance).
    """
    rgb = _is_rgb(frame)
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    if _is_grey(frame.format):  # FFmpeg's own are full unless they say otherwise
        full = frame.color_range != ColorRange.MPEG
    tags = ColorTags(
        matrix=Matrix.RGB,
        full_range=full or rgb,
        primaries=_known(frame.color_primaries, ColorPrimaries),
        transfer=_known(frame.color_trc, ColorTrc),
    )
    if rgb:
        return tags
    if frame.colorspace in (Matrix.RGB, Matrix.UNSPECIFIED, 3):  # 3 is reserved
        hd = is_hd(frame.height, frame.width)
        return replace(tags, matrix=Matrix.BT709 if hd else Matrix.SMPTE170M)
    if frame.colorspace not in list(Matrix):
        raise MediaError(
            f"its colour matrix (number {frame.colorspace} in H.273) cannot be converted: "
            "convert it to BT.709 first, for example with ffmpeg's zscale filter"
        )
    return replace(tags, matrix=Matrix(frame.colorspace))


def output_tags(source: ColorTags, size: tuple[int, int]) -> ColorTags:
    """Tags of a YUV output of size `(height, width)`: limited range, BT.709 for HD.

    HDR and wide-gamut sources keep BT.2020; small outputs keep BT.709 or BT.601 as the source had
    it. Primaries and transfer are the source's; BT.709 if an HD output has none.
    """
    hd = is_hd(*size)
    primaries, transfer = source.primaries, source.transfer
    if hd and primaries == ColorPrimaries.UNSPECIFIED:
        primaries = int(ColorPrimaries.BT709)
    if hd and transfer == ColorTrc.UNSPECIFIED:
        transfer = int(ColorTrc.BT709)
    if source.matrix == Matrix.BT2020 or transfer in HDR_TRANSFERS:
        matrix = Matrix.BT2020
    elif hd:
        matrix = Matrix.BT709
    elif source.matrix in (Matrix.BT709, Matrix.BT470BG):
        matrix = source.matrix
    else:
        matrix = Matrix.SMPTE170M
    return ColorTags(matrix=matrix, primaries=primaries, transfer=transfer)


def sample_bits(frame: VideoFrame) -> int:
    """8, or 16 for frames with more than 8 bits per sample."""
    return 16 if max(part.bits for part in frame.format.components) > 8 else 8


def chroma_step(pixels: VideoFormat) -> tuple[int, int]:
    """Pixels that share one sample of colour, across and down: 2 and 2 for 4:2:0, and for grey,
    which has no colour to lose."""
    if _is_grey(pixels):
        return 2, 2
    return 16 // pixels.chroma_width(16), 16 // pixels.chroma_height(16)


def is_transparent(frame: VideoFrame) -> bool:
    """Whether a frame has an alpha channel that is used."""
    if not any(part.is_alpha for part in frame.format.components):
        return False
    if not _is_rgb(frame):
        return True
    # decoders of GIF, PNG and the like give alpha to every picture
    return bool(frame.reformat(format="rgba").to_ndarray()[..., 3].min() < 255)


class RGBReader:
    """Converts decoded frames of one source to RGB arrays."""

    def __init__(self, tags: ColorTags, bits: int) -> None:
        self._tags, self._bits = tags, bits
        self._reformatter = VideoReformatter()  # keeps swscale's tables from frame to frame

    def read(self, frame: VideoFrame) -> NDArray[Any]:
        """Pixels `h w 3`, uint8 or uint16 at full scale."""
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24" if self._bits == 8 else "rgb48le",
            src_colorspace=_SWSCALE[self._tags.matrix],
            src_color_range=color_range(self._tags),
            dst_color_range=ColorRange.JPEG,
            interpolation=_EXACT,
        )
        array: NDArray[Any] = rgb.to_ndarray()
        if self._bits == 16 and not _is_rgb(frame):
            # measured: swscale turns YUV white into 255 * 256 of 16 bits, give or take 3
            array = np.minimum(array, 65280)
            array += array >> 8
        if _is_grey(frame.format) and not self._tags.full_range:
            array = _expanded(array)  # swscale takes all grey for full
        return array


class FrameMaker:
    """Converts RGB arrays to frames of one pixel format, tagged."""

    def __init__(self, pixel_format: str, tags: ColorTags) -> None:
        self.pixel_format = pixel_format
        self.tags = tags
        self.bits = 8 if VideoFormat(pixel_format).components[0].bits == 8 else 16
        self._reformatter = VideoReformatter()

    def make(self, array: NDArray[Any]) -> VideoFrame:
        """A frame from pixels `h w 3` of `bits` bits, full scale."""
        if self.bits == 16 and self.tags.matrix != Matrix.RGB:
            # measured: swscale's 16-bit RGB has its white at 255 * 256 when it makes YUV
            array = array - ((array.astype(np.uint32) + 128) // 257).astype(np.uint16)
        source = VideoFrame.from_ndarray(array, format="rgb24" if self.bits == 8 else "rgb48le")
        frame = self._reformatter.reformat(
            source,
            format=self.pixel_format,
            dst_colorspace=_SWSCALE[self.tags.matrix],
            src_color_range=ColorRange.JPEG,
            dst_color_range=color_range(self.tags),
            interpolation=_EXACT,
        )
        frame.colorspace = int(self.tags.matrix)
        frame.color_range = int(color_range(self.tags))
        frame.color_primaries = self.tags.primaries
        frame.color_trc = self.tags.transfer
        return frame


def color_range(tags: ColorTags) -> ColorRange:
    return ColorRange.JPEG if tags.full_range else ColorRange.MPEG


def _is_grey(pixels: VideoFormat) -> bool:
    return pixels.name.startswith(("gray", "mono", "ya"))


def _expanded(array: NDArray[Any]) -> NDArray[Any]:
    """Limited range to full, of 8 bits or 16."""
    white = np.iinfo(array.dtype).max
    wide = (array.astype(np.float32) - white * (16 / 255)) * (255 / 219)
    return wide.round().clip(0, white).astype(array.dtype)


def _is_rgb(frame: VideoFrame) -> bool:
    return frame.format.is_rgb or frame.format.name == "pal8"


def _known(value: int, names: type[IntEnum]) -> int:
    """The value if it is defined, else 2 (unspecified): files do carry reserved numbers."""
    return value if value in {int(name) for name in names} else 2
