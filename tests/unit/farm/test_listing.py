"""Which files a batch is of, and where their results go."""

import json
import sys
from pathlib import Path

import pytest

from skipsr.errors import MediaError, SettingsError, SkipsrError
from skipsr.farm.listing import Listing, list_items


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def pairs(listing: Listing, folder: Path, out: Path) -> dict[str, str]:
    return {
        item.input.relative_to(folder).as_posix(): item.output.relative_to(out).as_posix()
        for item in listing.items
    }


def test_a_folder_keeps_its_structure_and_kinds_get_their_suffixes(tmp_path: Path):
    source = make(tmp_path / "in", "b10.mkv", "b2.MOV", "day/a.jpg", "day/notes.txt", ".hidden.mp4")
    listing = list_items(source, tmp_path / "out", ".mkv")
    assert pairs(listing, source, tmp_path / "out") == {
        "b2.MOV": "b2.mkv", "b10.mkv": "b10.mkv", "day/a.jpg": "day/a.png",
    }  # fmt: skip
    assert [item.input.name for item in listing.items] == ["b2.MOV", "b10.mkv", "a.jpg"]
    assert listing.left_out == 1


def test_results_inside_the_folder_are_no_inputs_of_a_second_run(tmp_path: Path):
    source = make(tmp_path, "a.mp4", "out/a.mp4", "out/deep/b.mp4")
    assert pairs(list_items(source, source / "out", ".mp4"), source, source / "out") == {
        "a.mp4": "a.mp4"
    }


def test_results_of_another_batch_are_no_inputs(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = make(tmp_path, "a.mp4", "day/b.mp4", "first/a.mp4", "first/.skipsr-batch.jsonl")
    listing = list_items(source, source / "second", ".mp4")
    assert [item.input.name for item in listing.items] == ["a.mp4", "b.mp4"]
    assert caplog.messages == [f"{source / 'first'} holds results of another batch: it is left out"]


def test_a_folder_of_results_is_no_file(tmp_path: Path):
    source = make(tmp_path, "a.mp4")
    with pytest.raises(SettingsError, match=r"b\.mp4 is to be a folder for results: give another"):
        list_items(source / "a.mp4", tmp_path / "b.mp4", ".mp4")
    (tmp_path / "b.mp4").mkdir()
    assert len(list_items(source / "a.mp4", tmp_path / "b.mp4", ".mp4").items) == 1


def test_a_list_may_have_remarks_and_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(make(tmp_path / "home", "a.mp4")))
    files = make(tmp_path, "list.txt", "b.mp4")
    (files / "list.txt").write_text("# of today\n~/a.mp4\nb.mp4\n~nobody-here.mp4\n")
    found = [item.input for item in list_items(files / "list.txt", tmp_path / "out", ".mp4").items]
    assert found == [tmp_path / "home" / "a.mp4", files / "b.mp4", files / "~nobody-here.mp4"]


def test_segments_of_an_unfinished_job_are_no_inputs(tmp_path: Path):
    kept = ("b.mp4.job/manifest.json", "b.mp4.job/lock", "b.mp4.job/segments/00000000.nut")
    source = make(tmp_path / "in", "a.mp4", "of.job/c.mp4", *kept)
    listing = list_items(source, tmp_path / "out", ".mp4")
    assert [item.input.name for item in listing.items] == ["a.mp4", "c.mp4"]


def test_a_list_of_paths_is_relative_to_itself(tmp_path: Path):
    make(tmp_path, "in/deep/a.mkv", "in/b.png", "else/c.avi", "in/frames/1.png")
    text = tmp_path / "in" / "list.txt"
    text.write_text(
        f"\ufeffdeep/a.mkv\n\n  b.png  \r\n../else/c.avi\nframes\n{tmp_path}/else/d.x\n"
    )
    found = list_items(text, tmp_path / "out", ".mp4").items
    names = [item.output.relative_to(tmp_path / "out").as_posix() for item in found]
    assert names == ["deep/a.mp4", "b.png", "c.mp4", "frames", "d.mp4"]
    assert found[2].input.samefile(tmp_path / "else" / "c.avi")


def test_a_list_that_powershell_wrote_is_read(tmp_path: Path):
    make(tmp_path, "ä.mkv", "b.png")
    (tmp_path / "list.txt").write_text("ä.mkv\r\nb.png\r\n", encoding="utf-16", newline="")
    found = list_items(tmp_path / "list.txt", tmp_path / "out", ".mp4").items
    assert [item.input.name for item in found] == ["ä.mkv", "b.png"]


def test_names_that_differ_in_case_meet_on_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = make(tmp_path / "in", "a.mov", "A.mkv")
    assert len(list_items(source, tmp_path / "out", ".mp4").items) == 2
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SettingsError, match="would meet in"):
        list_items(source, tmp_path / "out", ".mp4")


def test_a_list_of_json_lines_may_name_results(tmp_path: Path):
    make(tmp_path, "a.mp4", "b.mp4")
    lines = [{"input": "a.mp4", "output": "x/first.mkv"}, {"input": "b.mp4"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = list_items(tmp_path / "list.jsonl", tmp_path / "out", ".mp4").items
    assert [item.output.relative_to(tmp_path).as_posix() for item in found] == [
        "out/x/first.mkv",
        "out/b.mp4",
    ]


@pytest.mark.parametrize(
    ("names", "one", "other"),
    [
        (("a.mp4", "a.mkv"), "a.mkv", "a.mp4"),
        (("deep/p.png", "deep/p.jpg"), "deep/p.jpg", "deep/p.png"),
    ],
)
def test_two_that_would_meet_are_refused(
    tmp_path: Path, names: tuple[str, ...], one: str, other: str
):
    source = make(tmp_path / "in", *names)
    with pytest.raises(SettingsError) as caught:
        list_items(source, tmp_path / "out", ".mp4")
    assert f"{source / one} and {source / other} would meet in" in str(caught.value)


def test_a_picture_inside_the_result_of_a_sequence_is_refused(tmp_path: Path):
    make(tmp_path, "frames/1.png")
    (tmp_path / "list").write_text("frames\nframes/1.png\n")
    with pytest.raises(SettingsError, match="would meet in"):
        list_items(tmp_path / "list", tmp_path / "out", ".mp4")


def test_a_result_over_an_input_is_refused(tmp_path: Path):
    source = make(tmp_path, "in/a.mp4", "in/in/a.mp4")
    with pytest.raises(SettingsError, match="but is the input"):
        list_items(source / "in", source, ".mp4")
    with pytest.raises(SettingsError, match="is the folder of the inputs"):
        list_items(source / "in", source / "out" / ".." / "in", ".mp4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists nothing"),
        (b"\xff\xfe\x00", "is no list: give a folder"),
        (b"\x00" * 30, "is no list: give a folder"),
        (b"a.mp4\na.mp4", "a.mp4 is listed twice"),
        (b'{"input": "a.mp4"', "line 1 of {} is no JSON"),
        (b'\n{"inptu": "a.mp4"}', "line 2 of {} names no file"),
        (b'{"input": "a.mp4", "out": "b"}', 'line 1 of {} says "out"'),
        (b'{"input": 3}', '"input" is no path'),
        (b'{"input": "a\\u0000.mp4"}', '"input" is no path'),
        (b'{"input": "a.mp4", "output": "b.xyz"}', "cannot write b.xyz"),
    ],
)
def test_a_bad_list_gives_a_sentence(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(SkipsrError) as caught:
        list_items(tmp_path / "list", tmp_path / "out", ".mp4")
    assert message.format(tmp_path / "list") in str(caught.value)


def test_nothing_to_do_is_said(tmp_path: Path):
    with pytest.raises(MediaError, match="holds no videos or images"):
        list_items(make(tmp_path, "readme.txt"), tmp_path / "out", ".mp4")
    with pytest.raises(MediaError, match="does not exist"):
        list_items(tmp_path / "nowhere", tmp_path / "out", ".mp4")
