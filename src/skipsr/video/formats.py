"""What can be written: codecs, containers, and the checks made before any frame is computed."""

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Literal

from av.codec import Codec as AVCodec
from av.error import FFmpegError

from skipsr.errors import SettingsError
from skipsr.files import as_told_apart, check_free
from skipsr.settings import Codec, Encoding
from skipsr.video.color import Matrix
from skipsr.video.images import IMAGE_SUFFIXES, LOSSLESS_SUFFIXES, is_animated
from skipsr.video.probe import SourceInfo
from skipsr.video.remux import copied_streams

MUXERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".ts": "mpegts",
}
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".f4v", ".flv", ".mkv", ".webm", ".avi", ".divx"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".m2v", ".vob", ".wmv", ".asf", ".mxf", ".wtv"),
    *(".ogv", ".ogm", ".rm", ".rmvb", ".dv", ".gif", ".ivf", ".obu", ".y4m", ".nut"),
)  # of sources
X265_COLUMNS = 64  # given narrower frames libx265 (4.2) writes beyond its memory
_USUAL = Encoding()
_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium"),
    *("slow", "slower", "veryslow", "placebo"),
)
TargetKind = Literal["video", "animation", "image", "folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpec:
    """How one codec is written."""

    names: tuple[str, ...]
    """FFmpeg encoders, the first available is used."""
    suffixes: tuple[str, ...]
    """Containers that hold it."""
    plain: str
    """Pixel format for 8-bit sources, with {} for the chroma."""
    deep: str
    """The same for sources with more bits."""
    chroma: tuple[str, ...] = ("420",)
    """What may stand there, coarsest first."""
    crf: int | None = None
    """Default quality; None for a codec without such a setting."""
    worst_crf: int = 51
    presets: tuple[str, ...] = ()
    """Of the first of the encoders, from the fastest to that of the smallest file."""
    options: dict[str, str] = field(default_factory=dict[str, str])


ENCODERS: dict[Codec, CodecSpec] = {
    "h264": CodecSpec(
        names=("libx264",),
        suffixes=(".mp4", ".m4v", ".mov", ".mkv", ".ts"),
        plain="yuv{}p",
        deep="yuv{}p10le",  # but 4:2:0 alone: hardly a player shows H.264 with more
        crf=16,
        presets=_PRESETS,
        # with AVX-512 x264 otherwise makes one file or another of the same frames
        options={"x264-params": "cpu-independent=1"},
    ),
    "h265": CodecSpec(
        names=("libx265",),
        suffixes=(".mp4", ".m4v", ".mov", ".mkv", ".ts"),
        plain="yuv{}p",
        deep="yuv{}p10le",
        chroma=("420", "422", "444"),
        crf=18,
        presets=_PRESETS,
        options={"x265-params": "log-level=none"},
    ),
    "av1": CodecSpec(
        names=("libsvtav1", "libaom-av1"),
        suffixes=(".mp4", ".m4v", ".mkv", ".webm"),
        plain="yuv{}p",
        deep="yuv{}p10le",
        crf=24,
        worst_crf=63,
        presets=tuple(str(preset) for preset in reversed(range(14))),
    ),
    "ffv1": CodecSpec(
        names=("ffv1",),
        suffixes=(".mkv", ".avi"),
        plain="bgr0",
        deep="gbrp16le",
        options={"level": "3", "slices": "4", "slicecrc": "1"},
    ),
    "prores": CodecSpec(
        names=("prores_ks",),
        suffixes=(".mov", ".mkv"),
        plain="yuv{}p10le",
        deep="yuv{}p10le",
        chroma=("422", "444"),  # the profiles HQ and 4444
        options={"vendor": "apl0"},
    ),
}


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """What a video is made of, and what it is to be: frames `(height, width)`, encoded so."""

    info: SourceInfo
    size: tuple[int, int]
    encoding: Encoding = _USUAL

    @property
    def codec(self) -> Codec:
        return self.encoding.codec


def target_kind(target: Path) -> TargetKind:
    """Whether a path names a video, a GIF, an image, or (without suffix) a folder of images.

    Raises:
        SettingsError: for a suffix that is none of ours.
    """
    return "folder" if target.is_dir() else _kind_by_name(target)


def _kind_by_name(target: Path) -> TargetKind:
    suffix = target.suffix.lower()
    if target.name == "-" or target.name.lower() in (*MUXERS, *IMAGE_SUFFIXES, ".gif"):
        raise SettingsError(f"{target} is no name for the output: give one such as result.mp4")
    if not suffix:
        return "folder"
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix == ".gif":
        return "animation"
    if suffix in MUXERS:
        return "video"
    raise SettingsError(
        f"cannot write {target.name}: give a video ({' '.join(MUXERS)} .gif), an image "
        f"({' '.join(IMAGE_SUFFIXES)}), or a folder (a name without suffix)"
    )


def source_kind(path: Path) -> Literal["video", "image", "folder"] | None:
    """What a source is by its name; None for a file that is neither video nor image by that."""
    if path.is_dir():
        return "folder"
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def default_suffix(codec: Codec) -> str:
    """The container of a video when nothing is said: .mp4, or the first that holds the codec."""
    suffixes = ENCODERS[codec].suffixes
    return ".mp4" if ".mp4" in suffixes else suffixes[0]


def side_step(target: Path, codec: Codec) -> int:
    """What sides are multiples of, in pixels: 2 where colour is stored at half resolution."""
    is_yuv = target_kind(target) == "video" and ENCODERS[codec].plain.startswith("yuv")
    return 2 if is_yuv else 1


def check_target(
    target: Path, info: SourceInfo, encoding: Encoding = _USUAL, *, overwrite: bool = False
) -> None:
    """Refuse an output that cannot be written, before anything is computed.

    Raises:
        SettingsError: naming the option to change.
    """
    kind = target_kind(target)
    check_free(target, overwrite=overwrite)
    if kind == "folder" and target.is_file():
        raise SettingsError(
            f"{target} is a file, and without a suffix a folder of images would be written: give "
            "a name such as result.mp4"
        )
    _check_format(kind, target, encoding)
    _check_source(target, kind, info)


def check_format(target: Path, encoding: Encoding) -> None:
    """Refuse what a name and an encoding cannot be together; no file has to be there.

    Raises:
        SettingsError: naming the option to change.
    """
    _check_format(_kind_by_name(target), target, encoding)


def _check_format(kind: TargetKind, target: Path, encoding: Encoding) -> None:
    if kind == "video":
        _check_codec(target, encoding.codec)
        _check_crf(encoding)
        _check_preset(encoding)
    elif encoding.codec != _USUAL.codec:
        raise SettingsError(f"`codec` {encoding.codec} is for videos, and {target.name} is none")
    else:
        for name in ("crf", "preset"):
            if getattr(encoding, name) is not None:
                raise SettingsError(
                    f"`{name}` is for videos: leave it out when writing images or a GIF"
                )


def encoder_name(codec: Codec) -> str:
    """The FFmpeg encoder to use.

    Raises:
        SettingsError: if this build of PyAV has none.
    """
    for name in ENCODERS[codec].names:
        if _available(name):
            return name
    raise SettingsError(f"this installation of PyAV cannot encode `codec` {codec}")


def pixel_format(spec: VideoSpec) -> str:
    """What to store: the source's depth, and its chroma if the codec is used with it.

    RGB, as of images, becomes what the codec is used with most.
    """
    encoder, info = ENCODERS[spec.codec], spec.info
    across, down = info.chroma_step
    wanted = "444" if across == 1 else "422" if down == 1 else "420"
    if info.color.matrix == Matrix.RGB:
        wanted = encoder.chroma[0]
    chroma = min((one for one in encoder.chroma if one >= wanted), default=encoder.chroma[-1])
    return (encoder.deep if info.bits > 8 else encoder.plain).format(chroma)


def frame_name(info: SourceInfo, index: int) -> str:
    """The file of a frame in a folder output: named as the source's image, or numbered from 1."""
    if not info.files:
        return f"frame_{index + 1:06d}.png"
    file = info.files[index]
    return file.stem + (file.suffix if file.suffix.lower() in LOSSLESS_SUFFIXES else ".png")


@cache
def _available(name: str) -> bool:
    try:
        AVCodec(name, "w")
    except (FFmpegError, ValueError):
        return False
    return True


def _check_codec(target: Path, codec: Codec) -> None:
    suffix = target.suffix.lower()
    if suffix not in ENCODERS[codec].suffixes:
        fitting = [name for name, encoder in ENCODERS.items() if suffix in encoder.suffixes]
        raise SettingsError(
            f"{suffix} cannot hold `codec` {codec}: "
            f"write to {' or '.join(ENCODERS[codec].suffixes)}, "
            f"or give `codec` {' or '.join(fitting)}"
        )
    encoder_name(codec)


def _check_crf(encoding: Encoding) -> None:
    codec, crf, worst = encoding.codec, encoding.crf, ENCODERS[encoding.codec].worst_crf
    if crf is None:
        return
    if ENCODERS[codec].crf is None:
        raise SettingsError(f"`codec` {codec} has no crf: leave `crf` out")
    if not 0 <= crf <= worst:
        raise SettingsError(f"`crf` {crf} is outside 0 to {worst} of `codec` {codec}")


def _check_preset(encoding: Encoding) -> None:
    codec, preset, encoder = encoding.codec, encoding.preset, ENCODERS[encoding.codec]
    if preset is None:
        return
    if not encoder.presets:
        raise SettingsError(f"`codec` {codec} has no presets: leave `preset` out")
    if preset not in encoder.presets:
        named = ", ".join(encoder.presets)
        raise SettingsError(f"`preset` {preset} is none of `codec` {codec}: {named}")
    if encoder_name(codec) != encoder.names[0]:
        raise SettingsError(
            f"`preset` is for {encoder.names[0]}, which this installation of PyAV lacks: leave it "
            "out"
        )


def _check_source(target: Path, kind: TargetKind, info: SourceInfo) -> None:
    if target.exists() and info.kind != "frames" and target.samefile(info.path):
        raise SettingsError(f"{target} is the input: give another name for the output")
    if kind == "image" and info.frames > 1:
        raise SettingsError(
            f"{target.name} is one image, but {info.path} has {info.frames} frames: give a video "
            f"such as {target.stem}.mp4, or the folder {target.stem}"
        )
    if kind in ("video", "animation") and info.kind == "image" and is_animated(info.path):
        raise SettingsError(
            f"{info.path} holds several images, of which the first alone would be taken: make a "
            "GIF or a video of it before, or give a folder of images"
        )
    if target.suffix.lower() == ".avi" and kind == "video" and not info.constant_rate:
        raise SettingsError(
            f"{info.path} has a variable frame rate, which .avi cannot hold: write to .mkv or .mp4"
        )
    starts = (info.first_time - info.origin) * info.time_base * info.rate  # frames
    late = starts > Fraction(1, 2) and info.kind == kind == "video"
    if late and target.suffix.lower() == ".avi" and copied_streams(info):
        raise SettingsError(
            f"the pictures of {info.path} begin after its sound, which .avi cannot hold: write to "
            ".mkv or .mp4"
        )
    if kind == "folder":
        names = [frame_name(info, index) for index in range(len(info.files))]
        counts = Counter(map(as_told_apart, names))
        for name in names:
            if (count := counts[as_told_apart(name)]) > 1:
                raise SettingsError(
                    f"{info.path} has {count} images that would become {name}: rename one of them"
                )
