"""Stage times, memory, and the choice of a device."""

import ctypes
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from made_models import make_clip

from skipsr.backbones.contract import Upscaled
from skipsr.devices import resolve
from skipsr.errors import SettingsError
from skipsr.limits import Limits
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import Progress, upscale_video
from skipsr.settings import JobSettings, RuntimeSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.route import Route
from skipsr.tracing import Trace, peak_memory_gib, span


def test_spans_are_told_and_added_up():
    began: list[str] = []
    with Trace(began.append) as trace:
        for stage in ("read", "denoise", "read"):
            with span(stage):
                time.sleep(0.002)
    assert began == ["read", "denoise", "read"]
    assert list(trace.seconds) == ["read", "denoise"]
    assert trace.seconds["read"] >= 0.004
    assert trace.total >= sum(trace.seconds.values())


def test_nothing_is_kept_outside_a_trace():
    with Trace() as trace:
        pass
    with span("late"):
        pass
    assert trace.seconds == {}
    with Trace() as outer:
        with Trace() as inner, span("x"):
            pass
        with span("y"):
            pass
    assert list(inner.seconds) == ["x"]
    assert list(outer.seconds) == ["y"]


def test_a_failing_stage_is_counted():
    with Trace() as trace, pytest.raises(KeyError), span("read"):
        raise KeyError
    assert list(trace.seconds) == ["read"]


def test_peak_memory_grows_with_an_allocation():
    before = peak_memory_gib()
    assert 0.01 < before < 1000
    block = bytearray(int((before + 0.1) * 2**30))
    block[::4096] = b"x" * len(block[::4096])
    assert peak_memory_gib() > before


class Card:
    """Two CUDA devices whose work takes the time that `work` says; nothing may wait for them but
    the end of a trace."""

    def __init__(self) -> None:
        self.clocks = {"cuda:0": 0.0, "cuda:1": 0.0}  # milliseconds of what was queued
        self.passed = {"cuda:0": 0.0, "cuda:1": 0.0}  # of what is done
        self.waits: list[str] = []

    def work(self, device: str, milliseconds: float) -> None:
        self.clocks[device] += milliseconds

    def current_stream(self, device: str) -> str:
        return device

    def synchronize(self, *_: object) -> None:
        raise AssertionError("a whole device was waited for")

    def max_memory_allocated(self, device: str = "cuda:0") -> int:
        return {"cuda:0": 0, "cuda:1": 3 * 2**30}[device]

    def Event(self, *, enable_timing: bool) -> "Event":  # noqa: N802
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, card: Card) -> None:
        self.card = card

    def record(self, stream: str) -> None:
        self.stream, self.at = stream, self.card.clocks[stream]

    def query(self) -> bool:
        return self.at <= self.card.passed[self.stream]

    def synchronize(self) -> None:
        self.card.waits.append(self.stream)
        self.card.passed[self.stream] = max(self.card.passed[self.stream], self.at)

    def elapsed_time(self, end: "Event") -> float:
        assert end.query()
        return end.at - self.at


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    for name in ("Event", "current_stream", "synchronize", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, getattr(made, name))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    return made


def test_stages_are_timed_on_the_device_that_the_job_runs_on(card: Card):
    with Trace(device="cuda:1") as trace:
        for _ in range(3):
            with span("decode"):
                card.work("cuda:1", 500)
                card.work("cuda:0", 70)
        with span("write"):
            pass
        assert card.waits == []  # until the end nothing is waited for
    assert trace.seconds == {"decode": 1.5, "write": 0.0}
    assert set(card.waits) == {"cuda:1"}


def test_marks_that_have_passed_are_not_held(card: Card):
    trace = Trace(device="cuda:1")
    with trace:
        for _ in range(100):
            with span("decode"):
                card.work("cuda:1", 1)
            card.passed["cuda:1"] = card.clocks["cuda:1"]
        assert trace.seconds["decode"] == pytest.approx(0.099)
    assert trace.seconds["decode"] == pytest.approx(0.1)
    assert len(card.waits) == 1


def test_an_error_does_not_wait_for_the_device(card: Card):
    def fail() -> None:
        with Trace(device="cuda:0"), span("decode"):
            card.work("cuda:0", 5)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert card.waits == []


class OnSecondCard:
    """Takes no time on the processor and 40 ms a window on its card."""

    name, device, dtype = "toy", "cuda:1", "float32"
    limits = Limits(smallest=8)
    asked: dict[str, float] = {}  # noqa: RUF012

    def __init__(self, card: Card) -> None:
        self.card = card

    def upscale(self, clip, size, *, seed=0) -> Upscaled:
        with span("denoise"):
            self.card.work(self.device, 40)
        result = make_clip(len(clip), *size, start=clip.start)
        return Upscaled(result, ComputeMap.of_route(Route.dense((3, 2, 2)), len(clip)))


def test_a_job_reports_the_time_and_memory_of_its_own_device(card: Card, small_video, tmp_path):
    report = upscale_video(small_video, tmp_path / "out.mp4", OnSecondCard(card))  # type: ignore[arg-type]
    assert report.seconds["denoise"] == pytest.approx(0.04)
    assert report.peak_memory_gib == 3


def test_peak_memory_on_windows(monkeypatch: pytest.MonkeyPatch):
    """By the layout that psapi.h documents: two words of four bytes, then the peak."""
    seen: list[int] = []

    class Function:
        def __init__(self, run) -> None:
            self.run = run

        def __call__(self, *given):
            return self.run(*given)

    class Kernel:
        def __init__(self, _name: str) -> None:
            self.GetCurrentProcess = Function(lambda: -1)
            self.K32GetProcessMemoryInfo = Function(self.fill)

        def fill(self, process, place, size) -> bool:
            seen.extend((process, size))
            ctypes.c_size_t.from_address(ctypes.addressof(place._obj) + 8).value = 5 * 2**29
            return True

    monkeypatch.setattr(ctypes, "WinDLL", Kernel, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert peak_memory_gib() == 2.5
    assert seen == [-1, 72]


def test_cpu():
    device, dtype = resolve(RuntimeSettings(device="cpu"))
    assert device == torch.device("cpu")
    assert dtype in (torch.float32, torch.bfloat16)
    assert resolve(RuntimeSettings(device="cpu", dtype="float16"))[1] == torch.float16
    assert resolve(RuntimeSettings(device="cpu", dtype="float32"))[1] == torch.float32


def test_half_precision_is_that_of_the_asked_card(monkeypatch: pytest.MonkeyPatch):
    """An old card beside a new one: float16 on the one, bfloat16 on the other."""
    current = ["cuda:0"]

    @contextmanager
    def entered(device: torch.device):
        current.append(str(device))
        yield
        current.pop()

    monkeypatch.setattr("skipsr.devices._device", torch.device)
    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda _: current[-1] == "cuda:0")
    assert resolve(RuntimeSettings(device="cuda:0"))[1] == torch.bfloat16
    assert resolve(RuntimeSettings(device="cuda:1"))[1] == torch.float16


@pytest.mark.parametrize("name", ["warp", "cuda:99", "", "cpu:x"])
def test_unknown_devices(name):
    with pytest.raises(SettingsError, match="is not usable on this machine"):
        resolve(RuntimeSettings(device=name))


def test_auto_finds_something():
    device, _ = resolve(RuntimeSettings())
    assert torch.ones(2, device=device).sum().item() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_the_parent_held_is_not_counted():
    held = bytearray(400 * 2**20)
    code = "from skipsr.tracing import peak_memory_gib; print(peak_memory_gib())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(held) == 400 * 2**20
    assert float(done.stdout) < 0.2


@pytest.mark.parametrize("name", ["skipvsr:nano", "seedvr2:nano"])
def test_a_watcher_is_told_how_far_a_window_is(name: str, small_video: Path, tmp_path: Path):
    told: list[Progress] = []
    upscale_video(small_video, tmp_path / "out.mp4", load_upscaler(name), watch=told.append)
    of = told[-1].of
    within = [progress.ahead for progress in told if not progress.frames]
    assert within == sorted(within)
    assert len(set(within)) > of  # of each frame at least its backward and its forward state
    assert all(progress.frames + progress.ahead <= of for progress in told)
    assert (told[-1].frames, told[-1].ahead) == (of, 0)


@pytest.mark.parametrize("overlap", [0, 1])
def test_what_is_told_only_grows_over_windows_also_of_a_job_that_goes_on(
    overlap: int, small_video: Path, tmp_path: Path
):
    upscaler = load_upscaler("skipvsr:nano")
    settings = JobSettings(window=2, overlap=overlap, segment=0.1)
    done: list[float] = []

    def watch(progress: Progress) -> None:
        done.append(progress.frames + progress.ahead)
        if progress.frames > 2 and stops:
            raise KeyboardInterrupt

    stops = True
    with pytest.raises(KeyboardInterrupt):
        upscale_video(small_video, tmp_path / "out.mp4", upscaler, settings, watch)
    assert done == sorted(done)
    stops, kept = False, len(done)
    upscale_video(small_video, tmp_path / "out.mp4", upscaler, settings, watch)
    assert done[kept] >= 2
    assert done[kept:] == sorted(done[kept:])
    assert done[-1] == 6
