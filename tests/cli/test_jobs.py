"""Jobs that were stopped: what is said, how they go on, how they are listed and removed."""

import signal
import subprocess
import time
from pathlib import Path

import av
import pytest
from command import PLAIN, Forks, Result
from made_models import make_frames
from made_videos import make_video
from PIL import Image

from skipsr.files import sole_hold


def upscale(source: Path, target: Path, weights: Path, *more: object) -> list[object]:
    return [
        "upscale", source, target, "--model", "seedvr2:tiny", "--weights", weights, "--dense",
        "--scale", 2, "--window", 3, "--overlap", 0, "--segment", 0.25, *more,
    ]  # fmt: skip


@pytest.fixture
def stopped(skipsr: Forks, tiny_file: Path, tmp_path: Path) -> Path:
    """A job of which 6 frames of 11 are finished: the last image's pixels are damaged."""
    (tmp_path / "in").mkdir()
    for i, frame in enumerate(make_frames(11, 24, 32)):
        Image.fromarray(frame).save(tmp_path / "in" / f"{i}.png")
    last = tmp_path / "in" / "10.png"
    last.write_bytes(last.read_bytes()[:-400])
    result = skipsr(*upscale(tmp_path / "in", tmp_path / "out.mp4", tiny_file), cwd=tmp_path)
    assert result.code == 1
    (error,) = result.errors
    assert "10.png cannot be read as an image" in error
    kept = f"6 finished frames are kept in {tmp_path / 'out.mp4.job'}"
    assert error.endswith(f"; {kept}: start the same job again to go on")
    return tmp_path


def test_they_are_listed_and_removed(skipsr: Forks, stopped: Path):
    listed = skipsr("jobs", "list", cwd=stopped)
    assert listed.code == 0
    assert listed.out.startswith("out.mp4:  55% done, ")
    assert listed.out.endswith(" KiB\n")
    last = stopped / "in" / "10.png"
    Image.fromarray(make_frames(1, 24, 32)[0]).save(last)
    listed = skipsr("jobs", "list", stopped, cwd=stopped.parent)
    assert listed.out.startswith(f"{stopped / 'out.mp4'}:  55% done, ")
    assert listed.out.endswith(", cannot go on: the source was changed\n")
    last.unlink()
    assert f"cannot go on: {last} is not there\n" in skipsr("jobs", "list", cwd=stopped).out
    assert skipsr("jobs", "clean", "--older-than", 1, cwd=stopped).out == ""
    assert skipsr("jobs", "clean", cwd=stopped).out == "removed: out.mp4.job\n"
    assert [path.name for path in stopped.iterdir()] == ["in"]
    assert skipsr("jobs", "list", cwd=stopped).out == ""


def test_an_age_that_is_none_is_refused(skipsr: Forks, tmp_path: Path):
    for age in ("-1", "nan"):
        result = skipsr("jobs", "clean", "--older-than", age, cwd=tmp_path)
        assert (result.code, result.out) == (1, "")
        assert result.errors == [f"skipsr: error: --older-than {age} is not 0 days or more"]


def test_a_folder_that_is_none_is_refused(skipsr: Forks, tmp_path: Path):
    for verb in ("list", "clean"):
        result = skipsr("jobs", verb, "nowhere", cwd=tmp_path)
        assert (result.code, result.out) == (1, "")
        assert result.errors == [
            "skipsr: error: nowhere is no folder: give the one that outputs are written to"
        ]


def test_other_settings_are_named_as_flags(skipsr: Forks, stopped: Path, tiny_file: Path):
    job = upscale(stopped / "in", stopped / "out.mp4", tiny_file, "--crf", 30, "--steps", 2)
    (error,) = skipsr(*job, cwd=stopped).errors
    assert error == (
        f"skipsr: error: {stopped / 'out.mp4.job'} holds the beginning of another job: "
        "--crf is 30 and was not given, --steps is 2 and was not given; give --restart to begin "
        "anew, or the same as before to go on"
    )


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on(skipsr: Forks, tiny_file: Path, tmp_path: Path):
    source = make_video(tmp_path / "long.mp4", list(make_frames(60, 24, 32)), audio_seconds=2)
    job = upscale(source, tmp_path / "out.mp4", tiny_file, "--steps", 20)
    process = subprocess.Popen(
        [*PLAIN, *map(str, job)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("out.mp4.job/segments/0*.nut")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)  # until the segment is noted
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    result = Result(process.returncode, out, err)
    assert (result.code, result.out) == (130, "")
    (error,) = result.errors
    assert error.startswith("skipsr: error: interrupted; ")
    assert "finished frames are kept in" in error
    with sole_hold(tmp_path / "out.mp4.job" / "lock"):
        assert "another process is making" in skipsr(*job, cwd=tmp_path).err
        assert ", running\n" in skipsr("jobs", "list", cwd=tmp_path).out
        assert skipsr("jobs", "clean", cwd=tmp_path).out == "running, kept: out.mp4.job\n"
    result = skipsr(*job, cwd=tmp_path)
    assert (result.code, result.errors) == (0, [])
    assert result.report["frames"] == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4", "out.mp4"]
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 60
        assert len(video.streams.audio) == 1
