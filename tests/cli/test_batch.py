"""The verb `batch`: a folder, interrupted and gone on with, and what is refused at once."""

import hashlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Forks, Result
from made_models import make_frames
from made_videos import make_video
from PIL import Image

from skipsr.cli.main import run
from skipsr.farm.batch import run_batch
from skipsr.farm.record import NAME
from skipsr.farm.task import ModelSettings
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import upscale_video
from skipsr.settings import JobSettings

LARGE = "large.mp4"
RESULTS = {*(f"{i}.mp4" for i in range(7)), *(f"deep/{i}.png" for i in range(3)), LARGE}


def writer_of_large(out: Path) -> int:
    """The process that writes the largest file's result, as soon as there is one."""
    deadline = time.monotonic() + 60
    while not (parts := list(out.glob(".large.*.part*"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(parts[0].name.split(".")[2])


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


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
def story(skipsr: Forks, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("batch")
    source = folder / "in"
    (source / "deep").mkdir(parents=True)
    for i in range(7):
        make_video(source / f"{i}.mkv", list(make_frames(2, 24, 32, seed=i)))
    for i in range(3):
        Image.fromarray(make_frames(1, 24, 32, seed=i)[0]).save(source / "deep" / f"{i}.jpg")
    make_video(source / LARGE, list(make_frames(40, 48, 64)))
    (source / "broken.mp4").write_text("this is no video\n" * 50)
    out = source / "out"
    arguments = ["batch", source, out, "--scale", 2, "--devices"]
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(skipsr, *arguments, "cpu:1", cwd=folder)
        os.kill(parent_of(writer_of_large(out)), signal.SIGINT)
        interrupted, left = first.result(), names(out)
        second = thread.submit(skipsr, *arguments, "cpu:2", cwd=folder)
        os.kill(writer_of_large(out), signal.SIGKILL)
        return Story(source, out, interrupted, left, second.result())


def names(folder: Path) -> set[str]:
    """Of all files below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_an_interrupt_leaves_what_is_finished_and_says_how_to_go_on(story: Story):
    assert story.interrupted.code == 130
    assert story.interrupted.out == ""
    *_, last = story.interrupted.errors
    assert last.startswith("skipsr: error: interrupted; ")
    assert last.endswith(" of 12 files are done and stay: the same command does the rest")
    assert "Traceback" not in story.interrupted.err
    assert story.left == {NAME}  # the largest comes first, and there was one worker


@pytest.mark.slow
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
    assert file_of(report, LARGE)["frames"] == 40


def file_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (file for file in report["files"] if file["output"].endswith(name))
    return found


@pytest.mark.slow
def test_results_are_those_of_upscale(story: Story, tmp_path: Path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        upscaler = load_upscaler()
        for source, target in ((LARGE, LARGE), ("deep/1.jpg", "deep/1.png")):
            alone = tmp_path / Path(target).name
            upscale_video(story.source / source, alone, upscaler, JobSettings(scale=2))
            assert digest(alone) == digest(story.out / target)
    finally:
        torch.set_num_threads(threads)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_third_run_computes_nothing(story: Story):
    (story.source / "broken.mp4").unlink()
    before = times(story.out)
    report = run_batch(story.source, story.out, ModelSettings(), JobSettings(scale=2))
    assert (report.count("done"), report.count("skipped"), report.count("failed")) == (0, 11, 0)
    assert {file.figures["frames"] for file in report.files} == {1, 2, 40}
    assert times(story.out) == before


@pytest.mark.slow
def test_other_settings_are_no_reason_to_replace(story: Story):
    before = times(story.out)
    report = run_batch(story.source, story.out, ModelSettings(), JobSettings(scale=3, window=4))
    assert report.count("failed") == len(report.files)
    told = "was made with another `scale` and `window`: remove it, or give `overwrite`"
    assert all((file.error or "").endswith(told) for file in report.files)
    assert times(story.out) == before


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in names(folder)}


def test_bad_usage_gives_one_sentence(skipsr: Forks, tmp_path: Path):
    (tmp_path / "a.mkv").write_bytes(b"\x1aE\xdf\xa3\xff")
    result = skipsr("batch", ".", "out", "--devices", "cpu:x", cwd=tmp_path)
    assert (result.code, result.out) == (1, "")
    (error,) = result.errors
    assert error.startswith("skipsr: error: --devices cpu:x: give cpu:N")
    assert names(tmp_path) == {"a.mkv"}


def test_files_that_a_shell_lists_are_no_batch(capsys: pytest.CaptureFixture[str]):
    assert run(["batch", "clips/a.mp4", "clips/b.mp4", "out", "--scale", "2"]) == 2
    told = capsys.readouterr().err
    assert "give the folder clips in place of its files" in told
    assert len(told.splitlines()) == 1


@pytest.mark.slow
def test_a_long_video_is_made_by_all_workers(skipsr: Forks, tmp_path: Path):
    """Interrupted, gone on with while a worker is killed, and the same as made by one."""
    source = make_video(tmp_path / "long.mp4", list(make_frames(180, 24, 32)))
    out = tmp_path / "out"
    settings = ["--scale", 2, "--window", 8, "--overlap", 2, "--segment", 0.4]
    arguments = ["batch", source, out, *settings, "--devices", "cpu:2"]
    sections = out / "long.mp4.job" / "sections"

    def wait_for(pattern: str) -> Path:
        deadline = time.monotonic() + 60
        while not (found := sorted(sections.glob(pattern))):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return found[-1]

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(skipsr, *arguments, cwd=tmp_path)
        worker = int(wait_for("*/segments/.*.part*").name.split(".")[-3])
        wait_for("*/segments/*.nut")
        os.kill(parent_of(worker), signal.SIGINT)
        assert first.result().code == 130
        assert sections.exists()
        second = thread.submit(skipsr, *arguments, cwd=tmp_path)
        os.kill(int(wait_for("*/segments/.*.part*").name.split(".")[-3]), signal.SIGKILL)
        result = second.result()
    assert result.code == 0
    assert "long.mp4 is tried again: its worker was killed by SIGKILL" in result.err
    (report,) = result.report["files"]
    assert (report["status"], report["frames"]) == ("done", 180)
    assert names(out) == {NAME, "long.mp4"}
    alone = tmp_path / "alone.mp4"
    assert skipsr("upscale", source, alone, *settings, cwd=tmp_path).code == 0
    assert digest(alone) == digest(out / "long.mp4")
