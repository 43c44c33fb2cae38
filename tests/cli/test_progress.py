"""What a log says of a long job: the bar is for terminals."""

from pathlib import Path

import pytest

from skipsr.cli import batch, progress
from skipsr.farm.pool import Working
from skipsr.farm.task import Task
from skipsr.pipeline.job import Progress
from skipsr.settings import JobSettings

HALF = Progress("write", 40, 100, ahead=10)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_a_minute(seconds: list[float], capsys: pytest.CaptureFixture[str]):
    with progress.show_progress() as watch:
        watch(Progress("read", 0, 100))
        seconds[0] = 59
        watch(HALF)
        seconds[0] = 100
        watch(HALF)
        watch(HALF)
        told = capsys.readouterr().err
    assert told.split("\n", 1)[0] == "skipsr: 40 of 100 frames, 0.50 frames/s, 0:01:40 left"
    assert told.count("skipsr:") == 1


def test_where_nobody_knows_how_many_frames_come_none_are_told(
    seconds: list[float], capsys: pytest.CaptureFixture[str]
):
    with progress.show_progress() as watch:
        watch(Progress("write", 1, 0))
        seconds[0] = 100
        watch(Progress("write", 51, 0))
        told = capsys.readouterr().err
        assert told.split("\n", 1)[0] == "skipsr: 51 frames, 0.50 frames/s"
    assert "51/?" in capsys.readouterr().err


def test_a_log_of_a_batch_says_each_minute_what_workers_are_at(
    seconds: list[float], capsys: pytest.CaptureFixture[str]
):
    task = Task(input=Path("film.mkv"), output=Path("out/film.mp4"), job=JobSettings())
    with batch._show() as watch:
        watch(Working(0, "cuda:0", task, HALF))
        seconds[0] = 61
        watch(Working(1, "cuda:1", task, HALF))
        watch(Working(0, "cuda:0", task, HALF))
        watch(Working(0, "cuda:0", task, HALF))
    assert capsys.readouterr().err == "cuda:0 film.mkv: 40 of 100 frames\n"
