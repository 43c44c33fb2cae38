"""The weight files that were given, one by name or all of a folder.

Each header is read once, and files are told apart by their tensors, not by their names.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from skipsr.errors import WeightsError
from skipsr.weights.identify import Inventory, Match
from skipsr.weights.load import SUFFIXES, FileInventory, read_inventory, read_stored
from skipsr.weights.packing import NO_SCALES
from skipsr.weights.quantized import Stored, plain

log = logging.getLogger(__name__)
Identify = Callable[[Inventory], Match | None]


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file whose header was read."""

    path: Path
    shapes: FileInventory  # under the file's own names
    match: Match | None  # with the nearest kind there is

    @classmethod
    def open(cls, path: Path, identify: Identify) -> "WeightFile":
        """Raises:
        WeightsError: when it is no readable weight file.
        """
        shapes = read_inventory(path)
        match = identify(shapes)
        if match is not None and shapes.form:
            layout = ", ".join(filter(None, (match.layout, shapes.form)))
            match = replace(match, layout=layout)
        return cls(path, shapes, match)

    @property
    def kind(self) -> str | None:
        """What it is; None for what is no kind exactly."""
        return self.match.kind if self.match is not None and self.match.exact else None

    @property
    def model(self) -> str | None:
        """The `family:preset` of its network; None for shared parts, such as an autoencoder."""
        name = (self.kind or "").partition(" ")[0]
        return name if ":" in name else None

    def describe(self) -> str:
        """One phrase: what it is, or what is wrong with it."""
        if self.match is None:
            return "none of its tensors belongs to a model we know"
        if self.match.exact:
            return self.match.title
        return f"nearest to {self.match.title}, but {self.match.describe()}"

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, on the CPU, under the file's own names and in its own dtypes, in float32
        where they are quantised.

        Raises:
            WeightsError: when they cannot be read.
        """
        return {name: plain(value) for name, value in self.stored().items()}

    def stored(self) -> dict[str, Stored]:
        """As `tensors`, but what is quantised stays so.

        It says so in the log when a file was rounded to eight bits without a scale.

        Raises:
            WeightsError: when they cannot be read.
        """
        if NO_SCALES in self.shapes.form:
            log.warning(
                "%s holds %s, as it was rounded without regard to its range: it loses quality that "
                "fp8 with scales, GGUF Q8_0 and float16 keep",
                self.path, NO_SCALES,
            )  # fmt: skip
        return read_stored(self.path)


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """What there is to make a model of.

    Attributes:
        named: the file that was given; None for a folder.
        known: the files of known kinds, in order of their names, the named one first.
        foreign: each other file of the folder, and what is wrong with it.
        apart: other folders whose files were looked at.
    """

    folder: Path
    identify: Identify
    named: WeightFile | None
    known: tuple[WeightFile, ...]
    foreign: tuple[tuple[Path, str], ...] = ()
    apart: tuple[Path, ...] = ()

    @classmethod
    def open(cls, source: Path, identify: Identify) -> "WeightFiles":
        """Read the header of a file, or of all weight files of a folder.

        A folder's files that are damaged or of no known kind are left out, with a warning each.

        Raises:
            WeightsError: when there is nothing, or a file given by name cannot be read.
        """
        if not source.exists():
            raise WeightsError(f"{source}: no such file or folder")
        if not source.is_dir():
            named = WeightFile.open(source, identify)
            return cls(source.parent, identify, named, (named,))
        known, foreign = _sorted(_paths(source), identify)
        for path, why in foreign:
            log.warning("%s is left out: %s", path, why)
        return cls(source, identify, None, known, foreign)

    @classmethod
    def of(cls, paths: Sequence[Path], identify: Identify) -> "WeightFiles":
        """Read the headers of these files of one folder, and of no others.

        Raises:
            WeightsError: when one cannot be read.
        """
        known = tuple(WeightFile.open(path, identify) for path in paths)
        return cls(paths[0].parent, identify, None, known)

    def with_beside(self) -> "WeightFiles":
        """With the other files in the folder of a named one, but for others of its kind.

        Of parts that are missing there, the first of each kind is taken that ComfyUI keeps apart.
        """
        known, foreign = self.known, self.foreign
        if self.named is not None:
            others = (path for path in _paths(self.folder) if path.name != self.named.path.name)
            beside, foreign = _sorted(others, self.identify)
            known = (self.named, *(file for file in beside if file.kind != self.named.kind))
        paths = _apart(self.folder)
        for file in _sorted(paths, self.identify)[0]:
            if file.model is None and file.kind not in {other.kind for other in known}:
                known = (*known, file)
        apart = tuple(sorted({path.parent for path in paths}))
        return replace(self, known=known, foreign=foreign, apart=apart)

    def network(self, name: str) -> WeightFile:
        """The file with the network of a `family:preset`.

        Raises:
            WeightsError: when there is none, or several, or the named file is another.
        """
        if self.named is not None:
            if self.named.model != name:
                raise WeightsError(
                    f"{self.named.path} does not fit {name}: it is {self.named.describe()}"
                )
            return self.named
        found = [file for file in self.known if file.model == name]
        if not found:
            raise self.lack(f"{name} network")
        return self._only(found, f"a {name} network", ", or name the file")

    def part(self, *kinds: str) -> WeightFile | None:
        """The one file of these kinds, or None; of a `.safetensors` beside others the first.

        Raises:
            WeightsError: when there are several, rather than guess between them.
        """
        found = [file for file in self.known if file.kind in kinds]
        repacked = [file for file in found if file.path.suffix == ".safetensors"]
        if len(found) > len(repacked) == 1:
            names = " and ".join(file.path.name for file in found)
            log.warning("%s: of %s %s is taken", self.folder, names, repacked[0].path.name)
            return repacked[0]
        return self._only(found, kinds[0]) if found else None

    def lack(self, *parts: str) -> WeightsError:
        """The error that names what is missing, and what there is."""
        known = ((f.path, f.describe()) for f in self.known if f.path.parent not in self.apart)
        told = [f"{path.name} ({what})" for path, what in (*known, *self.foreign)]
        there = " or in ".join(("there", *map(str, self.apart)))
        return WeightsError(
            f"{self.folder}: no {' and no '.join(parts)} {there}; it holds "
            f"{', '.join(told) or 'no weight file'}"
        )

    def _only(self, found: list[WeightFile], what: str, mend: str = "") -> WeightFile:
        if len(found) > 1:
            names = " and ".join(file.path.name for file in found)
            raise WeightsError(f"{self.folder}: {names} are each {what}; keep one{mend}")
        return found[0]


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def _apart(folder: Path) -> list[Path]:
    """Files in other folders of a ComfyUI, for a folder of networks in its `models`: autoencoders,
    of its own nodes or numz's, and the conditioning that such nodes bring along."""
    own = folder.absolute()
    found = (
        *sorted(own.parent.glob("vae/*")),
        *sorted(own.parent.glob("SEEDVR2/*")),
        *sorted(own.parent.parent.glob("custom_nodes/*/*_emb.pt")),
    )
    return [path for path in found if path.suffix in SUFFIXES and path.parent != own]


def _sorted(
    paths: Iterable[Path], identify: Identify
) -> tuple[tuple[WeightFile, ...], tuple[tuple[Path, str], ...]]:
    """Files of known kinds, and what is wrong with the others."""
    known: list[WeightFile] = []
    foreign: list[tuple[Path, str]] = []
    for path in paths:
        try:
            file = WeightFile.open(path, identify)
            if file.kind is not None:
                known.append(file)
                continue
            why = file.describe()
        except WeightsError as error:
            why = str(error).removeprefix(f"{path}: ")
        foreign.append((path, why))
    return tuple(known), tuple(foreign)
