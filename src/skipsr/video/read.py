"""Reading a source: one forward pass over its frames, cut into clips."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from skipsr.clip import Clip
from skipsr.errors import MediaError
from skipsr.settings import Deinterlace
from skipsr.timeline import check_windows, split
from skipsr.tracing import span
from skipsr.video.color import RGBReader
from skipsr.video.container import media_errors, open_input, video_stream
from skipsr.video.deinterlace import progressive
from skipsr.video.images import is_image, probe_folder, probe_image, read_image
from skipsr.video.probe import SourceInfo, ends_early, probe_video, say_what_is_lost

log = logging.getLogger(__name__)


def open_source(path: Path, deinterlace: Deinterlace = "auto") -> "Source":
    """Open a video, an image, or a folder of images; frames of a video stored as two fields are
    made whole, or taken as they are (off).

    Raises:
        MediaError: if it cannot be read, saying why.
    """
    with media_errors(path):
        if path.is_dir():
            return ImageSource(probe_folder(path))
        if is_image(path):
            return ImageSource(probe_image(path))
        return VideoSource(probe_video(path, deinterlace))


class Source(ABC):
    """Frames of a file, in order. A context manager; closing it ends the pass over the frames."""

    def __init__(self, info: SourceInfo) -> None:
        self.info = info
        self.times: list[int] = []
        """Times of the frames read so far, in units of `info.time_base`, strictly increasing."""
        self._pass: Generator[NDArray[Any]] | None = None

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._pass is not None:
            self._pass.close()
            self._pass = None

    def clips(self, window: int, overlap: int) -> Iterator[Clip]:
        """Clips of `window` frames, neighbours sharing `overlap`; the last may be shorter.

        Each call starts again at the first frame.

        Raises:
            SettingsError: if the overlap does not fit the window.
            MediaError: if a frame cannot be decoded, or the file ends early.
        """
        check_windows(window, overlap)
        self.close()
        self.times.clear()
        self._pass = self._frames()
        return self._clips(split(self._pass, window, overlap))

    def _clips(self, windows: Iterator[Any]) -> Iterator[Clip]:
        while True:
            with span("read"), media_errors(self.info.path):
                item = next(windows, None)
                if item is None:
                    return
                place, frames = item
                clip = Clip.from_array(np.stack(frames), place.start)
            yield clip

    @abstractmethod
    def _frames(self) -> Generator[NDArray[Any]]:
        """Pixels `h w 3` of each frame, uint8 or uint16; notes its time in `times`."""


class ImageSource(Source):
    """An image, or a folder of images at 24 frames per second."""

    def _frames(self) -> Generator[NDArray[Any]]:
        for index, file in enumerate(self.info.files):
            array = read_image(file, self.info.bits)
            height, width = array.shape[:2]
            if (height, width) != (self.info.height, self.info.width):
                raise MediaError(f"{file} is {width}x{height}, which its header does not say")
            self.times.append(index)
            yield array


class VideoSource(Source):
    """The video stream of a file."""

    def _frames(self) -> Generator[NDArray[Any]]:
        info = self.info
        reader = RGBReader(info.color, info.bits)
        with open_input(info.path) as container:
            stream = video_stream(container, info.path)
            stream.thread_type = "AUTO"
            damaged: list[int] = []
            moved: list[int] = []
            say_what_is_lost(info)
            for frame in progressive(self._decode(container.demux(stream)), info):
                self._check_size(frame)
                if frame.is_corrupt:
                    damaged.append(len(self.times))
                time = self._time(frame)
                if self.times and time <= self.times[-1]:
                    moved.append(len(self.times))
                    time = self.times[-1] + 1
                self.times.append(time)
                yield self._upright(reader.read(frame))
            self._check_end(stream)
        for fault, frames in (("are damaged", damaged), ("go back in time", moved)):
            if frames:
                count, first = len(frames), frames[0]
                log.warning("%s: %d frames %s, the first at %d", info.path, count, fault, first)

    def _decode(self, packets: "Iterator[Packet[VideoStream]]") -> Iterator[VideoFrame]:
        for packet in packets:
            try:
                frames = packet.decode()
            except FFmpegError as error:
                if not self.times and not packet.is_keyframe:
                    continue  # a broadcast recording may begin between key frames
                total = max(self.info.frames, len(self.times) + 1)
                raise MediaError(ends_early(self.info.path, len(self.times), total)) from error
            yield from frames

    def _time(self, frame: VideoFrame) -> int:
        """The frame's time; counted on where the container gives none."""
        index, listed = len(self.times), self.info.listed_times
        if index < len(listed):
            return listed[index]
        if frame.pts is not None and not listed:
            return frame.pts
        step = max(1, round(1 / (self.info.rate * self.info.time_base)))
        return self.times[-1] + step if self.times else 0

    def _check_size(self, frame: VideoFrame) -> None:
        width, height = self.info.width, self.info.height
        if self.info.turns % 2:
            width, height = height, width
        if (frame.width, frame.height) != (width, height):
            raise MediaError(
                f"{self.info.path} changes size at frame {len(self.times)}, from {width}x{height} "
                f"to {frame.width}x{frame.height}: cut it there and process the parts on their own"
            )

    def _upright(self, array: NDArray[Any]) -> NDArray[Any]:
        if self.info.mirrored:
            array = array[:, ::-1]
        return np.ascontiguousarray(np.rot90(array, self.info.turns))

    def _check_end(self, stream: VideoStream) -> None:
        """Refuse a stream whose last frames did not come out of the decoder."""
        frames, total = len(self.times), self.info.frames
        last = self.info.last_time
        if frames == 0 or (last is not None and self.times[-1] < last):
            raise MediaError(ends_early(self.info.path, frames, total))
        # some packets hold no frame to show: those of VP8 and VP9 that only serve as reference
        if frames < total and stream.codec_context.name not in ("vp8", "vp9", "libvpx"):
            log.warning("%s: %d of %d packets gave a frame", self.info.path, frames, total)
