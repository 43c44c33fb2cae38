"""Reading ahead and writing behind: order, bounds, faults, and that nothing is left running."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skipsr.backbones.contract import Upscaled
from skipsr.clip import Clip
from skipsr.errors import Cancelled, MediaError
from skipsr.limits import Limits
from skipsr.pipeline.job import Progress, upscale_video
from skipsr.pipeline.overlap import Behind, ahead
from skipsr.settings import JobSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.route import Route
from skipsr.tracing import Trace, span
from skipsr.video import Target, open_source

PATIENCE = 2.0  # seconds, none of which a passing test waits


def wait_until(what: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def nothing() -> None:
    """There is nothing to stop."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_one_item_is_made_ahead_and_no_more():
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(6):
            made.append(i)
            yield i

    used: list[int] = []
    with ahead(items(), nothing) as coming:
        for item in coming:
            expected = min(item + 2, 6)
            wait_until(lambda: len(made) == expected)  # noqa: B023
            time.sleep(0.002)
            assert len(made) == expected
            used.append(item)
    assert used == list(range(6))


def test_a_fault_comes_where_the_item_would_have():
    def items() -> Iterator[int]:
        yield from (0, 1)
        raise MediaError("cut short")

    used: list[int] = []
    with pytest.raises(MediaError, match="cut short"), ahead(items(), nothing) as coming:
        used.extend(coming)
    assert used == [0, 1]


def test_who_leaves_early_stops_what_is_being_read():
    stopped = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        assert stopped.wait(PATIENCE)
        yield 1

    def interrupted() -> None:
        with ahead(items(), stopped.set) as coming:
            assert next(coming) == 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stopped.is_set()


def test_things_are_done_in_order_one_at_a_time():
    done: list[int] = []
    gate = threading.Event()

    def do(item: int) -> None:
        assert gate.wait(PATIENCE)
        done.append(item)

    with Behind(do) as behind:
        behind.put(0)  # returns while it is being done
        assert done == []
        gate.set()
        for item in range(1, 5):
            behind.put(item)
            assert done[:item] == list(range(item))
    assert done == list(range(5))


def test_a_fault_is_raised_at_the_next_call_and_once():
    def do(item: int) -> None:
        if item:
            raise MediaError("disk full")

    with Behind(do) as behind:
        behind.put(0)
        behind.settle()
        behind.check()
        behind.put(1)
        time.sleep(0.05)
        with pytest.raises(MediaError, match="disk full"):
            behind.check()
        behind.check()


def test_what_is_under_way_is_finished_after_a_fault_elsewhere():
    done: list[int] = []

    def do(item: int) -> None:
        time.sleep(0.02)
        done.append(item)

    def interrupted() -> None:
        with Behind(do) as behind:
            behind.put(7)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [7]


def test_stages_beside_are_counted_and_not_told():
    told: list[str] = []

    def do(_: int) -> None:
        with span("write"):
            time.sleep(0.01)

    with Trace(told.append) as trace, Behind(do) as behind:
        behind.put(0)
        with span("decode"):
            time.sleep(0.02)
    assert told == ["decode"]
    assert trace.seconds["write"] >= 0.01
    assert trace.total < trace.seconds["write"] + trace.seconds["decode"]


def test_a_source_that_is_stopped_ends_its_pass_and_can_begin_another(small_video: Path):
    with open_source(small_video) as reader:
        clips = reader.clips(2, 0)
        assert next(clips).start == 0
        reader.stop()
        assert not list(clips)
        assert sum(len(clip) for clip in reader.clips(2, 0)) == 6


class Doubling:
    """An upscaler that repeats pixels, and counts its windows."""

    name, device, dtype = "doubling", "mps", "float32"  # beside a processor nothing is done
    limits = Limits(step=1, side=2, smallest=8)

    def __init__(self) -> None:
        self.asked: dict[str, float] = {}
        self.windows = 0
        self.second = threading.Event()
        self.patient = False

    def identity(self) -> dict[str, object]:
        return {"model": self.name}

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        self.windows += 1
        with span("double"):
            frames = clip.frames.repeat_interleave(2, 2).repeat_interleave(2, 3)
        if self.patient and self.windows == 2:
            self.second.set()
            for _ in range(int(1000 * PATIENCE)):
                with span("finish"):
                    time.sleep(0.001)
            raise AssertionError("no stage was ended")
        route = Route.dense((len(clip), 3, 4))
        return Upscaled(Clip(frames, clip.start), ComputeMap.of_route(route, len(clip)))


def test_a_full_disk_ends_the_job_at_the_next_stage(
    small_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    upscaler = Doubling()
    upscaler.patient = True

    def full(_target: Target, _clip: Clip) -> None:
        assert upscaler.second.wait(PATIENCE)  # the first is written while the second is made
        raise MediaError("no space left")

    monkeypatch.setattr(Target, "write", full)
    settings = JobSettings(scale=2, window=1, overlap=0)
    with pytest.raises(MediaError, match="no space left"):
        upscale_video(small_video, tmp_path / "out.mp4", upscaler, settings)
    assert not list(tmp_path.iterdir())


def test_a_watcher_is_told_in_its_own_thread_and_can_cancel(small_video: Path, tmp_path: Path):
    upscaler, threads, frames = Doubling(), set[int](), list[int]()

    def watch(progress: Progress) -> None:
        threads.add(threading.get_ident())
        frames.append(progress.frames)
        if progress.frames >= 2:
            raise Cancelled

    settings = JobSettings(scale=2, window=1, overlap=0)
    with pytest.raises(Cancelled):
        upscale_video(small_video, tmp_path / "out.mp4", upscaler, settings, watch)
    assert threads == {threading.get_ident()}
    assert frames == sorted(frames)
    assert not list(tmp_path.iterdir())


def test_all_frames_are_told_in_the_end(small_video: Path, tmp_path: Path):
    upscaler, told = Doubling(), list[Progress]()
    settings = JobSettings(scale=2, window=1, overlap=0)
    report = upscale_video(small_video, tmp_path / "out.mp4", upscaler, settings, told.append)
    assert told[-1] == Progress("write", 6, 6)
    assert report.frames == 6
    assert min(report.seconds[stage] for stage in ("read", "double", "write")) > 0
