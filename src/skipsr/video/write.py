"""Writing a result: under a temporary name, checked, then renamed."""

import logging
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from skipsr.clip import Clip
from skipsr.errors import MediaError
from skipsr.settings import Codec
from skipsr.tracing import span
from skipsr.video.container import media_errors
from skipsr.video.encode import VideoEncoder
from skipsr.video.formats import check_target, frame_names, target_kind
from skipsr.video.images import write_image
from skipsr.video.read import Source

log = logging.getLogger(__name__)


def open_target(
    target: Path,
    source: Source,
    size: tuple[int, int],
    *,
    codec: Codec = "h264",
    crf: int | None = None,
    overwrite: bool = False,
) -> "Target":
    """Open a video, image or folder for frames of `size` (height, width).

    Raises:
        SettingsError: if the output cannot be what is asked.
        MediaError: if the file cannot be created.
    """
    check_target(target, source.info, codec=codec, crf=crf, overwrite=overwrite)
    kind = target_kind(target)
    if kind == "image":
        return ImageTarget(target, source, size)
    if kind == "folder":
        return FolderTarget(target, source, size)
    return VideoTarget(target, source, size, codec, crf)


class Target(ABC):
    """Takes the clips of a result in order. A context manager.

    Leaving it finishes, checks and renames the output; after an exception, nothing remains.
    """

    bits = 8  # depth of the pixels that `_put` takes

    def __init__(self, path: Path, source: Source, size: tuple[int, int]) -> None:
        self.written = 0
        """Frames written so far."""
        self._path, self._source, self._size = path, source, size
        self._part = _part(path)
        self._next = 0  # index of the first frame that may come

    def write(self, clip: Clip) -> None:
        """Write a clip, frames `t 3 h w` in [0, 1], at the times its frames have in the source.

        Raises:
            MediaError: if the disk or the encoder refuse.
            ValueError: for another size, or frames that were written before.
        """
        if clip.size != self._size:
            raise ValueError(f"the target takes frames of {self._size}, not {clip.size}")
        if clip.start < self._next:
            raise ValueError(f"frame {clip.start} comes after frame {self._next - 1}")
        with span("write"), media_errors(self._path, "write"):
            for offset in range(len(clip)):
                one = Clip(clip.frames[offset : offset + 1])
                self._put(one.to_array(self.bits)[0], clip.start + offset)
                self.written += 1
        self._next = clip.start + len(clip)

    def __enter__(self) -> "Target":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with span("write"), media_errors(self._path, "write"):
                    if self.written == 0:
                        raise MediaError(f"no frame was written to {self._path}")
                    self._finish()
        finally:
            self._discard()

    @abstractmethod
    def _put(self, array: NDArray[Any], index: int) -> None:
        """Write the frame `index` of the source, pixels `h w 3` of `bits` bits."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the temporary output, check it, and give it its name."""

    def _discard(self) -> None:
        """Remove the temporary output, if it is still there."""
        self._part.unlink(missing_ok=True)


class VideoTarget(Target):
    """A video file."""

    def __init__(
        self, path: Path, source: Source, size: tuple[int, int], codec: Codec, crf: int | None
    ) -> None:
        super().__init__(path, source, size)
        try:
            with media_errors(path, "write"):
                self._encoder = VideoEncoder(self._part, source.info, size, codec, crf)
        except BaseException:
            super()._discard()
            raise
        self.bits = self._encoder.bits

    def _put(self, array: NDArray[Any], index: int) -> None:
        self._encoder.encode(array, self._source.times[index])

    def _finish(self) -> None:
        self._encoder.finish()
        self._part.replace(self._path)

    def _discard(self) -> None:
        try:
            with media_errors(self._path, "write"):
                self._encoder.close()
        except MediaError as error:
            log.debug("closing what is thrown away: %s", error)
        finally:
            super()._discard()


class ImageTarget(Target):
    """One image."""

    def _put(self, array: NDArray[Any], index: int) -> None:
        files = self._source.info.files
        write_image(self._part, array, files[index] if files else None)

    def _finish(self) -> None:
        self._part.replace(self._path)


class FolderTarget(Target):
    """A folder of images: named as those of the source, or numbered from 1."""

    def __init__(self, path: Path, source: Source, size: tuple[int, int]) -> None:
        super().__init__(path, source, size)
        self._names = frame_names(source.info)
        shutil.rmtree(self._part, ignore_errors=True)  # left by a run that was killed
        with media_errors(path, "write"):
            self._part.mkdir()

    def _put(self, array: NDArray[Any], index: int) -> None:
        files = self._source.info.files
        name = self._names[index] if self._names else f"frame_{index + 1:06d}.png"
        write_image(self._part / name, array, files[index] if files else None)

    def _finish(self) -> None:
        if not self._path.exists():
            self._part.rename(self._path)
            return
        # an existing folder may hold more than we wrote: replace frame by frame, remove nothing
        names = {file.name for file in self._part.iterdir()}
        others = [file.name for file in self._path.iterdir() if file.name not in names]
        if others:
            log.warning("%s keeps %d files of before", self._path, len(others))
        for file in sorted(self._part.iterdir()):
            file.replace(self._path / file.name)

    def _discard(self) -> None:
        shutil.rmtree(self._part, ignore_errors=True)


def _part(path: Path) -> Path:
    """The temporary name: beside the output, hidden, with its suffix, which names the format."""
    return path.with_name(f".{path.stem}.part{path.suffix or '.dir'}")
