"""A batch on a Ray cluster of this machine, one of whose workers is killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from made_models import make_frames
from made_videos import make_video

from skipsr.farm.batch import run_batch
from skipsr.farm.pool import Said
from skipsr.farm.record import NAME
from skipsr.farm.task import ModelSettings
from skipsr.settings import BatchSettings, JobSettings

pytest.importorskip("ray")


@pytest.mark.slow
def test_a_worker_that_is_lost_costs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # paths are ours, wherever workers are
    source, out = Path("in"), Path("out")
    source.mkdir()
    make_video(source / "large.mp4", list(make_frames(60, 48, 64)))
    make_video(source / "small.mp4", list(make_frames(2, 24, 32)))
    (source / "broken.mp4").write_text("this is no video\n" * 50)
    said: list[str] = []

    def kill() -> None:
        while not (parts := list(out.glob(".large.*.part.mp4"))):
            time.sleep(0.01)
        os.kill(int(parts[0].name.split(".")[2]), signal.SIGKILL)

    def watch(event: object) -> None:
        if isinstance(event, Said):
            said.append(event.text)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    stop = signal.getsignal(signal.SIGTERM)
    settings = BatchSettings(ray="local", devices="cpu:2")
    report = run_batch(source, out, ModelSettings(), JobSettings(scale=2), settings, watch)
    assert signal.getsignal(signal.SIGTERM) is stop
    thread.join(timeout=0)
    assert not thread.is_alive()
    assert {Path(file.input).name: file.status for file in report.files} == {
        "large.mp4": "done",
        "small.mp4": "done",
        "broken.mp4": "failed",
    }
    assert any("large.mp4 is tried again" in line for line in said)
    assert {path.name for path in out.iterdir()} == {"large.mp4", "small.mp4", NAME}
