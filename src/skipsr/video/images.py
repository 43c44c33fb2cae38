"""Still images, read and written with Pillow."""

import io
import logging
import re
import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from skipsr.errors import MediaError, SettingsError
from skipsr.files import check_file
from skipsr.times import WHOLE, Trim
from skipsr.video.color import IMAGE_TAGS
from skipsr.video.deep import DEEP_SUFFIXES, read_deep, write_deep
from skipsr.video.probe import SourceInfo
from skipsr.video.trim import Cut, frames_between

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
LOSSLESS_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
# what Pillow may take a file for, whatever its name: it has others, and has EPS run by Ghostscript
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
FOLDER_RATE = Fraction(24)  # frames per second of a folder of images, where none is given
_ORIENTATION = 0x0112  # a tag of EXIF
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_XMP = "XML:com.adobe.xmp"
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_BROKEN = (
    *(OSError, SyntaxError, ValueError, Image.DecompressionBombError),
    *(TypeError, LookupError, EOFError, struct.error),  # of damage that Pillow did not foresee
)
_SAVE: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": "4:4:4"},
    ".jpeg": {"quality": 95, "subsampling": "4:4:4"},
    ".webp": {"quality": 95, "method": 4},
}


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_animated(path: Path) -> bool:
    """Whether an image file holds several images that may be shown in turn; a phone's JPEG holds
    others beside its own."""
    with _opened(path) as image:
        return image.format in ("WEBP", "PNG", "TIFF") and getattr(image, "n_frames", 1) > 1


def probe_image(path: Path) -> SourceInfo:
    """Look at one image.

    Raises:
        MediaError: if it cannot be read.
    """
    check_file(path)
    return _info(path, "image", (path,))


def probe_folder(path: Path, rate: Fraction | None = None) -> SourceInfo:
    """Look at a folder of images, taken in natural order, at so many a second.

    Raises:
        MediaError: if it holds no image, or images of different sizes.
    """
    files = sorted((file for file in path.iterdir() if _is_frame(file)), key=natural_key)
    if not files:
        known = ", ".join(IMAGE_SUFFIXES)
        raise MediaError(f"{path} has no images in it ({known}): save others as 16 bit TIFF first")
    info = _info(path, "folder", tuple(files), rate or FOLDER_RATE)
    bits, transparent = info.bits, info.transparent
    for file in files[1:]:
        height, width, own_bits, has_alpha = _measure(file)
        bits, transparent = max(bits, own_bits), transparent or has_alpha
        if (height, width) != (info.height, info.width):
            raise MediaError(
                f"{file} is {width}x{height}, but {files[0].name} is {info.width}x{info.height}: "
                "all images of a folder must have one size"
            )
    return replace(info, bits=bits, transparent=transparent)


def trimmed_images(info: SourceInfo, trim: Trim) -> SourceInfo:
    """The images of a folder that are shown between two times.

    Raises:
        SettingsError: if there are none, and for an image alone.
    """
    if trim == WHOLE:
        return info
    if info.kind == "image":
        raise SettingsError(
            f"`start` and `end` are for videos and folders of images, and {info.path} is neither: "
            "leave them out"
        )
    times = np.arange(info.frames)
    first, after = frames_between(info.path, times, info.time_base, trim)
    files = info.files[first:after]
    cut = Cut(start=first, end=after, before=first)
    return replace(info, files=files, frames=len(files), last_time=len(files) - 1, cut=cut)


def natural_key(path: Path) -> list[str | int]:
    """Sorts `frame2` before `frame10`."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts]


def read_image(path: Path, bits: int, told: set[str]) -> NDArray[Any]:
    """Pixels `h w 3`, upright; uint8 for 8 bits, uint16 at full scale for 16.

    Args:
        told: what the log was told already of images of the same source; added to.

    Raises:
        MediaError: if the file is damaged.
    """
    with _opened(path) as image:
        lost, may_turn = list[str](), _may_turn(image)
        if getattr(image, "n_frames", 1) > 1:
            lost.append("holds several images: only the first is used")
        is_deep, asks = _is_deep(image), may_turn or image.format == "TIFF"
        is_turned = asks and image.getexif().get(_ORIENTATION, 1) != 1
        array = read_deep(path, image.format) if is_deep and not is_turned else None
        if array is None:
            if is_deep:
                lost.append("has 16 bits a colour in a form of which 8 are read")
            array = _to_rgb(ImageOps.exif_transpose(image) if may_turn else image, path)
        if image.format == "PNG" and not may_turn and image.getexif().get(_ORIENTATION, 1) != 1:
            lost.append("says behind its pixels how it is to be turned: it is not")
        for sentence in lost:
            if sentence not in told:
                log.warning("%s %s", path, sentence)
                told.add(sentence)
    if bits == 16 and array.dtype == np.uint8:
        return array.astype(np.uint16) * 257
    return _shallow(array) if bits == 8 else array


def _shallow(array: NDArray[Any]) -> NDArray[np.uint8]:
    """As 8 bits."""
    if array.dtype == np.uint8:
        return array
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _is_deep(image: Image.Image) -> bool:
    """Whether an image has colour of 16 bits, of which Pillow reads the upper half; before it is
    loaded."""
    stored = (str(tile.args) for tile in getattr(image, "tile", ()))
    return image.mode not in _DEEP_MODES and any(";16" in one for one in stored)


def write_image(
    path: Path, array: NDArray[Any], like: Path | None, *, transparent: bool = False
) -> None:
    """Write pixels `h w 3`, with the colour profile of the image `like`: uint8, or uint16, of
    which formats that have no such depth hold 8 bits.

    Args:
        transparent: with its transparency, too, upsampled, if the format has any.

    Raises:
        MediaError: if the format cannot hold them, by their number as a rule.
        OSError: if the disk refuses.
    """
    suffix, profile = path.suffix.lower(), _profile(like) if like else None
    alpha = None
    if transparent and like and suffix in ALPHA_SUFFIXES:
        size = array.shape[1], array.shape[0]
        alpha = _alpha(like).resize(size, Image.Resampling.BICUBIC)
    try:
        if array.dtype == np.uint16 and suffix in DEEP_SUFFIXES:
            write_deep(path, array, profile, None if alpha is None else np.asarray(alpha))
            return
        image = Image.fromarray(_shallow(array))
        if alpha is not None:
            image.putalpha(alpha)
        image.save(path, icc_profile=profile, **_SAVE.get(suffix, {}))
    except ValueError as error:
        size = f"{array.shape[1]}x{array.shape[0]}"
        raise MediaError(f"{path.suffix} cannot hold {size} pixels: {error}") from error


def webp(array: NDArray[np.uint8]) -> bytes:
    """Pixels `h w 3` as a WebP file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "WEBP", **_SAVE[".webp"])
    return file.getvalue()


def say_transparency_is_lost(info: SourceInfo) -> None:
    """Tell the log that a result holds nothing of how transparent images are."""
    if info.transparent and info.files:
        log.warning("%s is partly transparent: the transparency is dropped", info.path)


def _info(
    path: Path, kind: Any, files: tuple[Path, ...], rate: Fraction = FOLDER_RATE
) -> SourceInfo:
    height, width, bits, transparent = _measure(files[0])
    return SourceInfo(
        path=path,
        kind=kind,
        width=width,
        height=height,
        rate=rate,
        frames=len(files),
        bits=bits,
        color=IMAGE_TAGS,
        time_base=1 / rate,
        last_time=len(files) - 1,
        transparent=transparent,
        files=files,
    )


@contextmanager
def _opened(path: Path) -> Generator[Image.Image]:
    """An image file, and a sentence in place of whatever Pillow says of a broken one."""
    Image.preinit()  # or all readers are loaded, where most images need those of the first formats
    try:
        # given a name, Pillow maps pixels into memory, and those of some turned TIFFs askew
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            yield image
    except _BROKEN as error:
        raise MediaError(_refusal(path, error)) from error


def _is_frame(path: Path) -> bool:
    return is_image(path) and path.is_file() and not path.name.startswith(".")


def _measure(path: Path) -> tuple[int, int, int, bool]:
    """Height and width as displayed, the depth to read, and whether there is an alpha channel, from
    the header alone."""
    with _opened(path) as image:
        width, height = image.size
        if _may_turn(image) and image.getexif().get(_ORIENTATION) in _TURNED:
            width, height = height, width
        deep = image.mode in _DEEP_MODES
        bits = 16 if deep or _is_deep(image) else 8
        return height, width, bits, image.has_transparency_data and not deep


def _alpha(path: Path) -> Image.Image:
    """How opaque an image is, upright."""
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image) if _may_turn(image) else image
        return upright.convert("RGBA").getchannel("A")


def _may_turn(image: Image.Image) -> bool:
    """Whether an image may lie on its side by what is told before its pixels."""
    if image.format != "PNG":
        return image.format != "TIFF"  # which Pillow turns itself
    # it decodes a whole PNG to look for EXIF data behind the pixels
    return any(key in image.info for key in ("exif", "Raw profile type exif", _XMP))


def _to_rgb(image: Image.Image, path: Path) -> NDArray[Any]:
    if image.mode == "F":
        raise MediaError(f"{path} holds floating-point values: save it as 8 or 16 bit integers")
    if image.mode in _DEEP_MODES:
        grey = np.asarray(image).clip(0, 65535).astype(np.uint16)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")  # or Pillow warns
    return np.array(image.convert("RGB"))


def _profile(path: Path) -> bytes | None:
    """The colour profile of an image, if it is one for RGB: we write nothing else."""
    with _opened(path) as image:
        profile = image.info.get("icc_profile")
    # bytes 16 to 20 of an ICC header name the colour space of the samples
    return profile if isinstance(profile, bytes) and profile[16:20] == b"RGB " else None


def _refusal(path: Path, error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        kind = "is not an image that can be read, whatever its name says"
        return f"{path} {kind}: save it as PNG or JPEG first"
    if isinstance(error, Image.DecompressionBombError):
        return f"{path} has too many pixels: make it smaller or cut it into parts first"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read {path}: {error.strerror}"
    if "MAX_TEXT" in str(error):  # Pillow's names for what it unpacks of a PNG's texts and profile
        return f"{path} holds too much text beside its pixels: save it without metadata first"
    return f"{path} cannot be read as an image: {error}; copy or download it again"
