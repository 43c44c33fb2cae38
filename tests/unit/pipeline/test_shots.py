"""Jobs over cuts: no shot sees another, a list serves as well, and one shot is as it was."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_models import make_frames
from made_videos import make_video
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.limits import Limits
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import upscale_frames, upscale_video
from skipsr.pipeline.plan import plan_job
from skipsr.pipeline.preview import draw_masks
from skipsr.pipeline.shots import find_shots
from skipsr.settings import JobSettings
from skipsr.video import open_source

SAMPLE = Path(__file__).parents[3] / "src/skipsr/assets/sample.mp4"
CUT = 8
TWICE = JobSettings(scale=2, window=9, overlap=2)


@pytest.fixture(scope="module")
def scenes() -> NDArray[np.uint8]:
    """Eight frames, then six of others: `t h w 3`."""
    return np.concatenate((make_frames(CUT, 20, 27), 255 - make_frames(6, 20, 27, seed=1)[:, ::-1]))


@pytest.fixture(scope="module")
def folder(scenes: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    for i, frame in enumerate(scenes):
        Image.fromarray(frame).save(path / f"{i:02}.png")
    return path


def settings(shots: str = "auto") -> JobSettings:
    return JobSettings(scale=2, window=9, overlap=2, shots=shots)


def read(path: Path) -> NDArray[np.uint8]:
    with open_source(path) as source:
        return np.concatenate([clip.to_array() for clip in source.clips(5, 0)])


def alone(upscaler: SeedVR2Upscaler, scenes: NDArray[np.uint8], start: int, end: int) -> Clip:
    return upscaler.upscale(Clip.from_array(scenes[start:end], start), (40, 54)).clip


@pytest.mark.parametrize("shots", ["auto", "list"])
def test_each_shot_is_enlarged_by_itself(
    tiny_upscaler: SeedVR2Upscaler, folder: Path, scenes, tmp_path: Path, shots: str
):
    if shots == "list":
        (tmp_path / "list.txt").write_text("0.34 # of frames at 24 a second\n")
        shots = str(tmp_path / "list.txt")
    report = upscale_video(folder, tmp_path / "out", tiny_upscaler, settings(shots))
    parts = [alone(tiny_upscaler, scenes, *part).to_array() for part in ((0, CUT), (CUT, 14))]
    assert report.shots == 2
    assert np.array_equal(read(tmp_path / "out"), np.concatenate(parts))


def test_with_shots_off_windows_are_cut_by_their_length_alone(
    tiny_upscaler: SeedVR2Upscaler, folder: Path, scenes, tmp_path: Path
):
    report = upscale_video(folder, tmp_path / "out", tiny_upscaler, settings("off"))
    result = read(tmp_path / "out")
    first, second = (alone(tiny_upscaler, scenes, *part) for part in ((0, 9), (7, 14)))
    assert report.shots == 1
    assert np.array_equal(result[:7], first.to_array()[:7])
    assert np.array_equal(result[9:], second.to_array()[2:])


def test_a_clip_without_cuts_is_as_it_was(tiny_upscaler: SeedVR2Upscaler, scenes):
    frames = make_frames(14, 20, 27)
    auto, off = (
        list(upscale_frames(frames, tiny_upscaler, settings(shots))) for shots in ("auto", "off")
    )
    assert np.array_equal(auto, off)


def test_frames_from_memory_are_cut_as_files_are(tiny_upscaler: SeedVR2Upscaler, scenes):
    parts = [alone(tiny_upscaler, scenes, *part).to_array() for part in ((0, CUT), (CUT, 14))]
    result = list(upscale_frames(scenes, tiny_upscaler, settings()))
    assert np.array_equal(result, np.concatenate(parts))


def test_masks_are_drawn_shot_by_shot(tiny_upscaler: SeedVR2Upscaler, folder: Path, tmp_path: Path):
    starts: list[int] = []

    class Masker:
        limits = tiny_upscaler.limits
        upsample = tiny_upscaler.upsample

        def compute_map(self, clip: Clip, size: tuple[int, int]):
            starts.append(clip.start)
            return tiny_upscaler.compute_map(clip, size)

    plan = plan_job(folder, tmp_path / "out", tiny_upscaler.limits, settings())
    draw_masks(plan, Masker(), "tiny", lambda _: None)
    assert starts == [0, CUT]


def test_a_plan_knows_the_windows_of_listed_shots(folder: Path, tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_text("8\n9\n")

    def windows(shots: str) -> list[tuple[int, int]]:
        plan = plan_job(folder, tmp_path / "out", Limits(), settings(shots))
        return [(window.start, window.end) for window in plan.windows]

    assert windows(str(path)) == [(0, 8), (8, 9), (9, 14)]
    assert windows("auto") == windows("off") == [(0, 9), (7, 14)]
    path.write_text("14")
    with pytest.raises(SettingsError, match="14 is beyond the source, which has 14 frames"):
        windows(str(path))


def test_times_need_evenly_spaced_frames(tmp_path: Path, scenes):
    times = [i + 9 * (i > 5) for i in range(14)]
    uneven = make_video(tmp_path / "a.mkv", [f[:, :26] for f in scenes], times=times)
    (tmp_path / "list.txt").write_text("0.4")
    with pytest.raises(SettingsError, match="not evenly spaced"):
        plan_job(uneven, tmp_path / "b.mkv", Limits(), settings(str(tmp_path / "list.txt")))
    (tmp_path / "list.txt").write_text("9")
    plan_job(uneven, tmp_path / "b.mkv", Limits(), settings(str(tmp_path / "list.txt")))


def test_shots_are_found_in_the_bundled_clip():
    assert find_shots(SAMPLE) == [(0, Fraction(0)), (24, Fraction(1))]


@pytest.mark.parametrize("model", ["skipvsr:nano", "seedvr2:nano"])
def test_the_first_frame_after_a_cut_is_as_good_as_a_fresh_start(model: str):
    """And without shots it is another one."""
    with open_source(SAMPLE) as source:
        truth = next(source.clips(36, 0)).frames[16:30, :, 10:82, 30:126]
    low = Clip(F.interpolate(truth, scale_factor=0.25, mode="bicubic", antialias=True))
    frames, upscaler = low.to_array(), load_upscaler(model)

    def psnr(start: int, shots: str) -> float:
        job = JobSettings(window=9, overlap=1, shots=shots)
        made = list(upscale_frames(frames[start:], upscaler, job))[CUT - start]
        error = Tensor(made / 255.0) - truth[CUT].permute(1, 2, 0)
        return -10 * torch.log10(error.square().mean()).item()

    fresh = psnr(CUT, "auto")
    assert psnr(0, "auto") == pytest.approx(fresh, abs=0.05)
    assert psnr(0, "off") != fresh
