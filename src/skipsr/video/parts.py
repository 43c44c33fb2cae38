"""How a long result is stored while it is made: parts in a folder, which become the result."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from skipsr.files import move, sync
from skipsr.settings import Encoding
from skipsr.video.container import media_errors
from skipsr.video.formats import VideoSpec, frame_name, target_kind
from skipsr.video.join import Part, VideoPart, join
from skipsr.video.probe import SourceInfo
from skipsr.video.remux import say_sound_is_lost
from skipsr.video.write import Target, place_frames


def open_parts(
    folder: Path,
    target: Path,
    info: SourceInfo,
    size: tuple[int, int],
    encoding: Encoding,
) -> "Parts":
    """Parts of a video or of a folder of images, in a folder that is there; see `open_target`."""
    if target_kind(target) == "folder":
        return ImageParts(folder, target, info, size)
    return VideoParts(folder, target, VideoSpec(info, size, encoding))


class Parts(ABC):
    """Files of finished frames, in a folder."""

    def __init__(self, folder: Path, target: Path) -> None:
        """
        Args:
            folder: made when it is needed; nothing else is in it.
        """
        self._folder, self._target = folder, target

    def tidy(self, kept: Sequence[tuple[int, int]]) -> None:
        """Remove what belongs to none of the parts `[start, end)`."""
        known = {file for part in kept for file in self.files(*part)}
        for file in self._folder.glob("*"):
            if file not in known:
                file.unlink()

    def take(self, other: "Parts", start: int, end: int) -> None:
        """Move the part of the frames `[start, end)` here from another folder.

        Done again after an interruption, it moves what was left there.

        Raises:
            MediaError: when it cannot be moved.
        """
        with media_errors(self._folder, "write"):
            self._folder.mkdir(exist_ok=True)
            for theirs, ours in zip(other.files(start, end), self.files(start, end), strict=True):
                if theirs.exists():
                    move(theirs, ours)
            sync(self._folder)

    @abstractmethod
    def open(self, start: int) -> Target:
        """Takes the frames of the part that begins with the frame `start`."""

    @abstractmethod
    def files(self, start: int, end: int) -> list[Path]:
        """What the part of the frames `[start, end)` is in."""

    @abstractmethod
    def join(self, parts: Sequence[tuple[int, int]], times: Sequence[tuple[int, int]]) -> None:
        """Make the result of the parts `[start, end)` that are all there is, without its name.

        Args:
            times: of the first and the last frame of each.

        Raises:
            MediaError: when a part is not what it should be, or the result cannot be written.
        """

    @abstractmethod
    def place(self) -> None:
        """Give what was joined its name; what has it already stays.

        Raises:
            MediaError: when it cannot be had.
        """


class VideoParts(Parts):
    """A video file for each."""

    def __init__(self, folder: Path, target: Path, spec: VideoSpec) -> None:
        super().__init__(folder, target)
        self._spec = spec
        self._whole = folder / f"whole{target.suffix}"
        self._told = False

    def open(self, start: int) -> Target:
        with media_errors(self._folder, "write"):
            self._folder.mkdir(exist_ok=True)
        part = VideoPart(self._file(start), self._spec, whole=self._target)
        if not self._told:
            part.say_what_is_lost()
            self._told = True
        return part

    def files(self, start: int, end: int) -> list[Path]:
        return [self._file(start)]

    def _file(self, start: int) -> Path:
        # NUT holds packets as they come and times in any unit, but no ProRes
        return self._folder / f"{start:08d}.{'mov' if self._spec.codec == 'prores' else 'nut'}"

    def join(self, parts: Sequence[tuple[int, int]], times: Sequence[tuple[int, int]]) -> None:
        found = [
            Part(self._file(start), end - start, first, last)
            for (start, end), (first, last) in zip(parts, times, strict=True)
        ]
        join(found, self._whole, self._spec)

    def place(self) -> None:
        with media_errors(self._target, "write"):
            if self._whole.exists():
                move(self._whole, self._target)
            sync(self._target.parent)


class ImageParts(Parts):
    """Images in one folder, which becomes the result."""

    def __init__(self, folder: Path, target: Path, info: SourceInfo, size: tuple[int, int]) -> None:
        super().__init__(folder, target)
        self._info, self._size = info, size
        say_sound_is_lost(target, info)

    def open(self, start: int) -> Target:
        with media_errors(self._folder, "write"):
            self._folder.mkdir(exist_ok=True)
        return _ImagePart(self._folder, self._info, self._size)

    def files(self, start: int, end: int) -> list[Path]:
        return [self._folder / frame_name(self._info, index) for index in range(start, end)]

    def join(self, parts: Sequence[tuple[int, int]], times: Sequence[tuple[int, int]]) -> None:
        """They lie side by side."""

    def place(self) -> None:
        with media_errors(self._target, "write"):
            if self._folder.exists():
                place_frames(self._folder, self._target)
            sync(self._target)
            sync(self._target.parent)


class _ImagePart(Target):
    """Some images of a folder."""

    def __init__(self, path: Path, info: SourceInfo, size: tuple[int, int]) -> None:
        super().__init__(path, info, size)
        self._files: list[Path] = []

    def _put(self, array: NDArray[Any], index: int, time: int) -> None:
        self._files.append(self._path / frame_name(self._info, index))
        self._write_image(self._files[-1], array, index)

    def _finish(self) -> None:
        for file in self._files:
            sync(file)
        sync(self._path)

    def _complete(self) -> bool:
        return False

    def _discard(self) -> None:
        """What was not finished is written again."""
