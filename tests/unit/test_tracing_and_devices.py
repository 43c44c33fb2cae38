"""Stage times and the choice of a device."""

import time

import pytest
import torch

from skipsr.devices import resolve
from skipsr.errors import SettingsError
from skipsr.settings import RuntimeSettings
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts the GPU's memory instead")
def test_peak_memory_grows_with_an_allocation():
    before = peak_memory_gib()
    assert 0.01 < before < 1000
    block = bytearray(int((before + 0.1) * 2**30))
    block[::4096] = b"x" * len(block[::4096])
    assert peak_memory_gib() > before


def test_cpu():
    device, dtype = resolve(RuntimeSettings(device="cpu"))
    assert device == torch.device("cpu")
    assert dtype in (torch.float32, torch.bfloat16)
    assert resolve(RuntimeSettings(device="cpu", dtype="float16"))[1] == torch.float16
    assert resolve(RuntimeSettings(device="cpu", dtype="float32"))[1] == torch.float32


@pytest.mark.parametrize("name", ["warp", "cuda:99", "", "cpu:x"])
def test_unknown_devices(name):
    with pytest.raises(SettingsError, match="is not usable on this machine"):
        resolve(RuntimeSettings(device=name))


def test_auto_finds_something():
    device, _ = resolve(RuntimeSettings())
    assert torch.ones(2, device=device).sum().item() == 2
