"""`skipsr pipe`, between other programs."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import PLAIN

from skipsr.cli.main import run
from skipsr.video import PipeReader, PipeWriter, frames_info


def test_a_program_between_two_others(tmp_path: Path):
    made = io.BytesIO()
    with PipeWriter(made, frames_info((24, 32)), (24, 32)) as writer:
        for level in (30, 120, 210):
            writer.write(np.full((24, 32, 3), level, np.uint8))
    done = subprocess.run(
        [*PLAIN, "pipe", "--scale", "2"],
        input=made.getvalue(),
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )
    assert b"error" not in done.stderr
    with PipeReader(io.BytesIO(done.stdout)) as reader:
        frames = list(reader.frames())
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    for frame, level in zip(frames, (30, 120, 210), strict=True):
        assert np.abs(frame.astype(int) - level).max() <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--codec", "h265"], "--codec is for the program that reads or writes the pipe"),
        (["--preset", "slow"], "--preset is for the program"),
        (["--overwrite"], "--overwrite is for files: use upscale"),
    ],
)
def test_what_is_of_files_is_refused(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["pipe", *flags]) == 1
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""


def test_a_terminal_at_an_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert run(["pipe"]) == 1
    assert "pipe stands between two programs: ffmpeg -i in.mp4" in capsys.readouterr().err
