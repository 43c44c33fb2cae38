"""VMAF and VMAF-NEG by libvmaf, inside the ffmpeg that the package `imageio-ffmpeg` installs."""

import json
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path

from torch import Tensor

from skipsr.clip import Clip
from skipsr.metrics.metric import Metric, MetricError, check_frames

_MODELS = {"vmaf": "vmaf_v0.6.1", "vmaf_neg": "vmaf_v0.6.1neg"}
_LOG = "vmaf.json"
_SMALLEST = 32  # its filters leave nothing of the smallest scale below
_RATE = "25"  # motion is counted per frame, so the rate does not matter


def vmaf(frames: Tensor, truth: Tensor) -> dict[str, float]:
    """VMAF (`vmaf`) and VMAF-NEG (`vmaf_neg`) of 4:2:0 frames, 0 to 100, means over frames.

    Default models for 1080p at three heights' distance (v0.6.1). Both clips are `t 3 h w` in
    [0, 1]; they go through raw 8-bit files in a temporary folder, 6 t h w bytes together.

    Raises:
        MetricError: for clips of different sizes or below 32 pixels a side, without
            `imageio-ffmpeg`, or when its ffmpeg has no libvmaf or fails.
    """
    check_frames(frames, truth, what="VMAF", smallest=_SMALLEST)
    h, w = frames.shape[-2:]
    ffmpeg = find_ffmpeg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, clip in (("clip.rgb", frames), ("truth.rgb", truth)):
            _write(folder / file, clip)
        # names without a folder, because a filter's options give ':' and '\' a meaning
        done = subprocess.run(
            [ffmpeg, *_arguments(h, w)], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            raise MetricError(f"ffmpeg could not measure VMAF: {_last_line(done.stderr)}")
        pooled = json.loads((folder / _LOG).read_text())["pooled_metrics"]
    return {column: pooled[column]["mean"] for column in _MODELS}


def find_ffmpeg() -> str:
    """The path of an ffmpeg with libvmaf.

    Raises:
        MetricError: when there is none.
    """
    try:
        path: str = import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except ImportError:
        raise MetricError('VMAF needs imageio-ffmpeg: pip install "skipsr[eval]"') from None
    except RuntimeError as problem:
        raise MetricError(f"imageio-ffmpeg found no ffmpeg: {problem}") from None
    asked = [path, "-hide_banner", "-filters"]
    try:
        filters = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as problem:
        raise MetricError(f"{path} does not run: {problem}") from None
    if " libvmaf " not in filters:
        raise MetricError(
            f"{path} has no libvmaf: unset IMAGEIO_FFMPEG_EXE to use the one of imageio-ffmpeg"
        )
    return path


def _arguments(height: int, width: int) -> list[str]:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", _RATE]
    models = "|".join(rf"version={model}\:name={name}" for name, model in _MODELS.items())
    graph = (
        "[0:v]format=yuv420p[clip];[1:v]format=yuv420p[truth];"
        f"[clip][truth]libvmaf=model='{models}':log_fmt=json:log_path={_LOG}"
    )
    inputs = [*raw, "-i", "clip.rgb", *raw, "-i", "truth.rgb"]
    return ["-v", "error", "-nostdin", *inputs, "-lavfi", graph, "-f", "null", "-"]


def _write(path: Path, frames: Tensor) -> None:
    with path.open("wb") as file:
        for i in range(len(frames)):  # frame by frame, so that no second copy is held
            file.write(Clip(frames[i : i + 1].float()).to_array().tobytes())


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it gave no reason"


def _measure(frames: Tensor, truth: Tensor | None) -> dict[str, float]:
    if truth is None:
        raise MetricError("VMAF compares with the truth: give it")
    return vmaf(frames, truth)


VMAF = Metric(
    name="vmaf",
    columns={"vmaf": "higher", "vmaf_neg": "higher"},
    needs_truth=True,
    default=True,
    measure=_measure,
)
