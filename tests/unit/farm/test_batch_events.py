"""What becomes of a batch when its workers are lost, or results are not where they should be."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skipsr.errors import Interrupted
from skipsr.farm import batch
from skipsr.farm.batch import run_batch
from skipsr.farm.pool import Event, Lost, Pool
from skipsr.farm.report import BatchReport
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
