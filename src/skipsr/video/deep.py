"""Images of 16 bits a colour, which Pillow neither reads nor writes."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from av.codec.context import CodecContext
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray
from PIL.PngImagePlugin import putchunk
from PIL.TiffImagePlugin import ImageFileDirectory_v2

DEEP_SUFFIXES = (".png", ".tif", ".tiff")
_DECODERS = {"PNG": "png", "TIFF": "tiff"}  # by Pillow's names
_READ = ("rgb48be", "rgb48le", "rgba64be", "rgba64le")


def read_deep(path: Path, kind: str | None) -> NDArray[np.uint16] | None:
    """Pixels `h w 3` as they are stored, without transparency; None for a kind of file, or of
    pixels in it, that is not known here."""
    if kind not in _DECODERS:
        return None
    decoder = CodecContext.create(_DECODERS[kind], "r")
    assert isinstance(decoder, VideoCodecContext)
    try:
        frames = [*decoder.decode(Packet(path.read_bytes())), *decoder.decode(None)]
    except FFmpegError:
        return None
    if not frames or frames[0].format.name not in _READ:
        return None
    return np.ascontiguousarray(frames[0].to_ndarray()[..., :3], np.uint16)


def write_deep(
    path: Path,
    array: NDArray[np.uint16],
    profile: bytes | None,
    alpha: NDArray[np.uint8] | None = None,
) -> None:
    """Write pixels `h w 3`, and how opaque they are, `h w`; the suffix is one of DEEP_SUFFIXES."""
    if alpha is not None:
        array = np.dstack((array, alpha.astype(np.uint16) * 257))
    if path.suffix.lower() == ".png":
        _write_png(path, array, profile)
    else:
        _write_tiff(path, array, profile)


def _write_png(path: Path, array: NDArray[Any], profile: bytes | None) -> None:
    height, width, channels = array.shape
    kind = 2 if channels == 3 else 6  # RGB, or RGBA
    rows = np.ascontiguousarray(array, ">u2").view(np.uint8).reshape(height, -1)
    lines = np.empty((height, 1 + rows.shape[1]), np.uint8)
    lines[:, 0] = 2  # each row is stored as what is added to the one above
    lines[:, 1:] = rows
    lines[1:, 1:] -= rows[:-1]
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        putchunk(file, b"IHDR", size, bytes((16, kind, 0, 0, 0)))  # 16 bits
        if profile is not None:
            putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(profile))
        putchunk(file, b"IDAT", zlib.compress(lines.data, 4))  # 6 takes three times as long
        putchunk(file, b"IEND", b"")


def _write_tiff(path: Path, array: NDArray[Any], profile: bytes | None) -> None:
    height, width, channels = array.shape
    tags = ImageFileDirectory_v2()  # which ends in front of the only strip, and has its place
    tags[256], tags[257], tags[258], tags[277] = width, height, (16,) * channels, channels
    tags[259], tags[262], tags[284] = 1, 2, 1  # neither compressed nor in planes, RGB
    tags[273], tags[278], tags[279] = 0, height, array.nbytes
    if channels == 4:
        tags[338] = 2  # the fourth is how opaque, by which the others are not multiplied
    if profile is not None:
        tags[34675] = profile
    with path.open("wb") as file:
        tags.save(file)
        file.write(array.astype("<u2").tobytes())
