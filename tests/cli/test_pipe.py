"""`skipsr pipe`, between other programs."""

import io
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from command import PLAIN

from skipsr.cli.main import run
from skipsr.video import PipeReader, PipeWriter, frames_info


def test_a_program_between_two_others(tmp_path: Path):
    made = io.BytesIO()
    writer = PipeWriter(made, frames_info((24, 32)), (24, 32))
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


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_waits_for_frames_ends_it(number: signal.Signals):
    with subprocess.Popen(
        [*PLAIN, "pipe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # not inherited from a background job, which ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin
        assert process.stderr
        # more than a pipe holds, so that it is read, and less than a frame
        process.stdin.write(b"YUV4MPEG2 W640 H480 F25:1 Ip C420jpeg\nFRAME\n" + bytes(300_000))
        process.stdin.flush()
        try:
            for _ in range(10):  # just before it waits it may miss one
                time.sleep(1)
                process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2)
                    break
            assert process.poll() == 130
        finally:
            process.kill()
        told = process.stderr.read()
    assert b"interrupted" in told
    assert b"Traceback" not in told


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
