"""The clips and images of a benchmark folder, whichever of the usual layouts it has.

Layouts (names in any case, with or without the scale, as a word among others):

    truth and LR side by side   REDS4/GT/000, REDS4/sharp_bicubic/000; Vid4/GT, BIx4, BDx4; UDM10;
                                YouHQ40/gt, lq; DIV2K_valid_HR, DIV2K_valid_LR_bicubic/X4/0801x4.png
    truth and LR in each clip   SPMCS/<clip>/truth, input4; udm10/<clip>/truth, blur4
    truth alone                 a folder of videos, images or folders of frames: YouHQ40/<clip>
    LR alone                    the same, if the folder's name says so (VideoLQ, AIGC30, lr, LQ), or
                                if it holds an LR folder and no truth
"""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from skipsr.data.sources import CLIPS, IMAGES
from skipsr.errors import MediaError

REDS4 = ("000", "011", "015", "020")

# What a folder's name says it holds: by one of its words, or by all of it. The first that fits.
_KINDS = {
    "low": (r"(lr|lq|bicubic|bi|bd)(x?\d)?", r"(low|input|blur)(x?\d)?"),
    "truth": (r"gt|hr|hq|truth|groundtruth", r"(train|val|test)?sharp"),
}
_LOW_SETS = r"videolq|aigc\d*"  # published without truths
_SCALE_FOLDER = re.compile(r"x\d", re.IGNORECASE)
_LOW_SUFFIX = re.compile(r"[-_]?(x\d|lr|lq)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Item:
    """One clip or image to measure on."""

    name: str
    truth: Path | None
    """Video file, image file or folder of frames; None where there is none."""
    low: Path | None
    """The LR version that came with it, of the same three kinds; None: to be made from truth."""


def list_items(root: Path, scale: int = 4) -> list[Item]:
    """Find the layout of a benchmark folder and list what is in it, sorted by name.

    Where several LR versions lie beside the truth, bicubic at `scale` is preferred; give the LR
    folder itself (`Vid4/BDx4`) for another one. LR clips without truth are left out, and a folder
    named REDS4 is taken for its four clips only.

    Raises:
        MediaError: when no layout fits or several might, a truth has no LR version though others
            have, or two entries of a folder have one name.
    """
    if not root.is_dir():
        raise MediaError(f"{root} is not a folder: give the folder of a benchmark")
    items = (
        _beside(root, scale)
        or _inside(root, scale)
        or _chosen_low(root, scale)
        or _alone(root, scale)
    )
    if not items:
        raise MediaError(f"{root} holds no videos, images or folders of frames in a layout we know")
    if "".join(_words(root.absolute())) == "reds4" and {item.name for item in items} >= set(REDS4):
        items = [item for item in items if item.name in REDS4]
    return sorted(items, key=lambda item: item.name)


def _beside(root: Path, scale: int) -> list[Item]:
    """Folders of truths and of LR versions; or of LR versions alone."""
    truth, low = _sides(root, scale)
    if truth is not None:
        entries = _entries(truth)
        if not entries:
            raise MediaError(f"{truth} holds no videos, images or folders of frames: fill it")
        return _pair(entries, low)
    if low is None:
        return []
    others = [f for f in _folders(root) if _kind(f) != "low" and _files(f, CLIPS | IMAGES)]
    if others:
        raise MediaError(
            f"{root} holds {low.name} beside {others[0].name}, and no folder is named as the "
            "truth: give one of them, or rename it to gt"
        )
    return [Item(name, None, path) for name, path in _entries(low).items()]


def _inside(root: Path, scale: int) -> list[Item]:
    """A folder per clip that holds truth and LR version, both folders of frames."""
    items: list[Item] = []
    for folder in _folders(root):
        truth, low = _sides(folder, scale)
        if truth is None or not _files(truth, IMAGES):
            continue
        if low is not None and not _files(low, IMAGES):
            raise MediaError(f"{low} has no images, unlike {truth}: complete or remove it")
        items.append(Item(folder.name, truth, low))
    return items


def _chosen_low(root: Path, scale: int) -> list[Item]:
    """An LR folder that was given itself, with the truth beside it."""
    named = _named(root.absolute())
    if _kind(named) != "low" or len(truths := _of_kind(named.parent, "truth")) != 1:
        return []
    entries, low = _entries(truths[0]), _descend(root.absolute(), scale)
    # a neighbour without any common name is another data set
    related = not _lows(low).keys().isdisjoint(name.lower() for name in entries)
    return _pair(entries, low) if related else []


def _alone(root: Path, scale: int) -> list[Item]:
    """Videos, images and folders of frames: truths, unless the folder's name says LR."""
    videos = [folder.name for folder in _folders(root) if _files(folder, CLIPS)]
    if videos:
        raise MediaError(f"{root} holds folders of videos ({', '.join(videos)}): give one of them")
    words, (by_word, _) = _words(_named(root.absolute())), _KINDS["low"]
    if re.fullmatch(_LOW_SETS, "".join(words)) or any(re.fullmatch(by_word, w) for w in words):
        return [Item(name, None, path) for name, path in _entries(_descend(root, scale)).items()]
    return [Item(name, path, None) for name, path in _entries(root).items()]


def _sides(folder: Path, scale: int) -> tuple[Path | None, Path | None]:
    """The folders of truths and of LR versions in a folder."""
    truths = _of_kind(folder, "truth")
    if len(truths) > 1:
        names = ", ".join(truth.name for truth in truths)
        raise MediaError(f"{folder} holds several folders of truths ({names}): give one of them")
    low = min(_of_kind(folder, "low"), key=partial(_preference, scale=scale), default=None)
    return (truths[0] if truths else None), (_descend(low, scale) if low else None)


def _of_kind(folder: Path, kind: str) -> list[Path]:
    """Folders in a folder, without those for training that DIV2K and REDS keep beside."""
    folders = _folders(folder)
    kept = [inner for inner in folders if "train" not in _words(inner)] or folders
    return [inner for inner in kept if _kind(inner) == kind]


def _named(low: Path) -> Path:
    """The folder above `X4`, whose name says more; any other folder itself."""
    return low.parent if _SCALE_FOLDER.fullmatch(low.name) else low


def _descend(low: Path, scale: int) -> Path:
    """`X4` in a folder that has one folder per scale."""
    scales = [folder for folder in _folders(low) if _SCALE_FOLDER.fullmatch(folder.name)]
    return min(scales, key=partial(_preference, scale=scale), default=low)


def _preference(folder: Path, scale: int) -> tuple[bool, bool, str]:
    """The scale, or none given, before other scales; bicubic before other kinds; then by name."""
    digits = re.findall(r"(?<=[a-z])\d$", folder.name.lower())
    bicubic = any(re.fullmatch(r"bi(c|cubic)?(x?\d)?", word) for word in _words(folder))
    return digits not in ([], [str(scale)]), not bicubic, folder.name


def _pair(truths: dict[str, Path], low: Path | None) -> list[Item]:
    """Truths with the LR versions of the same names, whatever their case or an added `x4`."""
    if low is None:
        return [Item(name, path, None) for name, path in truths.items()]
    lows = _lows(low)
    missing = [name for name in truths if name.lower() not in lows]
    if missing:
        raise MediaError(
            f"{low} has no LR version of {missing[0]}: complete it, or give the folder of truths"
        )
    return [Item(name, path, lows[name.lower()]) for name, path in truths.items()]


def _lows(low: Path) -> dict[str, Path]:
    """LR entries by name in lower case, with and without an added `x4`."""
    entries = {name.lower(): path for name, path in _entries(low).items()}
    return {_LOW_SUFFIX.sub("", name): path for name, path in entries.items()} | entries


def _entries(folder: Path) -> dict[str, Path]:
    """Videos, images and folders of frames by name, without the endings of files."""
    frames = [inner for inner in _folders(folder) if _files(inner, IMAGES)]
    entries: dict[str, Path] = {}
    for path in [*_files(folder, CLIPS | IMAGES), *frames]:
        name = path.name if path.is_dir() else path.stem
        if name in entries:
            raise MediaError(
                f"{folder} holds both {entries[name].name} and {path.name}: remove one"
            )
        entries[name] = path
    return entries


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    return [p for p in _visible(folder) if p.suffix.lower() in suffixes and p.is_file()]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))


def _kind(folder: Path) -> str | None:
    words = _words(folder)
    for kind, (by_word, by_name) in _KINDS.items():
        if any(re.fullmatch(by_word, word) for word in words) or re.fullmatch(
            by_name, "".join(words)
        ):
            return kind
    return None


def _words(folder: Path) -> list[str]:
    return re.split(r"[^a-z0-9]+", folder.name.lower())
