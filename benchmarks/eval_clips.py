"""Quality on real clips: ÷4 bicubic antialias, ×4 again, against the original.

    python benchmarks/eval_clips.py DIR [--model nano] [--frames 25] [--only NAME]

For every clip of DIR: PSNR of luma (BT.601, limited range, whole frame, rounded to 8 bits),
VMAF and VMAF-NEG (of 4:2:0 frames, by the ffmpeg that `imageio-ffmpeg` installs), for plain bicubic
and for the model. Files go through the command line's own path, losslessly.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import torch
from einops import rearrange
from record import HERE, save

from skipsr.backbones.seedvr2.frames import resize
from skipsr.clip import Clip
from skipsr.data.degrade import downscale
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import upscale_video
from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings
from skipsr.video import open_source

METRICS = ("psnr_y", "vmaf", "vmaf_neg")


def read(path: Path, frames: int) -> torch.Tensor:
    """The first frames, `t 3 h w` in [0, 1]."""
    with open_source(path) as source:
        return next(source.clips(frames, 0)).frames


def write_lossless(path: Path, frames: torch.Tensor) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt = "bgr0"
        for pixels in Clip(frames).to_array():
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode())


def luma(frames: torch.Tensor) -> torch.Tensor:
    """BT.601 limited-range luma in 8-bit steps, from rounded pixels."""
    rounded = (frames * 255).round()
    weights = torch.tensor([65.481, 128.553, 24.966]) / 255
    return torch.einsum("t c h w, c -> t h w", rounded, weights) + 16


def psnr_y(frames: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean over frames, dB."""
    error = (luma(frames) - luma(truth)).square().mean((1, 2))
    return (10 * (255**2 / error.clamp_min(1e-10)).log10()).mean().item()


def vmaf(frames: torch.Tensor, truth: torch.Tensor, folder: Path) -> dict[str, float]:
    """VMAF and VMAF-NEG, means over frames."""
    paths = [folder / "distorted.yuv", folder / "reference.yuv"]
    for path, clip in zip(paths, (frames, truth), strict=True):
        with path.open("wb") as file:
            for pixels in Clip(clip).to_array():
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
                for plane in frame.planes:
                    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                    file.write(np.ascontiguousarray(rows[:, : plane.width]).tobytes())
    h, w = truth.shape[2:]
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{w}x{h}", "-r", "25"]
    log = folder / "vmaf.json"
    models = r"version=vmaf_v0.6.1\:name=vmaf|version=vmaf_v0.6.1neg\:name=vmaf_neg"
    graph = f"[0:v][1:v]libvmaf=model='{models}':log_fmt=json:log_path={log}:n_threads=2"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
    command += [*raw, "-i", str(paths[0]), *raw, "-i", str(paths[1])]
    subprocess.run([*command, "-lavfi", graph, "-f", "null", "-"], check=True)
    pooled = json.loads(log.read_text())["pooled_metrics"]
    return {name: pooled[name]["mean"] for name in ("vmaf", "vmaf_neg")}


def evaluate(
    path: Path, count: int, model: str, dtype: str, compare: bool, folder: Path
) -> Iterator[dict[str, Any]]:
    """A row for bicubic, for the model and, to compare, with all and with no tokens computed."""
    truth = read(path, count)
    h, w = (n // 8 * 8 for n in truth.shape[2:])  # a whole, even LR size
    truth = truth[:, :, :h, :w]
    low = rearrange(downscale(rearrange(truth, "t c h w -> 1 c t h w"), 4), "1 c t h w -> t c h w")
    low = (low * 255).round() / 255
    write_lossless(folder / "low.mkv", low)
    runtime = RuntimeSettings(dtype=dtype)  # type: ignore[arg-type]
    methods: list[tuple[str, SkipSettings | None]] = [("bicubic", None), (model, SkipSettings())]
    if compare:
        methods.append((f"{model}, all computed", SkipSettings(dense=True)))
        methods.append((f"{model}, none computed", SkipSettings(threshold=1.0)))
    for method, skip in methods:
        row: dict[str, Any] = {"clip": path.stem, "method": method}
        if skip is None:
            result = resize(low, (h, w))  # a = -0.5, as the upscaler does
        else:
            upscaler = load_upscaler(model, skip, runtime)
            out = folder / "high.mkv"
            settings = JobSettings(codec="ffv1", overwrite=True)
            began = time.perf_counter()
            report = upscale_video(folder / "low.mkv", out, upscaler, settings)
            row |= {"seconds": time.perf_counter() - began, "computed": report.computed}
            assert (report.frames, report.height, report.width) == (len(truth), h, w), report
            result = read(out, count)
            assert result.shape == truth.shape
        row |= {"size": f"{w}x{h}", "frames": len(truth), "psnr_y": psnr_y(result, truth)}
        yield row | vmaf(result, truth, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--only", default="", help="only clips with this in their name")
    parser.add_argument("--compare", action="store_true", help="also with all and with no tokens")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    paths = [p for p in sorted(options.dir.glob("*.mp4")) if options.only in p.stem]
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            for row in evaluate(
                path, options.frames, options.model, options.dtype, options.compare, Path(folder)
            ):
                rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
                print(rows[-1], flush=True)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    means = {
        m: {k: round(float(np.mean([r[k] for r in rows if r["method"] == m])), 3) for k in METRICS}
        for m in methods
    }
    table = ["| clip | size | method | PSNR-Y | VMAF | VMAF-NEG | computed | s |", "|" + "---|" * 8]
    for row in rows:
        computed = f"{row['computed']:.1%}" if "computed" in row else ""
        seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
        figures = " | ".join(f"{row[k]:.2f}" for k in METRICS)
        head = f"{row['clip']} | {row['size']} | {row['method']}"
        table.append(f"| {head} | {figures} | {computed} | {seconds} |")
    for method, mean in means.items():
        figures = " | ".join(f"**{mean[k]:.2f}**" for k in METRICS)
        table.append(f"| **mean** | | **{method}** | {figures} | | |")
    if not options.only:
        name = "eval_clips_compare" if options.compare else "eval_clips"
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / f"{name}.md").write_text("\n".join(table) + "\n")
        save(
            name,
            {"model": options.model, "frames": options.frames, "means": means, "rows": rows},
        )
    print("\n".join(table))


if __name__ == "__main__":
    main()
