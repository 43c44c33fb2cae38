"""The verb `batch`: a folder, interrupted and gone on with, and what is refused at once."""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command import PLAIN, Forks, Result
from made_models import make_frames
from made_videos import make_video
from PIL import Image

from skipsr.farm.record import NAME
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import upscale_video
from skipsr.settings import JobSettings

SETTINGS = ["--devices", "cpu:2", "--scale", "2"]


@pytest.fixture(scope="module")
def skipsr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("streams")) as command:
        yield command


class Running:
    """A batch with two single-threaded workers, as started at a terminal."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "in" / "out"
        arguments = ["batch", folder / "in", self.out, *SETTINGS]
        self._process = subprocess.Popen(
            [*PLAIN, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
            start_new_session=True,
        )

    def writer_of(self, name: str) -> int:
        """The process that writes a result, as soon as there is one."""
        deadline = time.monotonic() + 60
        while not (parts := list(self.out.glob(f".{name}.*.part*"))):
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return int(parts[0].name.split(".")[2])

    def press_ctrl_c(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def end(self) -> Result:
        try:
            out, err = self._process.communicate(timeout=120)
        finally:
            self._process.kill()
        return Result(self._process.returncode, out, err)


@dataclass(frozen=True)
class Story:
    """A batch that was interrupted over its largest file, then run again while one of its workers
    was killed over that."""

    source: Path
    out: Path
    interrupted: Result
    left: set[str]  # by the first run
    finished: Result


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("batch")
    source = folder / "in"
    (source / "deep").mkdir(parents=True)
    for i in range(7):
        make_video(source / f"{i}.mkv", list(make_frames(2, 24, 32, seed=i)))
    for i in range(3):
        Image.fromarray(make_frames(1, 24, 32, seed=i)[0]).save(source / "deep" / f"{i}.jpg")
    make_video(source / "large.mp4", list(make_frames(60, 48, 64)))
    (source / "broken.mp4").write_text("this is no video\n" * 50)
    first = Running(folder)
    first.writer_of("large")
    first.press_ctrl_c()
    interrupted = first.end()
    left = names(first.out)
    second = Running(folder)
    os.kill(second.writer_of("large"), signal.SIGKILL)
    return Story(source, first.out, interrupted, left, second.end())


def names(folder: Path) -> set[str]:
    """Of all files below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


RESULTS = {*(f"{i}.mp4" for i in range(7)), *(f"deep/{i}.png" for i in range(3)), "large.mp4"}


def test_an_interrupt_leaves_what_is_finished_and_says_how_to_go_on(story: Story):
    assert story.interrupted.code == 130
    assert story.interrupted.out == ""
    *_, last = story.interrupted.errors
    assert last.startswith("skipsr: error: interrupted; ")
    assert last.endswith(" of 12 files are done and stay: the same command does the rest")
    assert "Traceback" not in story.interrupted.err
    assert story.left <= RESULTS - {"large.mp4"} | {NAME}


def test_one_broken_file_and_a_killed_worker_do_not_keep_the_others(story: Story):
    result = story.finished
    assert result.code == 1
    assert "Traceback" not in result.err
    assert names(story.out) == RESULTS | {NAME}
    report = result.report
    assert (report["failed"], report["done"] + report["skipped"]) == (1, 11)
    (bad,) = (file for file in report["files"] if file["status"] == "failed")
    assert bad["error"].startswith(f"{story.source}/broken.mp4 is not a video that can be read")
    assert sum(bad["error"] in line for line in result.errors) == 1
    assert result.errors[-1] == "skipsr: error: 1 of 12 files failed"
    (again,) = (line for line in result.errors if "tried again" in line)
    assert "large.mp4 is tried again: its worker was killed by SIGKILL" in again
    assert file_of(report, "large.mp4")["frames"] == 60


def file_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (file for file in report["files"] if file["output"].endswith(name))
    return found


def test_results_are_those_of_upscale(story: Story, tmp_path: Path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        upscaler = load_upscaler()
        for source, target in (("large.mp4", "large.mp4"), ("deep/1.jpg", "deep/1.png")):
            alone = tmp_path / Path(target).name
            upscale_video(story.source / source, alone, upscaler, JobSettings(scale=2))
            assert digest(alone) == digest(story.out / target)
    finally:
        torch.set_num_threads(threads)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_third_run_computes_nothing_and_other_settings_are_no_reason_to_replace(
    story: Story, skipsr: Forks
):
    text = story.source / "list.jsonl"
    files = [f"{i}.mkv" for i in range(7)]
    text.write_text("\n".join(json.dumps({"input": name}) for name in files))
    before = {name: (story.out / name).stat().st_mtime_ns for name in RESULTS}
    again = skipsr("batch", text, story.out, *SETTINGS, cwd=story.source)
    assert again.code == 0, again.err
    assert (again.report["done"], again.report["skipped"]) == (0, 7)
    assert file_of(again.report, "3.mp4")["frames"] == 2
    other = skipsr("batch", text, story.out, "--scale", 3, "--window", 4, cwd=story.source)
    assert (other.code, other.report["failed"]) == (1, 7)
    assert "was made with another --scale and --window: remove it" in other.err
    assert before == {name: (story.out / name).stat().st_mtime_ns for name in RESULTS}


BAD = {
    "a folder of nothing": (["empty", "out"], "empty holds no videos or images"),
    "no such list": (["nowhere.txt", "out"], "nowhere.txt does not exist"),
    "a video as list": (["a.mkv", "out"], "a.mkv is no list"),
    "results that would meet": (["twins", "out"], "would meet in"),
    "results over inputs": (["twins", "twins"], "give another one for the results"),
    "an unknown device": (["one", "out", "--devices", "warp"], "--devices warp is not on this"),
    "no number of workers": (["one", "out", "--devices", "cpu:x"], "give cpu:N"),
    "device and devices": (
        ["one", "out", "--device", "cpu", "--devices", "cpu:2"],
        "give --device or --devices",
    ),
    "a suffix of nothing": (["one", "out", "--suffix", "xyz"], "cannot write name.xyz"),
    "a suffix of images": (["one", "out", "--suffix", ".png"], "--suffix .png is no container"),
    "a codec that does not fit": (["one", "out", "--suffix", ".webm"], "cannot hold --codec"),
    "negative retries": (["one", "out", "--retries", "-1"], "--retries -1"),
    "no rights": (["one", "/proc/out"], "cannot write to /proc/out"),
    "a file as OUT": (["one", "a.mkv"], "cannot write to a.mkv"),
    "weights needed": (["one", "out", "--model", "seedvr2:7b"], "is not bundled"),
    "a card of a cluster": (["one", "out", "--ray", "local", "--devices", "cuda:0"], "give all or"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_work_is_refused_at_once(skipsr: Forks, tmp_path: Path, what: str):
    arguments, message = BAD[what]
    for name in ("one/a.mkv", "twins/a.mkv", "twins/a.avi", "a.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x1aE\xdf\xa3\xff")
    (tmp_path / "empty").mkdir()
    before = names(tmp_path)
    if what == "a card of a cluster":
        pytest.importorskip("ray")
    result = skipsr("batch", *arguments, cwd=tmp_path)
    assert result.code == 1
    (error,) = result.errors
    assert error.startswith("skipsr: error: ")
    assert message in error
    assert result.out == ""
    assert names(tmp_path) == before
