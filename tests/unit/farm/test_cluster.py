"""Batches on Ray clusters of this machine, whose workers and nodes are killed."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_models import make_frames
from made_videos import make_video

from skipsr.farm.batch import run_batch
from skipsr.farm.pool import Said
from skipsr.farm.record import NAME
from skipsr.farm.report import BatchReport
from skipsr.farm.task import ModelSettings
from skipsr.settings import BatchSettings, JobSettings

pytest.importorskip("ray")
COUNT = 12  # files, one of them broken
NAMES = {"large.mp4", *(f"{i}.mp4" for i in range(COUNT - 2))}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # paths are ours, wherever workers are
    source = Path("in")
    source.mkdir()
    make_video(source / "large.mp4", list(make_frames(60, 48, 64)))
    for i in range(COUNT - 2):
        make_video(source / f"{i}.mp4", list(make_frames(2, 24, 32, seed=i)))
    (source / "broken.mp4").write_text("this is no video\n" * 50)
    return source


def writer_of_large(but: int | None = None) -> int:
    """The process that writes the largest result, another than the one before."""
    while True:
        for part in Path("out").glob(".large.*.part.mp4"):
            if (process := int(part.name.split(".")[2])) != but:
                return process
        time.sleep(0.01)


def run(source: Path, settings: BatchSettings, harm: Callable[[], None]) -> list[str]:
    """Run a batch while harm is done; returns what it said of it, once all is as it should be."""
    said: list[str] = []

    def watch(event: object) -> None:
        if isinstance(event, Said):
            said.append(event.text)

    thread = threading.Thread(target=harm, daemon=True)
    thread.start()
    stop = signal.getsignal(signal.SIGTERM)
    job = JobSettings(scale=2)
    report = run_batch(source, Path("out"), ModelSettings(), job, settings, watch)
    assert signal.getsignal(signal.SIGTERM) is stop
    thread.join(timeout=5)
    assert not thread.is_alive()
    check(report)
    return said


def check(report: BatchReport) -> None:
    """All but the broken file are there, whole, and it alone is named."""
    assert (report.count("done"), report.count("failed")) == (COUNT - 1, 1)
    (bad,) = (file for file in report.files if file.status == "failed")
    assert bad.error is not None
    assert "in/broken.mp4 is not a video that can be read" in bad.error
    assert {path.name for path in Path("out").iterdir()} == NAMES | {NAME}


@pytest.mark.slow
def test_a_worker_that_is_lost_twice_costs_no_file(source: Path):
    def kill() -> None:
        first = writer_of_large()
        os.kill(first, signal.SIGKILL)
        os.kill(writer_of_large(first), signal.SIGKILL)

    said = run(source, BatchSettings(ray="local", devices="cpu:2", retries=2), kill)
    assert sum("large.mp4 is tried again" in line for line in said) == 2


@pytest.mark.slow
def test_a_node_that_is_lost_costs_no_file(source: Path, monkeypatch: pytest.MonkeyPatch):
    """Its head has no processors, and of two others the one is killed that makes the largest."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    small = {"object_store_memory": 80 * 2**20}
    cluster: Any = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small}
    )
    try:
        nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]

        def harm() -> None:
            writer = writer_of_large()
            above = ancestors(writer)
            (lost,) = (node for node in nodes if raylet_of(node) in above)
            for process in (raylet_of(lost), writer):  # as a power cut takes all at once
                os.kill(process, signal.SIGKILL)
            cluster.remove_node(lost, allow_graceful=False)

        said = run(source, BatchSettings(ray=cluster.address), harm)
        assert any("large.mp4 is tried again" in line for line in said)
    finally:
        cluster.shutdown()


def raylet_of(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid


def ancestors(process: int) -> set[int]:
    """Of a process, on Linux."""
    found: set[int] = set()
    while process > 1:
        stat = Path(f"/proc/{process}/stat").read_text()
        process = int(stat.rpartition(")")[2].split()[1])
        found.add(process)
    return found
