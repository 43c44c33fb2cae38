"""A worker that is stopped over a long file, and another that goes on with it."""

import signal
from pathlib import Path

import pytest
from made_models import make_frames
from made_videos import make_video

from skipsr.errors import Cancelled
from skipsr.farm.processes import suspend
from skipsr.farm.task import Done, ModelSettings, Task, Worker, WorkerSpec
from skipsr.pipeline.job import Progress
from skipsr.settings import JobSettings, RuntimeSettings

MODEL = ModelSettings(runtime=RuntimeSettings(device="cpu"))
COUNT = 12
JOB = JobSettings(scale=2, window=4, overlap=0, segment=0.1)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    source = make_video(tmp_path / "in.mp4", list(make_frames(COUNT, 24, 32)))
    return Task(input=source, output=tmp_path / "out.mp4", job=JOB)


def worker(memory: int | None = None) -> Worker:
    return Worker(WorkerSpec(model=MODEL, threads=1, memory=memory))


def stop_at(frame: int, task: Task, by: Worker) -> None:
    """As TERM does, which the parent sends when a batch ends early."""

    def watch(progress: Progress) -> None:
        if progress.frames >= frame:
            suspend(signal.SIGTERM, None)

    with pytest.raises(Cancelled):
        by.run(task, watch)


def test_what_is_finished_of_a_long_file_is_kept_and_gone_on_with(task: Task):
    stop_at(8, task, worker())
    segments = task.output.with_name("out.mp4.job") / "segments"
    assert sorted(path.name for path in segments.iterdir()) == ["00000000.nut", "00000004.nut"]
    done = worker().run(task)
    assert isinstance(done, Done)
    assert done.report.frames == COUNT
    assert not segments.exists()


def test_nothing_is_left_of_a_short_file(task: Task):
    job = JobSettings(scale=2, window=4, overlap=0)
    stop_at(8, Task(input=task.input, output=task.output, job=job), worker())
    assert [path.name for path in task.output.parent.iterdir()] == ["in.mp4"]


def test_another_share_of_memory_is_no_other_job(task: Task):
    """What is free, of which workers have a share each, is never the same twice."""
    source = make_video(task.input, list(make_frames(80, 24, 32)))  # two windows
    task = Task(input=source, output=task.output, job=JobSettings(scale=2, segment=0.1))
    stop_at(4, task, worker(2 * 2**30))
    assert task.output.with_name("out.mp4.job").exists()
    assert isinstance(worker(3 * 2**30).run(task), Done)


def test_a_share_that_is_too_small_for_any_window_is_no_reason_to_refuse_a_file(task: Task):
    task = Task(input=task.input, output=task.output, job=JobSettings(scale=2))
    assert isinstance(worker(2**20).run(task), Done)
