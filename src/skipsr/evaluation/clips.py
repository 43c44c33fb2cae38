"""The clips that an evaluation is of, and those of them that are left out, with the reason."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from skipsr.data.benchmarks import Item, list_items
from skipsr.errors import MediaError, SettingsError
from skipsr.settings import ClipSettings
from skipsr.video import open_source

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class ClipFolder:
    """The clips of a folder that can be read, and why others cannot."""

    items: list[Item]
    faults: dict[str, str] = field(default_factory=dict[str, str])
    """Clips that cannot be read, by name, and why."""
    without_truth: tuple[str, ...] = ()  # clips without the truth that was asked for
    tell: Callable[[str], None]
    """Given a line of text for each clip that is left out, and for whatever is measured."""

    @property
    def notes(self) -> list[str]:
        """A sentence on each clip that is left out."""
        return [
            *(f"{name} is left out: it has no truth" for name in self.without_truth),
            *(f"{name} is left out: {why}" for name, why in self.faults.items()),
        ]

    def each(self, work: Callable[[Item], T]) -> list[T]:
        """What `work` makes of each clip; one that it cannot read is left out from then on.

        Raises:
            MediaError: that of the last clip, when none of them can be read.
        """
        found: list[T] = []
        for item in tuple(self.items):
            try:
                found.append(work(item))
            except MediaError as error:
                self.items.remove(item)
                if not self.items:
                    raise
                self.leave_out(item, error)
        return found

    def leave_out(self, item: Item, error: MediaError) -> None:
        """Name a clip that cannot be read."""
        self.faults[item.name] = str(error)
        self.tell(f"{item.name} is left out: {error}")


def find_clips(
    root: Path,
    settings: ClipSettings,
    tell: Callable[[str], None] = lambda _: None,
    *,
    truths: bool = False,
) -> ClipFolder:
    """The clips of a folder that the settings ask for; those that cannot be opened are left out.

    Args:
        tell: see `ClipFolder.tell`.
        truths: leave out clips without a truth as well.

    Raises:
        MediaError: when the folder holds none, or none that can be opened.
        SettingsError: when none has `only` in its name, none the truth that is asked for, or one
            not that which `degrade` needs.
    """
    if not root.is_dir():
        raise MediaError(f"{root} is no folder: give a folder of clips to measure on")
    named = [item for item in list_items(root, settings.scale) if settings.only in item.name]
    if not named:
        raise SettingsError(f"no clip of {root} has {settings.only!r} in its name: change `only`")
    items = [item for item in named if item.truth is not None or not truths]
    if not items:
        raise SettingsError(f"this compares with the truth, and no clip of {root} has one")
    if settings.degrade is not None:
        for item in items:
            if item.truth is None:
                raise SettingsError(
                    f"`degrade` makes LR clips from truths, and {item.name} has none: leave it out"
                )
    broken: list[tuple[Item, MediaError]] = []
    for item in items:
        try:
            for path in (item.truth, item.low):
                if path is not None:
                    open_source(path).close()
        except MediaError as error:
            broken.append((item, error))
    if len(broken) == len(items):
        raise broken[0][1]
    left = {item.name for item, _ in broken}
    clips = ClipFolder(
        items=[item for item in items if item.name not in left],
        without_truth=tuple(item.name for item in named if item not in items),
        tell=tell,
    )
    for item, error in broken:
        clips.leave_out(item, error)
    return clips
