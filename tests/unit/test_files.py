"""Files appear whole under their names, on other systems as well."""

import codecs
import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from full_disk import no_file_beyond

from skipsr import files
from skipsr.errors import SettingsError, describe
from skipsr.files import atomic_write, sole_hold


@pytest.mark.parametrize(("system", "tries"), [("win32", 4), ("linux", 1)])
def test_on_windows_a_rename_waits_for_who_has_the_file_open(
    tmp_path: Path, system: str, tries: int, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "part").write_text("new")
    (tmp_path / "file").write_text("old")
    waits: list[float] = []
    held = [tries - 1]
    replace = Path.replace

    def hold(part: Path, path: Path) -> Path:
        held[0] -= 1
        if held[0] >= 0:
            raise PermissionError
        return replace(part, path)

    monkeypatch.setattr(Path, "replace", hold)
    monkeypatch.setattr(files.time, "sleep", waits.append)
    monkeypatch.setattr(sys, "platform", system)
    files.move(tmp_path / "part", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert waits == [0.05, 0.3, 1.0][: tries - 1]
    held[0] = tries
    with pytest.raises(PermissionError):
        files.move(tmp_path / "file", tmp_path / "other")


def test_what_is_synced_on_macos_leaves_the_cache_of_the_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fcntl = pytest.importorskip("fcntl")
    asked: list[int] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _handle, what: asked.append(what))
    monkeypatch.setattr(os, "fsync", lambda _: asked.append(0))
    files.sync(tmp_path)
    assert asked == [51]

    def refuse(_handle: int, _what: int) -> None:
        raise OSError

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    files.sync(tmp_path)
    assert asked == [51, 0]


def test_a_folder_that_was_looked_at_is_empty(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").touch()
    files.check_free(tmp_path / "out", overwrite=False)
    (tmp_path / "out" / "1.png").touch()
    with pytest.raises(SettingsError, match=r"out is a folder with files in it: give a name in it"):
        files.check_free(tmp_path / "out", overwrite=False)
    files.check_free(tmp_path / "out", overwrite=True)


def test_places_where_nothing_can_be_written_are_refused(tmp_path: Path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SettingsError, match=r"pipe\.mp4 is a pipe or a device"):
        files.check_free(tmp_path / "pipe.mp4", overwrite=True)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SettingsError, match="nothing may be written to the folder"):
        files.check_free(tmp_path / "a.mp4", overwrite=True)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("ä\n".encode(), "ä\n"),
        (codecs.BOM_UTF8 + "ä\n".encode(), "ä\n"),
        (codecs.BOM_UTF16_LE + "ä\n".encode("utf-16-le"), "ä\n"),
        (codecs.BOM_UTF16_BE + "ä\n".encode("utf-16-be"), "ä\n"),
        (b"", ""),
    ],
)
def test_texts_are_read_as_they_were_written(data: bytes, text: str):
    assert data.decode(files.text_encoding(data)) == text


def test_where_there_are_no_locks_a_file_is_held_by_anybody(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with sole_hold(tmp_path / "lock"), sole_hold(tmp_path / "lock"):
        pass


def test_a_full_disk_names_the_file(tmp_path: Path):
    path = tmp_path / "a.json"
    with no_file_beyond(1000), pytest.raises(OSError, match="too large") as caught:  # noqa: SIM117
        with atomic_write(path) as part:
            part.write_text("x" * 5000)
    assert describe(caught.value) == f"{path}: File too large"
    path = tmp_path / "a.npy"
    with no_file_beyond(1000), pytest.raises(OSError, match=r"a\.npy") as caught:  # noqa: SIM117
        with atomic_write(path) as part, part.open("wb") as file:
            np.save(file, np.zeros(10**6))  # whose errors are but words
    assert str(describe(caught.value)).startswith(f"{path}: 1000000 requested and ")
    assert not list(tmp_path.iterdir())
