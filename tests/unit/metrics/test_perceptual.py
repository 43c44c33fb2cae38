"""What learned metrics say when their library is not there. Their numbers need weights."""

import sys

import pytest
import torch

from skipsr.metrics import METRICS, MetricError
from skipsr.metrics.perceptual import perceptual

NAMES = ["lpips", "dists", "musiq", "clip_iqa"]


@pytest.mark.parametrize("name", NAMES)
def test_without_the_library(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # as if it were not installed
    clip = torch.rand(1, 3, 64, 64)
    message = rf'^{name} needs pyiqa and what it uses .*: pip install "skipsr\[perceptual\]"$'
    with pytest.raises(MetricError, match=message):
        METRICS[name].measure(clip, clip)


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_comparing_needs_a_truth(name: str):
    assert METRICS[name].needs_truth
    with pytest.raises(MetricError, match=f"{name} compares with the truth"):
        METRICS[name].measure(torch.rand(1, 3, 64, 64), None)


def test_small_frames_are_refused():
    with pytest.raises(MetricError, match="musiq needs at least 64 pixels a side, not 80x63"):
        perceptual("musiq", torch.rand(1, 3, 63, 80))
