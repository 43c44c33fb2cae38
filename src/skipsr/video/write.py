"""Writing a result: under a temporary name, checked, then renamed."""

import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from numpy.typing import NDArray

from skipsr.clip import Clip
from skipsr.errors import Cancelled, MediaError, SettingsError
from skipsr.files import (
    LEFT_BY_SYSTEMS,
    check_free,
    move,
    name_around,
    replace_durably,
    sync,
)
from skipsr.settings import Encoding
from skipsr.tracing import span
from skipsr.video.color import IMAGE_TAGS
from skipsr.video.container import media_errors
from skipsr.video.deep import DEEP_SUFFIXES
from skipsr.video.encode import VideoEncoder
from skipsr.video.formats import VideoSpec, check_target, frame_name, target_kind
from skipsr.video.gif import GifEncoder
from skipsr.video.images import ALPHA_SUFFIXES, say_transparency_is_lost, write_image
from skipsr.video.probe import SourceInfo
from skipsr.video.remux import say_sound_is_lost

log = logging.getLogger(__name__)
E = TypeVar("E", bound=VideoEncoder | GifEncoder)


def frames_info(
    size: tuple[int, int], *, rate: Fraction | int = 24, count: int = 0, bits: int = 8
) -> SourceInfo:
    """What stands for the source of frames that come from memory, in RGB.

    Args:
        size: `(height, width)`.
        rate: frames per second; frames without times of their own are spaced by it, and those with
            have them in units of `1 / rate` seconds.
        count: how many to expect, for progress.
        bits: 8 or 16.
    """
    rate = Fraction(rate)
    return SourceInfo(
        path=Path("frames"), kind="frames", width=size[1], height=size[0], rate=rate,
        frames=count, bits=bits, color=IMAGE_TAGS, time_base=1 / rate,
    )  # fmt: skip


def open_target(
    target: Path,
    info: SourceInfo,
    size: tuple[int, int],
    encoding: Encoding | None = None,
    *,
    overwrite: bool = False,
) -> "Target":
    """Open a video, image or folder for frames of `size` (height, width).

    Args:
        info: the source, from which colour tags, frame rate, depth and all that is no video are
            taken; see `frames_info` where there is none.

    Raises:
        SettingsError: if the output cannot be what is asked.
        MediaError: if the file cannot be created.
    """
    encoding = encoding or Encoding()
    check_target(target, info, encoding, overwrite=overwrite)
    opened = _open(target, VideoSpec(info, size, encoding))
    opened.overwrite = overwrite
    return opened


def _open(target: Path, spec: VideoSpec) -> "Target":
    kind, info, size = target_kind(target), spec.info, spec.size
    if kind in ("image", "animation"):
        _say_depth_is_lost(target, info)
    if kind == "image":
        if target.suffix.lower() not in ALPHA_SUFFIXES:
            say_transparency_is_lost(info)
        return ImageTarget(target, info, size)
    if kind == "folder":
        say_sound_is_lost(target, info)
        return FolderTarget(target, info, size)
    if kind == "animation":
        encoded = EncodedTarget(target, info, size, lambda part: GifEncoder(part, info, size))
    else:
        encoded = VideoTarget(target, spec)
    try:
        encoded.say_what_is_lost()
    except BaseException as error:  # such as an interrupt, before the caller has entered it
        encoded.__exit__(type(error), error, None)
        raise
    return encoded


def _say_depth_is_lost(target: Path, info: SourceInfo) -> None:
    """Tell the log that an image or a GIF holds less of a source than it has."""
    suffix = target.suffix.lower()
    if info.bits > 8 and suffix not in DEEP_SUFFIXES:
        log.warning(
            "%s has more than 8 bits a colour, and %s files 8: .png and .tif keep them",
            info.path,
            suffix,
        )


class Target(ABC):
    """Takes the clips of a result in order. A context manager.

    Leaving it finishes, checks and renames the output. After an exception the frames that were
    finished stay under another name, which a note on the exception tells; without any, and after
    `Cancelled`, nothing remains.
    """

    def __init__(self, path: Path, info: SourceInfo, size: tuple[int, int]) -> None:
        self.written = 0
        """Frames written so far."""
        self.overwrite = True
        """Whether to replace what has the name by then; otherwise that stays, beside the result."""
        self.bits = info.bits
        """Depth of the pixels that `_put` takes: 8 or 16."""
        self._path, self._info, self._size = path, info, size
        self._part = _part(path)
        self._next = 0  # index of the first frame that may come

    def write(self, clip: Clip) -> None:
        """Write a clip, frames `t 3 h w` in [0, 1], at its times, or evenly spaced without.

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
                index = clip.start + offset
                time = clip.times[offset] if clip.times else index * self._info.step
                self._put(clip.part(offset, offset + 1).to_array(self.bits)[0], index, time)
                self.written += 1
        self._next = clip.end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if error is None:
                with span("write"), media_errors(self._path, "write"):
                    if self.written == 0:
                        raise MediaError(f"no frame was written to {self._path}")
                    self._finish_beside()
            elif self.written and not isinstance(error, Cancelled) and self._complete():
                kept = _free_name(self._path)
                move(self._part, kept)
                error.add_note(f"the {self.written} frames finished before that are in {kept}")
        finally:
            self._discard()

    def _finish_beside(self) -> None:
        """Finish, under another name if the output's was taken meanwhile."""
        wanted = self._path
        try:
            check_free(wanted, overwrite=self.overwrite)
        except SettingsError:
            self._path = _free_name(wanted)
        self._finish()
        if self._path != wanted:
            raise MediaError(f"{wanted} has appeared meanwhile: the result is in {self._path}")

    @abstractmethod
    def _put(self, array: NDArray[Any], index: int, time: int) -> None:
        """Write the frame `index` of the source, pixels `h w 3` of `bits` bits, shown at `time`."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the temporary output, check it, and give it its name."""

    @abstractmethod
    def _complete(self) -> bool:
        """Make the temporary output, cut short, one that can be used; whether that went well."""

    def _write_image(self, path: Path, array: NDArray[Any], index: int) -> None:
        """An image with what that of the source holds beside colours."""
        info = self._info
        like = info.files[index] if info.files else None
        write_image(path, array, like, transparent=info.transparent)

    def _discard(self) -> None:
        """Remove the temporary output, if it is still there."""
        self._part.unlink(missing_ok=True)


class EncodedTarget(Target, Generic[E]):
    """A file that an encoder writes."""

    def __init__(
        self,
        path: Path,
        info: SourceInfo,
        size: tuple[int, int],
        encoder: Callable[[Path], E],
    ) -> None:
        """
        Args:
            encoder: opens a file under a temporary name.
        """
        super().__init__(path, info, size)
        try:
            with media_errors(path, "write"):
                self._encoder = encoder(self._part)
        except BaseException:
            super()._discard()
            raise
        self.bits = self._encoder.bits

    def say_what_is_lost(self) -> None:
        """Tell the log what the codec cannot hold of the source."""
        say_transparency_is_lost(self._info)
        self._encoder.say_what_is_lost()

    def _put(self, array: NDArray[Any], index: int, time: int) -> None:
        self._encoder.encode(array, time)

    def _finish(self) -> None:
        self._encoder.finish()
        replace_durably(self._part, self._path)

    def _complete(self) -> bool:
        try:
            with media_errors(self._path, "write"):
                self._encoder.finish(whole=False)
        except MediaError as problem:
            log.debug("what was finished cannot be kept: %s", problem)
            return False
        return True

    def _discard(self) -> None:
        try:
            with media_errors(self._path, "write"):
                self._encoder.close()
        except MediaError as error:
            log.debug("closing what is thrown away: %s", error)
        finally:
            super()._discard()


class VideoTarget(EncodedTarget[VideoEncoder]):
    """A video file."""

    def __init__(self, path: Path, spec: VideoSpec, *, whole: Path | None = None) -> None:
        """
        Args:
            whole: what this is a part of, see `VideoEncoder`.
        """
        super().__init__(
            path, spec.info, spec.size, lambda part: VideoEncoder(part, spec, whole=whole)
        )


class ImageTarget(Target):
    """One image."""

    def _put(self, array: NDArray[Any], index: int, time: int) -> None:
        self._write_image(self._part, array, index)

    def _finish(self) -> None:
        replace_durably(self._part, self._path)

    def _complete(self) -> bool:
        return False  # an image is whole, or nothing


class FolderTarget(Target):
    """A folder of images: named as those of the source, or numbered from 1."""

    def __init__(self, path: Path, info: SourceInfo, size: tuple[int, int]) -> None:
        super().__init__(path, info, size)
        with media_errors(path, "write"):
            shutil.rmtree(self._part, ignore_errors=True)  # of a killed process of the same id
            self._part.mkdir()

    def _put(self, array: NDArray[Any], index: int, time: int) -> None:
        self._write_image(self._part / frame_name(self._info, index), array, index)

    def _finish(self) -> None:
        for file in self._part.iterdir():
            sync(file)
        place_frames(self._part, self._path)
        sync(self._path)
        sync(self._path.parent)

    def _complete(self) -> bool:
        return True

    def _discard(self) -> None:
        shutil.rmtree(self._part, ignore_errors=True)


def place_frames(part: Path, path: Path) -> None:
    """Give a folder of finished frames its name."""
    if path.exists():  # it may hold more than we wrote: replace frame by frame, remove nothing
        names = {*LEFT_BY_SYSTEMS, *(file.name for file in part.iterdir())}
        others = [file.name for file in path.iterdir() if file.name not in names]
        if others:
            log.warning("%s keeps %d files of before", path, len(others))
        for file in sorted(part.iterdir()):
            move(file, path / file.name)
    else:
        move(part, path)


def remove_leftovers(target: Path, process: int) -> None:
    """Remove the temporary output for `target` of a process, by its id, that died writing it."""
    part = _part(target, process)
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _part(path: Path, process: int | None = None) -> Path:
    """The temporary name: beside the output, hidden, the process's own (by default this one), with
    the output's suffix, which names the format."""
    process = os.getpid() if process is None else process
    return name_around(path, ".", f".{process}.part{path.suffix or '.dir'}")


def _free_name(path: Path) -> Path:
    """Where to keep what was finished of an output: a name that nothing has."""
    name, number = name_around(path, "", f".partial{path.suffix}"), 1
    while name.exists():
        number += 1
        name = name_around(path, "", f".partial-{number}{path.suffix}")
    return name
