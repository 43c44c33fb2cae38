"""What is skipped in a second run, and what is not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skipsr.errors import MediaError
from skipsr.farm.listing import Item
from skipsr.farm.record import NAME, Record, Source

SETTINGS = {"model": "skipvsr:nano", "scale": 2.0}


@pytest.fixture
def made(tmp_path: Path) -> Item:
    """A result that is recorded."""
    item = Item(tmp_path / "a.mp4", tmp_path / "out" / "deep" / "a.mp4")
    item.input.write_bytes(b"source")
    record = Record(tmp_path / "out")
    item.output.parent.mkdir()
    item.output.write_bytes(b"result")
    record.begin(item, SETTINGS)
    record.finish(item, {"frames": 3})
    return item


def objection(item: Item, settings: dict[str, object] = SETTINGS) -> str | None:
    """Of a run later on."""
    return Record(item.output.parents[1]).objection(item, settings)


def test_the_same_is_known_again_also_as_a_copy(made: Item):
    assert objection(made) is None
    os.utime(made.input, (1, 1))
    assert objection(made) is None
    found = Record(made.output.parents[1]).find(made)
    assert found is not None
    assert found["figures"] == {"frames": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: item.input.write_bytes(b"longer source"), "made of another a.mp4"),
        (lambda item: item.input.write_bytes(b"SOURCE"), "made of another a.mp4"),
        (lambda item: item.output.write_bytes(b"cut"), "changed since"),
        (lambda item: item.input.unlink(), "cannot be told"),
        (lambda item: (item.output.parents[1] / NAME).unlink(), "nothing says"),
    ],
)
def test_what_was_changed_is_not_skipped(
    made: Item, change: Callable[[Item], object], message: str
):
    before = made.input.stat().st_mtime_ns
    change(made)
    if made.input.exists() and message.startswith("made"):
        os.utime(made.input, ns=(before + 10**9, before + 10**9))
    assert message in str(objection(made))


def test_other_settings_are_named(made: Item):
    other = {"model": "skipvsr:nano", "height": 1080}
    assert objection(made, other) == "it was made with another `height` and `scale`"


def test_a_line_that_was_cut_off_loses_that_result_alone(made: Item):
    path = made.output.parents[1] / NAME
    path.write_text(path.read_text() + '{"output": "b.mp4", "si')
    record = Record(made.output.parents[1])
    assert record.objection(made, SETTINGS) is None
    record.begin(made, {})
    record.finish(made, {})
    assert objection(made, {}) is None


def test_what_was_finished_when_nobody_could_note_it_counts(made: Item):
    Record(made.output.parents[1]).begin(made, {"scale": 3.0})
    assert objection(made, {"scale": 3.0}) == "what is to replace it was not finished"
    made.output.write_bytes(b"another result")
    assert objection(made, {"scale": 3.0}) is None


def test_a_folder_of_images_is_a_source(tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    source = Source.of(tmp_path)
    assert source.is_still(tmp_path)
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    os.utime(tmp_path / "c.png", (1, 1))
    os.utime(tmp_path / "a.png", (1, 1))
    assert not source.is_still(tmp_path)


def test_what_cannot_be_read_in_a_moment_is_no_source(tmp_path: Path):
    """Nobody may ever write to a pipe that is opened."""
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match=r"pipe.mp4 is no file, but a folder, a pipe or a device"):
        Source.of(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match=r"gone.mp4 does not exist"):
        Source.of(tmp_path / "gone.mp4")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(MediaError, match=r"cannot write to .*: Not a directory"):
        Record(tmp_path / "file" / "out")


def test_a_restart_that_was_recorded_once_is_no_objection(made: Item):
    record = Record(made.output.parents[1])
    record.begin(made, SETTINGS | {"restart": True})
    record.finish(made, {})
    assert objection(made) is None
