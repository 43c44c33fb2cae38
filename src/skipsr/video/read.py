"""Reading a source: one forward pass over its frames, cut into clips."""

import itertools
import logging
import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from skipsr.clip import Clip
from skipsr.errors import MediaError, SettingsError
from skipsr.settings import Deinterlace
from skipsr.shots import BEHIND, ONE_SHOT, Shots
from skipsr.timeline import Window, check_windows, split_shots
from skipsr.times import WHOLE, Trim
from skipsr.tracing import span
from skipsr.video.clock import going_on
from skipsr.video.color import RGBReader
from skipsr.video.container import demuxed, media_errors, open_input, video_stream
from skipsr.video.deinterlace import progressive
from skipsr.video.images import is_image, probe_folder, probe_image, read_image, trimmed_images
from skipsr.video.probe import SourceInfo, ends_early, probe_video, say_what_is_lost
from skipsr.video.siting import sited

log = logging.getLogger(__name__)


def probe(
    path: Path,
    deinterlace: Deinterlace = "auto",
    trim: Trim = WHOLE,
    rate: Fraction | None = None,
) -> SourceInfo:
    """Look at a video, an image, or a folder of images; a video is scanned once.

    Args:
        deinterlace: whether interlaced frames of a video will be deinterlaced, or taken as they
            are (off).
        trim: what to take of it, by times that count from its first frame, to the millisecond.
        rate: frames per second of a folder of images, if it is not the usual one.

    Raises:
        MediaError: if it cannot be read, saying why.
        SettingsError: for a `trim` in which it shows no frame, and a rate of what is no folder.
    """
    with media_errors(path):
        if path.is_dir():
            return trimmed_images(probe_folder(path, rate), trim)
        if rate is not None and path.exists():
            raise SettingsError(f"`fps` is for folders of images, and {path} is none: leave it out")
        if is_image(path):
            return trimmed_images(probe_image(path), trim)
        return probe_video(path, deinterlace, trim)


def open_source(source: Path | SourceInfo) -> "Source":
    """Open a video, an image, or a folder of images: a path, or what `probe` found there.

    Raises:
        MediaError: if it cannot be read, saying why.
    """
    info = probe(source) if isinstance(source, Path) else source
    return VideoSource(info) if info.kind == "video" else ImageSource(info)


class Timed(NamedTuple):
    """A frame and when it is shown."""

    pixels: NDArray[Any]  # h w 3, uint8 or uint16
    time: int  # in units of the source's time base


class Source(ABC):
    """Frames of a file, in order. A context manager; closing it ends the pass over the frames.

    Attributes:
        shots: first frames of the shots that the pass over the frames has come to.
    """

    def __init__(self, info: SourceInfo) -> None:
        self.info = info
        self.shots: list[int] = []
        self._pass: Generator[Timed] | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._pass is not None:
            self._pass.close()
            self._pass = None

    def stop(self) -> None:
        """End the pass over the frames at its next frame; for another thread than the one that
        reads."""
        self._stopped.set()

    def frames(self, shots: Shots = ONE_SHOT, first: int = 0) -> Iterator[tuple[Timed, bool]]:
        """Every frame from `first` on, times rising strictly, and whether a shot begins with it.

        Each call starts again. What it says of a frame does not depend on `first`.

        Raises:
            MediaError: if a frame cannot be decoded, or the file ends early.
        """
        self.close()
        self._stopped.clear()
        begin = max(0, first - BEHIND)
        self._pass = self._frames(begin)
        self.shots = []
        return self._noted(shots.mark(self._pass, attrgetter("pixels"), begin), begin, first)

    def _noted(
        self, marked: Iterator[tuple[Timed, bool]], begin: int, first: int
    ) -> Iterator[tuple[Timed, bool]]:
        for place in itertools.count(begin):
            with media_errors(self.info.path):
                item = next(marked, None)
            if item is None:
                return
            if place >= first:
                if item[1]:
                    self.shots.append(place)
                yield item

    def clips(
        self, window: int, overlap: int, shots: Shots = ONE_SHOT, first: int = 0
    ) -> Iterator[Clip]:
        """Clips of `window` frames, neighbours sharing `overlap`, and none of two shots.

        The last of each shot may be shorter. Their times rise strictly. Each call starts again.

        Args:
            first: the frame at which to start, where a whole pass has a clip start.

        Raises:
            SettingsError: if the overlap does not fit the window.
            MediaError: if a frame cannot be decoded, or the file ends early.
        """
        check_windows(window, overlap)
        return self._clips(split_shots(self.frames(shots, first), window, overlap), first)

    def _clips(self, windows: Iterator[tuple[Window, list[Timed]]], first: int) -> Iterator[Clip]:
        while True:
            with span("read"):
                item = next(windows, None)
                if item is None:
                    return
                place, frames = item
                pixels = np.stack([frame.pixels for frame in frames])
                times = tuple(frame.time for frame in frames)
                clip = Clip.from_array(pixels, first + place.start, times)
            yield clip

    @abstractmethod
    def _frames(self, first: int) -> Generator[Timed]:
        """Every frame from `first` on, times strictly rising, until it is stopped."""


class ImageSource(Source):
    """An image, or a folder of images."""

    def _frames(self, first: int) -> Generator[Timed]:
        told: set[str] = set()
        for index, file in enumerate(self.info.files[first:], first):
            if self._stopped.is_set():
                return
            array = read_image(file, self.info.bits, told)
            height, width = array.shape[:2]
            if (height, width) != (self.info.height, self.info.width):
                raise MediaError(f"{file} is {width}x{height}, which its header does not say")
            yield Timed(array, index)


class VideoSource(Source):
    """The video stream of a file."""

    def _frames(self, first: int) -> Generator[Timed]:
        info, cut = self.info, self.info.cut
        reader = RGBReader(info.color, info.bits)
        with open_input(info.path) as container:
            stream = video_stream(container, info.path)
            stream.thread_type = "AUTO"
            damaged: list[int] = []
            moved: list[int] = []
            told = _Packets()
            count, last = 0, None  # frames so far, and the time of the last
            before = 0  # frames that were left out
            begun: int | None = None  # when the first was decoded
            say_what_is_lost(info)
            if cut.entry is not None:
                container.seek(cut.entry, stream=stream)
            packets = going_on(demuxed(container, stream), info.restarts)
            if cut.entry is not None:
                packets = itertools.dropwhile(lambda packet: not packet.is_keyframe, packets)
            codec, hdr = stream.codec_context.codec.canonical_name, info.color.is_hdr
            frames = sited(self._decode(packets, told), codec, hdr=hdr)
            for frame in progressive(frames, info):
                if self._stopped.is_set():
                    return
                begun = frame.dts if begun is None else begun
                said = self._time(frame, last, begun)
                last = time = said if last is None else max(said, last + 1)
                if cut.start is not None and time < cut.start:
                    before += 1
                    continue
                if cut.end is not None and time >= cut.end:
                    break
                self._check_size(frame, count)
                if frame.is_corrupt:
                    damaged.append(count)
                if time > said:
                    moved.append(count)
                if count >= first:
                    yield Timed(self._upright(reader.read(frame)), time)
                count += 1
            told.undecodable = [at - before for at in told.undecodable if at >= before]
            self._check_end(stream, count, last, told)
        for fault, frames in (("are damaged", damaged), ("go back in time", moved)):
            if frames:
                count, first = len(frames), frames[0]
                log.warning("%s: %d frames %s, the first at %d", info.path, count, fault, first)

    def _decode(
        self, packets: "Iterator[Packet[VideoStream]]", told: "_Packets"
    ) -> Iterator[VideoFrame]:
        """Frames of packets, of which something is `told`."""
        count, start = 0, self.info.cut.start
        for packet in packets:
            is_early = start is not None and packet.pts is not None and packet.pts < start
            told.count += packet.size > 0 and not is_early
            try:
                frames = packet.decode()
            except FFmpegError:  # the frames after it may be whole
                if count or packet.is_keyframe:  # a broadcast may begin between key frames
                    told.undecodable.append(count)
                continue
            yield from frames
            count += len(frames)

    def _time(self, frame: VideoFrame, last: int | None, begun: int | None) -> int:
        """The frame's time; counted on where the container gives none.

        Args:
            begun: the first frame's `dts`.
        """
        listed = self.info.listed_times
        if listed:
            if frame.dts is not None and begun is not None:
                return listed[0] + frame.dts - begun  # packets without a frame have places, too
            if last is None or last < listed[-1]:
                return listed[0 if last is None else bisect_right(listed, last)]
        if frame.pts is not None and not listed:
            return frame.pts
        return 0 if last is None else last + self.info.step

    def _check_size(self, frame: VideoFrame, index: int) -> None:
        width, height = self.info.width, self.info.height
        if self.info.turns % 2:
            width, height = height, width
        if (frame.width, frame.height) != (width, height):
            raise MediaError(
                f"{self.info.path} changes size at frame {index}, from {width}x{height} "
                f"to {frame.width}x{frame.height}: cut it there and process the parts on their own"
            )

    def _upright(self, array: NDArray[Any]) -> NDArray[Any]:
        if self.info.mirrored:
            array = array[:, ::-1]
        return np.ascontiguousarray(np.rot90(array, self.info.turns))

    def _check_end(
        self, stream: VideoStream, frames: int, last: int | None, told: "_Packets"
    ) -> None:
        """Refuse a stream that ends before its last packet, and tell of frames that did not come
        out of the decoder."""
        total, expected = self.info.frames, self.info.last_time
        short = expected is not None and last is not None and last < expected
        if last is None or (short and told.count < total):
            before = self.info.cut.before
            raise MediaError(ends_early(self.info.path, before + frames, before + total))
        if not frames:
            raise MediaError(
                f"{self.info.path} has no frame in this part that can be decoded: give another "
                "`start` or `end`"
            )
        # some packets hold no frame to show: those of VP8 and VP9 that only serve as reference
        whole = stream.codec_context.name not in ("vp8", "vp9", "libvpx")
        if told.undecodable:
            missing = max(len(told.undecodable), (total - frames) * whole)
            log.warning(
                "%s: packets that cannot be decoded: %d, first after frame %d; frames missing: %d",
                *(self.info.path, len(told.undecodable), told.undecodable[0], missing),
            )
        elif short and frames < total:
            log.warning(
                "%s: the last frames are damaged: %d of %d came out", self.info.path, frames, total
            )
        elif frames < total and whole:
            log.warning("%s: %d of %d packets gave a frame", self.info.path, frames, total)


@dataclass(slots=True)
class _Packets:
    """What is told of the packets of a stream: how many there were, and after how many frames one
    could not be decoded."""

    count: int = 0
    undecodable: list[int] = field(default_factory=list[int])
