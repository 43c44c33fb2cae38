"""What becomes of a batch when its workers are lost, or results are not where they should be."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skipsr.cli.main import parse
from skipsr.errors import Interrupted, SettingsError
from skipsr.farm import batch
from skipsr.farm.batch import run_batch
from skipsr.farm.pool import Event, Lost, Pool
from skipsr.farm.report import BatchError, BatchReport
from skipsr.farm.task import Done, ModelSettings, Task
from skipsr.pipeline.job import Report
from skipsr.pipeline.manifest import NAME, job_folder
from skipsr.settings import BatchSettings, JobSettings

Work = Callable[[Task], Event]


class Pretended(Pool):
    """One worker, whose work is what the test says."""

    work: Work

    def __init__(self, *_: object) -> None:
        self.event: Event | None = None

    @property
    def alike(self) -> int:
        return 1

    @property
    def free(self) -> int:
        return int(self.event is None)

    def start(self, task: Task) -> None:
        self.event = type(self).work(task)

    def wait(self) -> Event | None:
        event, self.event = self.event, None
        return event

    def _open(self) -> None:
        """It is there."""

    def _stop(self) -> None:
        """It ends with the test."""


def write(task: Task) -> Event:
    task.output.write_bytes(b"result")
    return Done(task, Report("skipvsr:nano", frames=1, seconds={"total": 1.0}))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., BatchReport]:
    """Runs a batch of `a.mp4` and `b.mp4`, largest first, with the given work."""
    source = tmp_path / "in"
    source.mkdir()
    for name, size in (("a", 20), ("b", 10)):
        (source / f"{name}.mp4").write_bytes(bytes(size))
    monkeypatch.setattr(batch, "Processes", Pretended)

    def run(work: Work = write, **job: Any) -> BatchReport:
        monkeypatch.setattr(Pretended, "work", staticmethod(work), raising=False)
        devices = BatchSettings(devices="cpu:1")
        return run_batch(source, tmp_path / "out", ModelSettings(), JobSettings(**job), devices)

    return run


def test_a_restart_is_no_setting_of_results(run: Callable[..., BatchReport]):
    assert run(scale=2.0).count("done") == 2
    assert run(scale=2.0, restart=True).count("skipped") == 2
    assert run(scale=2.0, restart=True, overwrite=True).count("done") == 2
    assert run(scale=2.0).count("skipped") == 2


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"restart": True}, "the same command without `restart` does the rest"),
        (
            {"restart": True, "overwrite": True},
            "without `overwrite` and `restart` does those that have no result yet",
        ),
        ({"overwrite": True}, "without `overwrite` does those that have no result yet"),
    ],
)
def test_an_interrupted_restart_goes_on_without_it(
    run: Callable[..., BatchReport], job: dict[str, bool], told: str
):
    def interrupt(_: Task) -> Event:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=told):
        run(interrupt, **job)


@pytest.mark.parametrize("began", [False, True])
def test_a_restarted_file_whose_worker_is_lost_keeps_what_that_finished(
    run: Callable[..., BatchReport], tmp_path: Path, began: bool
):
    """But not what was there before, of which it has thrown away nothing yet."""
    manifest = job_folder(tmp_path / "out" / "a.mp4") / NAME
    manifest.parent.mkdir(parents=True)
    manifest.write_text("of another job")
    tried: list[JobSettings] = []

    def lose(task: Task) -> Event:
        if task.output.name == "b.mp4":
            return write(task)
        tried.append(task.job)
        if len(tried) == 2:
            return write(task)
        if began:
            manifest.write_text("of this one")
            os.utime(manifest, (1, 1))  # clocks are coarse
        return Lost(task, "killed")

    assert run(lose, restart=True).count("done") == 2
    assert [job.restart for job in tried] == [True, not began]


def test_a_result_that_is_moved_at_once_fails_alone(run: Callable[..., BatchReport]):
    def move(task: Task) -> Event:
        event = write(task)
        if task.output.name == "a.mp4":
            task.output.unlink()
        return event

    report = run(move)
    assert {Path(file.input).name: file.status for file in report.files} == {
        "a.mp4": "failed",
        "b.mp4": "done",
    }
    assert "a.mp4 was made, but cannot be recorded" in (report.files[0].error or "")


def test_a_batch_that_cannot_go_on_tells_what_it_did(run: Callable[..., BatchReport]):
    def last(task: Task) -> Event:
        if task.output.name == "b.mp4":
            raise SettingsError("no worker could be started: killed")
        return write(task)

    told = "started: killed; 1 of 2 files are done and stay: the same command does the rest"
    with pytest.raises(BatchError, match=told) as caught:
        run(last)
    assert [file.status for file in caught.value.report.files] == ["done"]


def test_the_command_prints_the_report_of_a_batch_that_cannot_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def give_up(*_: object) -> BatchReport:
        raise BatchError("no worker could be started", BatchReport("skipvsr:nano"))

    monkeypatch.setattr(batch, "run_batch", give_up)
    with pytest.raises(BatchError):
        parse(["batch", str(tmp_path), str(tmp_path / "out")]).run()
    assert json.loads(capsys.readouterr().out)["model"] == "skipvsr:nano"
