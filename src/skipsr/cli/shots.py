"""The verb that lists shots."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from skipsr.files import check_there


@dataclass(frozen=True, kw_only=True)
class Shots:
    """List the first frame of each shot, and its time; the list can be edited and passed to upscale
    --shots."""

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    """Video, or folder of images."""
    out: Path | None = None
    """File to write; without it the list is printed."""
    overwrite: bool = False
    """Replace the file if it exists."""

    def run(self) -> None:
        check_there(self.input)
        from skipsr.cli.progress import show_progress
        from skipsr.pipeline.shots import find_shots
        from skipsr.shots import check_place, list_shots, write_list

        if self.out is not None:
            check_place(self.out, overwrite=self.overwrite)
        with show_progress() as watch:
            text = list_shots(find_shots(self.input, watch))
        if self.out is None:
            print(text, end="")
        else:
            write_list(self.out, text)
            print(self.out)
