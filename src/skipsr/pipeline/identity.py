"""What a job's result depends on, and how the identities of two runs differ; without torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from skipsr.files import hash_of_ends
from skipsr.settings import JobSettings

_EDGE = 2**16  # bytes at either end of a source that are hashed
_NOT_COMPARED = ("overwrite", "restart")  # they change no result
_OTHERS = {"weights": "the weights are others", "firsts": "the list of shots was changed"}


def job_identity(
    source: Path,
    files: Sequence[Path],
    settings: JobSettings,
    model: Mapping[str, Any],
    shots: Sequence[int] | None = None,
) -> dict[str, dict[str, Any]]:
    """All that a result depends on, by topic.

    Args:
        files: the images, if the source is a folder.
        model: see `skipsr.backbones.contract.Upscaler.identity`.
        shots: their first frames, where a file lists them.
    """
    told = {name: value for name, value in asdict(settings).items() if name not in _NOT_COMPARED}
    found = {
        "source": source_identity(source, files),
        "settings": told,
        "model": dict(model),
        "program": program_identity(),
        **({} if shots is None else {"shots": {"firsts": sorted({0, *shots})}}),
    }
    return json.loads(json.dumps(found, default=str))


def source_identity(source: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Where a source is, and its size, time of change and a hash of both ends of every file."""
    states = [(path, path.stat()) for path in files or (source,)]
    told = ((f"{path.name} {state.st_mtime_ns}", path) for path, state in states)
    return {
        "path": str(source.resolve()),
        "files": [path.name for path in files],
        "bytes": sum(state.st_size for _, state in states),
        "changed": max(state.st_mtime_ns for _, state in states),
        "hash": hash_of_ends(told, _EDGE),
    }


def video_ends(source: Path, files: Sequence[Path]) -> str | None:
    """A hash of both ends of a video; None for images, each of which is read once, and for what is
    not there, which whoever reads it next will say."""
    try:
        return None if files else hash_of_ends([(source.name, source)], _EDGE)
    except OSError:
        return None


def program_identity() -> dict[str, str]:
    """Versions of what a result's bits depend on."""
    return {name: _version(name) for name in ("skipsr", "torch", "av")}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a folder that was not installed
        return "unknown"


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One phrase for each thing in which two identities differ; topics of one alone are left out.

    A source is what is in it, wherever it lies.
    """
    found: list[str] = []
    for topic in then.keys() & now.keys():
        before, after = then[topic], now[topic]
        changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        if topic == "source":
            found += ["the source was changed"] if {"bytes", "changed", "hash"} & {*changed} else []
        else:
            found += [_phrase(topic, key, before.get(key), after.get(key)) for key in changed]
    return sorted(found)


def _phrase(topic: str, key: str, before: object, after: object) -> str:
    if key in _OTHERS:
        return _OTHERS[key]
    named = key if topic == "program" else f"`{key}`"
    return f"{named} is {_told(after)} and was {_told(before)}"


def _told(value: object) -> str:
    return "not given" if value is None else str(value)
