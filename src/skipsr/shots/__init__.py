"""Where shots begin: found while frames are read, or listed in a file. Knows no video file."""

from skipsr.shots.found import AHEAD, BEHIND, FoundShots
from skipsr.shots.listed import (
    ONE_SHOT,
    ListedShots,
    check_place,
    list_shots,
    read_list,
    write_list,
)

__all__ = [
    "AHEAD",
    "BEHIND",
    "ONE_SHOT",
    "FoundShots",
    "ListedShots",
    "Shots",
    "check_place",
    "list_shots",
    "read_list",
    "write_list",
]

Shots = FoundShots | ListedShots
