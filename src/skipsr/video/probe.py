"""What a video file holds, found by looking: packets are counted, the first frame is decoded."""

import logging
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from skipsr.errors import MediaError
from skipsr.settings import Deinterlace
from skipsr.times import WHOLE, Trim
from skipsr.video.clock import Restart
from skipsr.video.color import (
    ColorTags,
    chroma_step,
    is_transparent,
    sample_bits,
    source_tags,
)
from skipsr.video.container import demuxed, media_errors, open_input, video_stream
from skipsr.video.light import Light, source_light
from skipsr.video.scan import Scan, scan_packets
from skipsr.video.trim import Cut, find_entry, frames_between, ticks

log = logging.getLogger(__name__)
_BESIDE = {
    "A53_CC": "closed captions",
    "DOVI_METADATA": "values for Dolby Vision",
    "DYNAMIC_HDR_PLUS": "values for HDR10+",
}  # by their names in FFmpeg
_FIRST = 8  # frames
_RATES = Fraction(1, 86400), 1000  # frames per second that a file may have


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """A source, as it will be read; of the kind "frames" one in memory, whose path is a name only.

    Sizes are pixels as displayed, after rotation. Times are integers, in `time_base` seconds.
    """

    path: Path
    kind: Literal["video", "image", "folder", "frames"]
    width: int
    height: int
    rate: Fraction
    """Average frames per second."""
    frames: int
    """Frames to expect, counted from packets: an estimate for progress."""
    bits: int
    """8 or 16: the depth at which frames are read."""
    color: ColorTags
    time_base: Fraction = Fraction(1, 24)
    origin: int = 0
    """Time that becomes 0 in the output; not 0 only where the clock has no zero (MPEG-TS), or the
    beginning is cut off."""
    first_time: int = 0
    """Time of the first frame, as far as the container says."""
    last_time: int | None = None
    """Time of the last frame, if the container says."""
    last_duration: int = 0
    """For how long it is shown, if the container says; 0: as long as a frame is on average."""
    restarts: tuple[Restart, ...] = ()
    """Timestamp discontinuities: places in the file, and what is added to times from there on."""
    listed_times: tuple[int, ...] = ()
    """Times of the frames, where decoded frames do not carry their own (AVI)."""
    constant_rate: bool = True
    chroma_step: tuple[int, int] = (1, 1)
    """Pixels that share one sample of colour, across and down."""
    transparent: bool = False
    """Whether there is an alpha channel, which is kept of images alone."""
    light: Light | None = None
    """HDR10's static metadata."""
    beside: tuple[str, ...] = ()
    """What comes with the pictures and is not kept."""
    deinterlace: bool = True
    """Whether interlaced frames are deinterlaced as they are read."""
    sample_aspect: Fraction | None = None
    """Width of a displayed pixel over its height, if the source says."""
    turns: int = 0
    """Quarter turns, counterclockwise, that make a decoded frame upright."""
    mirrored: bool = False
    """Whether a decoded frame is flipped left to right, before it is turned."""
    files: tuple[Path, ...] = ()
    """The images, in order, of an image or a folder."""
    cut: Cut = Cut()
    """What is taken of the source: all else here is of that."""

    @property
    def step(self) -> int:
        """Time from one frame to the next at the average rate."""
        return max(1, round(1 / (self.rate * self.time_base)))


def probe_video(path: Path, deinterlace: Deinterlace = "auto", trim: Trim = WHOLE) -> SourceInfo:
    """Look into a video file.

    Raises:
        MediaError: if it cannot be read, has no video, or is cut off.
        SettingsError: for a `trim` in which it shows no frame.
    """
    with media_errors(path):
        with open_input(path) as container:
            stream = video_stream(container, path)
            _check_index(path, container, stream)
            scan = scan_packets(container, stream)
        if scan.packets == 0:
            raise MediaError(f"{path} has a video stream without frames")
        with open_input(path) as container:
            stream = video_stream(container, path)
            (frame, *more), in_fields = _first_frames(path, container, stream)
            if in_fields:
                scan = scan.without_second_fields([frame, *more])
            info = _describe(path, container, stream, frame, scan)
        info = replace(info, deinterlace=deinterlace == "auto")
        return info if trim == WHOLE else _trimmed(info, scan, trim, frame.pts)


def _describe(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    frame: VideoFrame,
    scan: Scan,
) -> SourceInfo:
    try:
        color = source_tags(frame)
    except MediaError as error:
        raise MediaError(f"{path} cannot be read: {error}") from error
    is_avi = container.format.name == "avi"  # its packets have a place, not a time to be shown
    turns, mirrored = orientation(frame)
    turned = -1 if turns % 2 else 1
    width, height = (frame.width, frame.height)[::turned]
    across, down = chroma_step(frame.format)[::turned]
    aspect = stream.sample_aspect_ratio or None
    if aspect and turns % 2:
        aspect = 1 / aspect
    time_base = stream.time_base or Fraction(1, 90000)
    rate = _rate(stream, scan)
    says_last = len(scan.times) == scan.packets and not is_avi
    if container.duration and scan.end and container.duration / av.time_base > 1.05 * scan.end + 1:
        promised = container.duration / av.time_base
        log.warning("%s may be cut off: %.1f s of %.1f s are there", path, scan.end, promised)
    return SourceInfo(
        path=path,
        kind="video",
        width=width,
        height=height,
        rate=rate,
        frames=scan.packets,
        bits=sample_bits(frame),
        color=color,
        time_base=time_base,
        origin=_origin(container, time_base),
        first_time=min(scan.times, default=0),
        last_time=max(scan.times) if says_last else None,
        last_duration=scan.duration if says_last else 0,
        restarts=scan.restarts,
        listed_times=tuple(sorted(scan.times)) if is_avi else (),
        constant_rate=scan.is_constant(rate * time_base),
        chroma_step=(across, down),
        transparent=is_transparent(frame) or stream.metadata.get("alpha_mode") == "1",
        light=source_light(frame),
        beside=tuple(told for kind, told in _BESIDE.items() if kind in frame.side_data),
        sample_aspect=aspect,
        turns=turns,
        mirrored=mirrored,
    )


def _trimmed(info: SourceInfo, scan: Scan, trim: Trim, shown: int | None) -> SourceInfo:
    """A video as if it began and ended there.

    Args:
        shown: when its first frame is; a recording may begin between key frames.
    """
    counted = range(0, scan.packets * info.step, info.step)  # where packets have no times
    every = times = np.sort(np.asarray(scan.times or counted, dtype=np.int64))
    if shown is not None and shown in scan.times and not info.listed_times:
        times = times[times >= shown]
    first, after = frames_between(info.path, times, info.time_base, trim)
    start, last = int(times[first]), int(times[after - 1])
    end = None
    if trim[1] is not None:
        end = max(int(times[0]) + ticks(trim[1], info.time_base), last + info.step)
        end = min([end, *times[after : after + 1].tolist()])
    is_early, enters = trim[0] is not None, info.last_time is not None and not info.restarts
    entry = find_entry(info.path, scan.keys, start) if is_early and enters else None
    return replace(
        info,
        frames=(after - first) * scan.packets // len(every),
        origin=start if is_early else info.origin,
        first_time=start,
        last_time=None if info.last_time is None else last,
        last_duration=info.last_duration if end is None or after == len(times) else end - last,
        cut=Cut(start=start if is_early else None, end=end, before=first, entry=entry),
    )


def say_what_is_lost(info: SourceInfo) -> None:
    """Tell the log what reading a source leaves out or takes as something else."""
    if info.transparent:
        log.warning("%s is partly transparent: the transparency is dropped", info.path)
    for told in info.beside:
        log.warning("%s: its %s are left out", info.path, told)
    if info.restarts:
        log.warning(
            "%s was put together of %d recordings with clocks of their own: they follow each other",
            *(info.path, len(info.restarts) + 1),
        )
    if info.color.is_hdr:
        log.warning(
            "%s is HDR: its values are enlarged as they are coded, by a model trained on SDR",
            info.path,
        )


def _check_index(path: Path, container: InputContainer, stream: VideoStream) -> None:
    """Refuse an mp4 or mov whose sample table points behind the end of the file."""
    if "mp4" not in container.format.name:
        return  # other containers have no index, or one that is a hint
    size = path.stat().st_size
    total = whole = 0
    for entry in stream.index_entries:
        total += 1
        whole += entry.pos + entry.size <= size
    if whole < total:
        raise MediaError(ends_early(path, whole, total))


def ends_early(path: Path, frames: int, total: int) -> str:
    """The sentence for a file that holds fewer frames than it should."""
    mend = f"ffmpeg -i {path.name} -frames:v {frames} -c copy fixed{path.suffix}"
    return (
        f"{path} ends early: {frames} of {total} frames could be read; copy or download it again, "
        f"or save what is left with: {mend}"
    )


def _first_frames(
    path: Path, container: InputContainer, stream: VideoStream
) -> tuple[list[VideoFrame], bool]:
    """The first frame, and of interlaced H.264 some of the next; and whether two packets are a
    frame, as where fields come one by one."""
    found: list[VideoFrame] = []
    wanted, packets = 1, 0
    for packet in demuxed(container, stream):
        packets += packet.size > 0
        try:
            found += packet.decode()
        except FFmpegError:
            continue  # a broadcast recording may begin between key frames
        if found and found[0].interlaced_frame and stream.codec_context.name == "h264":
            wanted = _FIRST
        if len(found) >= wanted:
            break
    if not found:
        raise MediaError(f"{path} cannot be decoded: none of its frames could be read")
    return found[:wanted], wanted > 1 and packets >= 2 * len(found) - 1 > 1


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Counterclockwise quarter turns, and whether to flip left to right before them."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    # rows map x and y of the stored frame to the displayed one, y pointing down; 16.16 fixed point
    a, b, _, c, d, _, *_ = np.frombuffer(bytes(data), dtype="<i4").tolist()
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    clockwise = math.degrees(math.atan2(b, a))
    turns = round(-clockwise / 90)
    if abs(clockwise + 90 * turns) > 1:
        log.warning("rotation by %.0f degrees is taken for a quarter turn", clockwise)
    return turns % 4, mirrored


def _rate(stream: VideoStream, scan: Scan) -> Fraction:
    average = stream.average_rate
    if stream.time_base:  # first, for what FFmpeg guesses may be the ticks of the clock
        average = scan.rate(stream.time_base, average)
    for rate in (average, stream.guessed_rate, stream.base_rate):
        if rate and _RATES[0] <= rate <= _RATES[1]:
            return rate
    return Fraction(24)


def _origin(container: InputContainer, time_base: Fraction) -> int:
    """Start of the clock, where its zero means nothing (MPEG streams)."""
    if container.format.flags & Flags.ts_discont.value and container.start_time:
        return math.floor(Fraction(container.start_time, av.time_base) / time_base)
    return 0
