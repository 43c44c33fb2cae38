"""The file that lists shots: what it may say, and what is wrong with others."""

import os
import threading
from fractions import Fraction
from pathlib import Path

import pytest

from skipsr.errors import SettingsError
from skipsr.shots import ListedShots, check_place, list_shots, read_list, write_list

RATE = Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("text", "firsts"),
    [
        ("", ()),
        ("0\n25\n250\n", (0, 25, 250)),
        ("25", (25,)),
        ("\ufeff# mine\r\n\r\n  25  # the garden\r\n", (25,)),
        ("1.0\n2.002\n", (24, 48)),
        ("0:10.4", (249,)),
        ("00:00:10.400\n0:01:00.5\n", (249, 1451)),
        ("1:00:00", (86314,)),
    ],
)
def test_frames_and_times(tmp_path: Path, text: str, firsts: tuple[int, ...]):
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_list(path, RATE, 100_000) == ListedShots(firsts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("25\nforty", "line 2: forty is neither a frame, such as 250, nor a time"),
        ("-3", "line 1: -3 is neither"),
        ("12 30", "line 1: 12 30 is neither"),
        ("1:2:3:4", "line 1: 1:2:3:4 is neither"),
        ("\u0663", "is neither"),
        ("25\n# so\n25", "line 3: 25 does not come after frame 25: sort the lines"),
        ("25\n1.0", "line 2: 1.0 does not come after frame 25"),
        ("299\n300", "line 2: 300 is beyond the source, which has 300 frames"),
        ("12.6", "line 1: 12.6 is beyond the source"),
    ],
)
def test_lines_that_are_at_fault_are_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^`shots` .*list\.txt") as caught:
        read_list(path, RATE, 300)
    assert message in str(caught.value)


def test_a_list_that_powershell_wrote_is_read(tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_text("0\r\n25 # ä\r\n", encoding="utf-16", newline="")
    assert read_list(path, RATE, 300) == ListedShots((0, 25))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
def test_a_list_may_come_from_a_pipe(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("0\n25\n",))
    writer.start()
    assert read_list(tmp_path / "pipe", RATE, 300) == ListedShots((0, 25))
    writer.join()


def test_times_are_refused_where_frames_are_not_evenly_spaced(tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_text("3\n1.5\n")
    with pytest.raises(SettingsError, match=r"line 2: 1\.5 is a time, and .* give frames"):
        read_list(path, None, None)


@pytest.mark.parametrize("name", ["nowhere.txt", "folder", "binary"])
def test_what_is_no_list_is_refused(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(SettingsError, match="give auto, off, or a text file"):
        read_list(tmp_path / name, RATE, 300)


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "list.txt"
    firsts = (0, 7, 24, 100_000)
    text = list_shots((first, first / RATE) for first in firsts)
    write_list(path, text)
    assert text.splitlines()[2] == "24      # 00:00:01.001"
    assert read_list(path, RATE, None) == ListedShots(firsts)
    times = tmp_path / "times.txt"
    times.write_text("".join(line.split("# ")[1] + "\n" for line in text.splitlines()))
    assert read_list(times, RATE, None) == ListedShots(firsts)


def test_a_list_that_may_have_been_edited_is_not_replaced(tmp_path: Path):
    path = tmp_path / "list.txt"
    check_place(path, overwrite=False)
    path.write_text("25")
    with pytest.raises(SettingsError, match="exists: give `overwrite`"):
        check_place(path, overwrite=False)
    check_place(path, overwrite=True)
    for place in (tmp_path, tmp_path / "no folder" / "list.txt"):
        with pytest.raises(SettingsError, match="cannot be a file"):
            check_place(place, overwrite=True)


def test_listed_shots_begin_where_it_says_and_at_the_first_frame():
    marked = list(ListedShots((2, 9)).mark("abcd", lambda _: pytest.fail("looked at pixels")))
    assert marked == [("a", True), ("b", False), ("c", True), ("d", False)]
