"""The report of a batch, and the events of which it is made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from skipsr.errors import SkipsrError

Status = Literal["done", "skipped", "failed"]
STATUSES: tuple[Status, ...] = ("done", "skipped", "failed")


@dataclass(frozen=True, slots=True)
class Started:
    """So many files, of which some are skipped."""

    files: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What became of one file."""

    input: str
    output: str
    status: Status
    """Skipped are those whose result was there already, made of the same with the same settings."""
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Frames, width, height, seconds and share computed, of when it was done."""
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        named = {"input": self.input, "output": self.output, "status": self.status}
        return {**named, **self.figures, **({"error": self.error} if self.error else {})}


@dataclass(slots=True)
class BatchReport:
    """What became of all."""

    model: str
    files: list[FileReport] = field(default_factory=list[FileReport])
    seconds: float = 0.0

    def count(self, status: Status) -> int:
        """Files that ended so."""
        return sum(file.status == status for file in self.files)

    def to_json(self) -> str:
        """One line."""
        counts = {status: self.count(status) for status in STATUSES}
        files = [file.as_dict() for file in self.files]
        return json.dumps(
            {"model": self.model, **counts, "seconds": round(self.seconds, 3), "files": files}
        )


class BatchError(SkipsrError):
    """A batch cannot go on; `report` tells what became of files before."""

    def __init__(self, sentence: str, report: BatchReport) -> None:
        super().__init__(sentence)
        self.report = report
