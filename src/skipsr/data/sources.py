"""The sources of a training folder: which may be used, decoded once, kept in memory or on disk."""

import csv
import json
import re
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from skipsr.data.validation import held_out
from skipsr.errors import MediaError
from skipsr.files import atomic_write
from skipsr.video import open_source

Pixels = NDArray[np.uint8]  # t h w c
Shape = tuple[int, int, int]  # t h w

CLIPS = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts", ".y4m"})
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
MANIFEST = "MANIFEST.csv"
NON_COMMERCIAL = re.compile(r"(?<![a-z0-9])nc(?![a-z0-9])|non\W?commercial", re.IGNORECASE)


class Store:
    """The usable files of a folder, decoded to 8 bits, in memory or in a cache folder.

    The cache is one `.npy` file per source and an index.json. Validation clips are left out by
    their content.

    Args:
        root: folder searched recursively.
        cache: folder made when needed; None keeps the pixels in memory.

    Attributes:
        shapes: `(t, h, w)` by name relative to `root`; t is 1 for an image.
        excluded: names that may not be used, and why.

    Raises:
        MediaError: when a file or manifest cannot be read, or there is no folder.
    """

    def __init__(self, root: Path, cache: Path | None) -> None:
        self._cache = cache
        self._memory: dict[str, Pixels] = {}
        if not root.is_dir():
            raise MediaError(f"{root} is not a folder: give one of clips and images as `data`")
        files, self.excluded = _list_files(root)
        with nullcontext() if cache is None else _locked(cache):
            self._fill(files)

    def load(self, name: str) -> Pixels:
        """The pixels of a source, `t h w c`; from a cache, memory-mapped and read only."""
        return np.load(self._file(name), mmap_mode="r") if self._cache else self._memory[name]

    def _fill(self, files: dict[str, Path]) -> None:
        """Decode what is not there yet."""
        sizes, self.shapes = self._read_index()
        for name, path in files.items():
            size = path.stat().st_size
            # sizes, not dates: a cache that was copied to another machine stays valid
            if sizes.get(name) != size or not self._file(name).is_file():
                self.shapes[name] = self._keep(name, _decode(path))
                sizes[name] = size
                self._write_index(sizes)  # each time, so that a broken run goes on where it was
        self.shapes = {name: self.shapes[name] for name in files}
        self._write_index(sizes)

    def _file(self, name: str) -> Path:
        return (self._cache or Path()) / f"{name}.npy"

    def _keep(self, name: str, pixels: Pixels) -> Shape:
        if self._cache is None:
            self._memory[name] = pixels
        else:
            path = self._file(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as part, part.open("wb") as file:
                np.save(file, pixels)
        t, h, w, _ = pixels.shape
        return t, h, w

    def _read_index(self) -> tuple[dict[str, int], dict[str, Shape]]:
        path = self._file("index").with_suffix(".json")
        if self._cache is None or not path.is_file():
            return {}, {}
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows: dict[str, tuple[int, int, int, int]] = index["sources"]
        sizes = {name: row[0] for name, row in rows.items()}
        return sizes, {name: row[1:] for name, row in rows.items()}

    def _write_index(self, sizes: dict[str, int]) -> None:
        if self._cache is None:
            return
        rows = {name: [sizes[name], *shape] for name, shape in self.shapes.items()}
        with atomic_write(self._cache / "index.json") as part:
            part.write_text(json.dumps({"sources": rows}), encoding="utf-8")


def _locked(cache: Path) -> FileLock:
    """Held while a cache is filled: of several processes the first decodes, the others wait."""
    cache.mkdir(parents=True, exist_ok=True)
    return FileLock(cache / ".lock")


def _list_files(root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Files under `root` that may be used, by name, and the reasons why others may not."""
    files: dict[str, Path] = {}
    excluded: dict[str, str] = {}
    manifests: dict[Path, dict[str, str] | None] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in CLIPS | IMAGES or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        reason = _refusal(path, root, manifests) or held_out(path)
        if reason is None:
            files[name] = path
        else:
            excluded[name] = reason
    return files, excluded


def _refusal(path: Path, root: Path, manifests: dict[Path, dict[str, str] | None]) -> str | None:
    """Why this file may not be used; `manifests` remembers what was read."""
    top = root.resolve().parent
    resolved = path.parent.resolve() / path.name
    for folder in resolved.parents:
        if folder not in manifests:
            manifests[folder] = _read_manifest(folder / MANIFEST)
        licences = manifests[folder]
        if licences is not None:
            licence = licences.get(resolved.relative_to(folder).as_posix())
            if licence is None:
                return f"no row in {MANIFEST}"
            return f"licence: {licence}" if NON_COMMERCIAL.search(licence) else None
        if folder == top:
            break
    return None


def _read_manifest(path: Path) -> dict[str, str] | None:
    """Licence by file name; None where there is no manifest."""
    if not path.is_file():
        return None
    licences: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"file", "licence"} <= set(reader.fieldnames or ()):
            raise MediaError(f"{path} needs the columns file and licence")
        for row in reader:
            if row["licence"] is None:
                raise MediaError(f"{path}, line {reader.line_num}: the row ends before its licence")
            name = PurePosixPath(row["file"]).as_posix()
            # a file listed twice is bound by both rows
            licences[name] = (
                f"{licences[name]}; {row['licence']}" if name in licences else row["licence"]
            )
    return licences


def _decode(path: Path) -> Pixels:
    with open_source(path) as source:
        return np.concatenate([clip.to_array() for clip in source.clips(16, 0)])
