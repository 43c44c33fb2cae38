"""The inputs of a batch, from a folder or a list, and the names of their outputs."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipsr.errors import MediaError, SettingsError
from skipsr.files import as_told_apart, check_there, home_expanded, text_encoding
from skipsr.pipeline.manifest import NAME as MANIFEST
from skipsr.pipeline.manifest import SUFFIX
from skipsr.video import source_kind, target_kind
from skipsr.video.images import natural_key

log = logging.getLogger(__name__)
IMAGE_SUFFIX = ".png"
RECORD = ".skipsr-batch.jsonl"  # in a folder of results: what they were made of


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a folder of images that are one sequence, and the name of its result."""

    input: Path
    output: Path


@dataclass(frozen=True, slots=True)
class Listing:
    """What was found, in order."""

    items: tuple[Item, ...]
    left_out: int = 0
    """Files of a folder whose names are neither those of videos nor of images."""


def list_items(source: Path, out: Path, suffix: str) -> Listing:
    """The files of a folder and all below it, or of a list, or one video or image.

    Names keep the folder's structure. What lies in `out` or in that of another batch, or is kept of
    an unfinished job, is a result and no input, and hidden files are none either. A list is a text
    with a path in each line, or with JSON, `{"input": ..., "output": ...}` (the second may be left
    out), and with remarks in lines that begin with `#`; paths are relative to the list, outputs to
    `out`.

    Args:
        suffix: of video results.

    Raises:
        MediaError: for a list or a folder that cannot be read, or holds nothing.
        SettingsError: when results would meet, or be written over an input.
    """
    check_there(source)
    if not out.is_dir() and source_kind(out) is not None:
        raise SettingsError(
            f"{out} is to be a folder for results: give another name, or for one file use "
            "skipsr upscale"
        )
    if source.is_dir():
        listing = _of_folder(source, out, suffix)
        if not listing.items:
            raise MediaError(f"{source} holds no videos or images")
    elif source_kind(source) is not None:
        listing = Listing((Item(source, out / _renamed(Path(source.name), source, suffix)),))
    else:
        listing = Listing(tuple(_of_list(source, out, suffix)))
        if not listing.items:
            raise MediaError(f"{source} lists nothing: give a path in each line")
    _check_places(listing.items)
    return listing


def _of_folder(folder: Path, out: Path, suffix: str) -> Listing:
    if _place(folder) == _place(out):
        raise SettingsError(f"{out} is the folder of the inputs: give another one for the results")
    items: list[Item] = []
    left_out = 0
    for path in _files(folder, _place(out)):
        if source_kind(path) is None:
            left_out += 1
        else:
            items.append(Item(path, out / _renamed(path.relative_to(folder), path, suffix)))
    items.sort(key=lambda item: [natural_key(Path(part)) for part in item.input.parts])
    return Listing(tuple(items), left_out)


def _files(folder: Path, out: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise MediaError(f"cannot read {error.filename}: {error.strerror}") from error

    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if _is_entered(Path(here, name), out)]
        yield from (Path(here, name) for name in names if name[0] != ".")


def _is_entered(folder: Path, out: Path) -> bool:
    """Whether inputs are looked for in a folder: not in results, finished or not."""
    unfinished = folder.suffix == SUFFIX and (folder / MANIFEST).exists()
    if folder.name[0] == "." or unfinished or _place(folder) == out:
        return False
    if (folder / RECORD).exists():
        log.warning("%s holds results of another batch: it is left out", folder)
        return False
    return True


def _of_list(source: Path, out: Path, suffix: str) -> Iterator[Item]:
    try:
        data = source.read_bytes()
        text = data.decode(text_encoding(data))
    except UnicodeDecodeError:
        text = "\0"
    except OSError as error:
        raise MediaError(f"cannot read {source}: {error.strerror}") from error
    if "\0" in text:
        raise MediaError(f"{source} is no list: give a folder, or a text with a path in each line")
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line and not line.startswith("#"):
            yield _item(line, f"line {number} of {source}", source.parent, out, suffix)


def _item(line: str, where: str, folder: Path, out: Path, suffix: str) -> Item:
    named = _parsed(line, where) if line.startswith("{") else {"input": line}
    given = home_expanded(named["input"])
    path = folder / given
    if "output" in named:
        output = out / home_expanded(named["output"])
        if not output.is_dir():
            target_kind(output)
        return Item(path, output)
    # what lies elsewhere than below the list has no place of its own
    inside = not given.is_absolute() and ".." not in given.parts
    name = _renamed(given if inside else Path(given.name), path, suffix)
    return Item(path, out / name)


def _parsed(line: str, where: str) -> dict[str, str]:
    try:
        found: Any = json.loads(line)
    except ValueError as error:
        raise MediaError(f"{where} is no JSON: {error}") from error
    if "input" not in found:
        raise MediaError(f'{where} names no file: give {{"input": PATH}}')
    for name, value in found.items():
        if name not in ("input", "output"):
            raise MediaError(f'{where} says "{name}": only "input" and "output" are known')
        if not isinstance(value, str) or not value or "\0" in value:
            raise MediaError(f'{where}: "{name}" is no path')
    return found


def _renamed(name: Path, source: Path, suffix: str) -> Path:
    """The name of a result: of a folder of images the folder's."""
    match source_kind(source):
        case "folder":
            return name
        case "image":
            return name.with_suffix(IMAGE_SUFFIX)
        case _:
            return name.with_suffix(suffix)


def _check_places(items: Sequence[Item]) -> None:
    inputs = {_place(item.input): item.input for item in items}
    owners: dict[Path, Item] = {}
    for item in items:
        place = _place(item.output)
        if place in inputs:
            raise SettingsError(
                f"{item.output} would be the result of {item.input}, but is the input "
                f"{inputs[place]}: give another folder for the results"
            )
        other = owners.setdefault(place, item)
        if other is not item:
            _refuse(other, item)
    for place, item in owners.items():
        for above in place.parents:
            if above in owners:
                _refuse(owners[above], item)


def _refuse(one: Item, other: Item) -> None:
    if one.input == other.input:
        raise SettingsError(f"{one.input} is listed twice: leave one of them out")
    raise SettingsError(
        f"{one.input} and {other.input} would meet in {one.output}: rename one, or give a list of "
        'lines such as {"input": PATH, "output": PATH}'
    )


def _place(path: Path) -> Path:
    """Where a path leads, spelled in one way."""
    return Path(as_told_apart(os.path.realpath(path)))
