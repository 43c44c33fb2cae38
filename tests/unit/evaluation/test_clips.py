"""Which clips of a folder an evaluation is of, and what is said of the others."""

from pathlib import Path

import pytest
from made_models import make_frames
from PIL import Image

from skipsr.data.benchmarks import Item
from skipsr.errors import MediaError, SettingsError
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.samples import read_first
from skipsr.settings import EvalSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips, one of them cut off, and a file that is no video."""
    for name in ("city", "walk"):
        (tmp_path / "a" / name).mkdir(parents=True)
        for index, frame in enumerate(make_frames(2, 16, 16)):
            Image.fromarray(frame).save(tmp_path / "a" / name / f"{index}.png")
    last = tmp_path / "a" / "city" / "1.png"
    last.write_bytes(last.read_bytes()[:100])
    (tmp_path / "a" / "bad.mp4").write_bytes(b"no video")
    return tmp_path / "a"


def read(item: Item) -> str:
    assert item.truth is not None
    read_first(item.truth, 2)
    return item.name


def test_choosing_items(folder: Path):
    clips = find_clips(folder, EvalSettings(only="wal"))
    assert [item.name for item in clips.items] == ["walk"]
    with pytest.raises(SettingsError, match="`only`"):
        find_clips(folder, EvalSettings(only="cat"))
    with pytest.raises(MediaError, match="is no folder"):
        find_clips(folder.parent / "b", EvalSettings())


def test_what_cannot_be_read_is_left_out(folder: Path):
    told: list[str] = []
    clips = find_clips(folder, EvalSettings(), told.append)
    assert [item.name for item in clips.items] == ["city", "walk"]
    assert clips.each(read) == ["walk"]
    assert [item.name for item in clips.items] == ["walk"]
    assert list(clips.faults) == ["bad", "city"]
    assert told == clips.notes == [f"{n} is left out: {why}" for n, why in clips.faults.items()]
    assert "bad.mp4" in told[0]
    assert "1.png" in told[1]


def test_nothing_is_left(folder: Path):
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        find_clips(folder, EvalSettings(only="bad"))
    clips = find_clips(folder, EvalSettings(only="city"))
    with pytest.raises(MediaError, match=r"1\.png"):
        clips.each(read)


def test_there_must_be_a_truth_to_degrade(folder: Path):
    settings = EvalSettings(only="walk", degrade="real")
    assert len(find_clips(folder, settings).items) == 1
    lq = folder.rename(folder.parent / "lq")
    with pytest.raises(SettingsError, match="`degrade` makes LR clips from truths, and walk has"):
        find_clips(lq, settings)


def test_clips_without_the_truth_that_is_asked_for(folder: Path):
    """A truth that cannot be opened is one: what is wrong is the file."""
    lq = folder.rename(folder.parent / "lq")
    assert len(find_clips(lq, EvalSettings(only="walk")).items) == 1
    with pytest.raises(SettingsError, match="compares with the truth, and no clip"):
        find_clips(lq, EvalSettings(), truths=True)
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        find_clips(lq.rename(folder), EvalSettings(only="bad"), truths=True)
