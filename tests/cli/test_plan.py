"""`skipsr plan` says what a job would take, without weights and without a GPU."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from made_models import write_parts
from made_videos import make_video, ramp
from PIL import Image

from skipsr.cli.main import run


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("plan") / "a.mp4", ramp(12, 54, 96))


def test_a_plan_is_printed_with_its_reasons(video: Path, capsys: pytest.CaptureFixture[str]):
    told = [
        "--model",
        "seedvr2:3b",
        "--height",
        "1080",
        "--max-memory",
        "12GiB",
        "--device",
        "cuda",
    ]
    assert run(["plan", str(video), *told]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert (found["width"], found["height"], found["frames"]) == (1920, 1080, 12)
    assert 5 <= found["window"] <= 101
    assert max(found["stages_gib"].values()) == found["peak_gib"] <= 12
    assert list(found["stages_gib"]) == ["encode", "denoise", "decode"]
    assert lines[1:-1] == found["reasons"]
    assert len(found["reasons"]) >= 3
    assert lines[-1].startswith("memory, planned:")


def test_weights_say_which_model_is_planned(
    published, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    told = ["--device", "cuda", "--max-memory", "9GiB", "--weights"]
    file = write_parts(published, tmp_path)
    for source in (file, tmp_path):
        assert run(["plan", str(video), *told, str(source)]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == "seedvr2:3b"
    assert run(["plan", str(video), *told, str(file), "--model", "seedvr2:3b-50"]) == 0
    capsys.readouterr()
    for source, why in (
        (file, f"{file} does not fit seedvr2:7b: it is seedvr2:3b transformer"),
        (tmp_path, f"{tmp_path}: no seedvr2:7b network there"),
        (tmp_path / "gone", "gone: no such file or folder"),
    ):
        assert run(["plan", str(video), *told, str(source), "--model", "seedvr2:7b"]) == 1
        assert why in capsys.readouterr().err


def test_the_recurrent_engine_is_planned_too(video: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["plan", str(video), "--height", "174"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert first == f"skipvsr:nano on {found['device']}: 12 frames of 310x174 in one window"
    assert found["model"] == "skipvsr:nano"
    assert found["window"] == 12  # there are no more
    assert 0 < found["peak_gib"] < 8


@pytest.mark.parametrize(
    ("told", "mend"),
    [
        (["--height", "1080", "--max-memory", "2GiB", "--device", "cuda"], "give at least"),
        (["--device", "tpu", "--max-memory", "2GiB"], "give cuda or cpu"),
    ],
)
def test_what_cannot_be_is_refused_with_a_mend(
    video: Path, told: list[str], mend: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["plan", str(video), "--model", "seedvr2:3b", *told]) == 1
    assert mend in capsys.readouterr().err


def test_too_little_memory_is_no_unknown_memory(
    video: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("skipsr.pipeline.outlook.free_memory", lambda: 10 * 2**30)
    monkeypatch.setattr("skipsr.pipeline.plan.free_memory", lambda: 10 * 2**30)
    assert run(["plan", str(video), "--model", "seedvr2:3b", "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert "6.0 GiB of cpu's free memory are planned with, and this needs at least" in told
    assert "give --max-memory" in told


def test_listed_shots_are_counted(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "shots.txt").write_text("0\n4\n9\n")
    assert run(["plan", str(video), "--shots", str(tmp_path / "shots.txt")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["windows"] == 3
    assert run(["plan", str(video), "--shots", "nowhere.txt"]) == 1


def test_pictures_and_any_name_in_any_folder_are_planned(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Nothing is written, so that nothing has to be free or may be written to."""
    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(ramp(3, 54, 96)):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{i}.png")
    (tmp_path / "result.mp4").write_bytes(video.read_bytes())
    (tmp_path / "result.png").write_bytes((tmp_path / "frames" / "0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    for name, count in (("frames", 3), ("result.png", 1), ("result.mp4", 12)):
        assert run(["plan", name]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (found["frames"], found["window"], found["windows"]) == (count, count, 1)


def test_a_large_photo_is_no_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    with warnings.catch_warnings(record=True) as told:
        assert run(["plan", str(tmp_path / "a.png")]) == 0
    assert told == []
