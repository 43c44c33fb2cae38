"""VMAF by the ffmpeg of imageio-ffmpeg, and what is said when it is not there."""

import importlib.util
import shutil
import sys

import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip
from torch import Tensor

from skipsr.metrics import METRICS, MetricError
from skipsr.metrics.vmaf import find_ffmpeg, vmaf

needs_ffmpeg = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="needs imageio-ffmpeg"
)


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """Three frames of 96x64, enlarged from less, so that they have no noise."""
    return F.interpolate(make_clip(3, 32, 48).frames, scale_factor=2, mode="bicubic").clamp(0, 1)


def softer(frames: Tensor, radius: int) -> Tensor:
    padded = F.pad(frames, (radius,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * radius + 1, 1)


@needs_ffmpeg
def test_blur_lowers_both(truth: Tensor):
    found = [vmaf(clip, truth) for clip in (truth, softer(truth, 1), softer(truth, 3))]
    for column in METRICS["vmaf"].columns:
        values = [row[column] for row in found]
        assert values[0] > 95
        assert values[0] > values[1] + 5 > values[2] + 10
        assert min(values) >= 0
    assert METRICS["vmaf"].measure(softer(truth, 1), truth) == found[1]


@needs_ffmpeg
def test_neg_does_not_reward_sharpening(truth: Tensor):
    sharp = (truth + (truth - softer(truth, 1))).clamp(0, 1)
    found = vmaf(sharp, truth)
    assert found["vmaf_neg"] < found["vmaf"]


@needs_ffmpeg
def test_odd_sizes(truth: Tensor):
    odd = truth[..., :63, :95]
    assert vmaf(odd, odd)["vmaf"] > 95


def test_refusals(truth: Tensor):
    with pytest.raises(MetricError, match="at least 32 pixels a side, not 96x31"):
        vmaf(truth[..., :31, :], truth[..., :31, :])
    with pytest.raises(MetricError, match="cut both to one size"):
        vmaf(truth, truth[:2])
    with pytest.raises(MetricError, match="compares with the truth"):
        METRICS["vmaf"].measure(truth, None)


def test_without_imageio_ffmpeg(truth: Tensor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as if it were not installed
    with pytest.raises(MetricError, match=r'pip install "skipsr\[eval\]"'):
        vmaf(truth, truth)


@needs_ffmpeg
@pytest.mark.skipif(shutil.which("echo") is None, reason="needs a program called echo")
def test_an_ffmpeg_without_libvmaf(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(shutil.which("echo")))  # lists no filters at all
    with pytest.raises(MetricError, match="has no libvmaf: unset IMAGEIO_FFMPEG_EXE"):
        find_ffmpeg()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "nowhere/ffmpeg")
    with pytest.raises(MetricError, match="nowhere/ffmpeg does not run"):
        find_ffmpeg()


@needs_ffmpeg
def test_the_clip_is_not_changed(truth: Tensor):
    before = truth.clone()
    vmaf(truth, truth)
    assert torch.equal(truth, before)
