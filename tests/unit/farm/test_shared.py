"""Which files of a batch are shared by its workers, and what then becomes of them."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_models import make_frames
from made_videos import make_video

from skipsr.farm import batch
from skipsr.farm.batch import run_batch
from skipsr.farm.pool import Event, Lost, Pool
from skipsr.farm.report import BatchReport
from skipsr.farm.task import Divide, Failed, ModelSettings, Section, Task, Worker, WorkerSpec
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import upscale_video
from skipsr.settings import BatchSettings, JobSettings, RuntimeSettings

JOB = JobSettings(scale=2, window=6, overlap=1, segment=0.4)


class Here(Pool):
    """Workers in this process, each done with a task as soon as it has it."""

    harm: type[Failed] | type[Lost] | None = None  # to every second section

    def __init__(self, specs: Sequence[WorkerSpec], retries: int) -> None:
        self._count = len(specs)
        self._worker = Worker(specs[0])
        self._events: deque[Event] = deque()
        self.tasks: list[Task] = []
        made.append(self)

    @property
    def alike(self) -> int:
        return self._count

    @property
    def free(self) -> int:
        return self._count - len(self._events)

    def start(self, task: Task) -> None:
        self.tasks.append(task)
        sections = sum(isinstance(one, Section) for one in self.tasks)
        if self.harm and isinstance(task, Section) and sections % 2:
            self._events.append(self.harm(task, "killed"))
        else:
            self._events.append(self._worker.run(task))

    def wait(self) -> Event:
        return self._events.popleft()

    def _open(self) -> None:
        """They are there."""

    def _stop(self) -> None:
        """They end with the test."""


made: list[Here] = []


def run(
    source: Path, out: Path, workers: int = 2, retries: int = 1
) -> tuple[BatchReport, list[Task]]:
    settings = BatchSettings(devices=f"cpu:{workers}", retries=retries)
    report = run_batch(source, out, ModelSettings(), JOB, settings)
    return report, made[-1].tasks


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "Processes", Here)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    source.mkdir()
    make_video(source / "long.mp4", list(make_frames(50, 32, 48)))
    make_video(source / "short.mp4", list(make_frames(3, 24, 32)))
    return source


def test_a_file_for_which_workers_would_wait_is_shared(folder: Path, tmp_path: Path):
    report, tasks = run(folder, tmp_path / "out")
    assert [(type(task), task.output.name) for task in tasks] == [
        (Divide, "long.mp4"),
        (Task, "short.mp4"),
        (Section, "long.mp4"),
        (Section, "long.mp4"),
        (Task, "long.mp4"),
    ]
    assert [file.status for file in report.files] == ["done", "done"]
    (long,) = (file for file in report.files if file.output.endswith("long.mp4"))
    assert long.figures["frames"] == 50
    alone = tmp_path / "alone.mp4"
    upscaler = load_upscaler(runtime=RuntimeSettings(device="cpu"))
    upscale_video(folder / "long.mp4", alone, upscaler, JOB)
    assert alone.read_bytes() == (tmp_path / "out" / "long.mp4").read_bytes()


def test_one_file_is_an_input_by_itself_and_has_all_workers(folder: Path, tmp_path: Path):
    report, tasks = run(folder / "long.mp4", tmp_path / "out", workers=3)
    assert sum(isinstance(task, Section) for task in tasks) == 3
    assert report.count("done") == 1


@pytest.mark.parametrize("harm", [Failed, Lost])
def test_a_section_that_is_not_made_is_made_with_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: type[Failed] | type[Lost]
):
    monkeypatch.setattr(Here, "harm", harm)
    report, tasks = run(folder / "long.mp4", tmp_path / "out", retries=0)
    assert [type(task) for task in tasks] == [Divide, Section, Section, Task]
    assert report.count("done") == 1
    assert report.files[0].figures["frames"] == 50


def test_files_of_one_size_are_not_shared(folder: Path, tmp_path: Path):
    for i in range(3):
        (folder / f"{i}.mp4").write_bytes((folder / "long.mp4").read_bytes())
    report, tasks = run(folder, tmp_path / "out")
    assert {type(task) for task in tasks} == {Task}
    assert report.count("done") == 5


def test_what_is_short_has_no_more_workers_than_files(folder: Path, tmp_path: Path):
    run(folder / "short.mp4", tmp_path / "out", workers=3)
    assert made[-1].alike == 1
