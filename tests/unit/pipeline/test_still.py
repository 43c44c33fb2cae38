"""One frame of a source, looked at before the whole job."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from made_models import make_frames
from made_videos import make_video
from PIL import Image

from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import SettingsError
from skipsr.pipeline.still import (
    enlarge_still,
    frame_at,
    frames_around,
    plan_still,
    preview_still,
)
from skipsr.settings import JobSettings
from skipsr.shots import ONE_SHOT, ListedShots
from skipsr.times import as_seconds
from skipsr.video import probe

COUNT = 20
TIMES = [i + 3 * (i >= 10) for i in range(COUNT)]  # a pause of three frames before the tenth


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "in.mp4"
    return make_video(path, list(make_frames(COUNT, 24, 32)), times=TIMES)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("0.4", Fraction(2, 5)), ("01:00:00.5", 3600 + Fraction(1, 2))],
)
def test_a_time_is_seconds_or_on_a_clock(text: str, seconds: Fraction):
    assert as_seconds("at", text) == seconds


@pytest.mark.parametrize(
    ("number", "seconds"),
    [(1e-5, Fraction(1, 100000)), (np.float32(0.5), Fraction(1, 2)), (Fraction(9, 4), 2.25)],
)
def test_a_number_is_read_however_python_writes_it(number: object, seconds: Fraction):
    assert as_seconds("at", number) == seconds


@pytest.mark.parametrize("text", ["", "-1", "soon", "1:2:3:4", "\u0663"])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(SettingsError, match="is no time: give seconds, or one such as 1:30"):
        as_seconds("at", text)


def test_the_frame_is_the_one_that_is_shown_then(video: Path):
    info = probe(video)
    assert not info.constant_rate
    frames = [frame_at(info, Fraction(tick, 25)) for tick in range(TIMES[-1] + 1)]
    assert frames == [*range(10), 9, 9, 9, *range(10, COUNT)]
    with pytest.raises(SettingsError, match=r"`at` 60 is beyond the end of .*in.mp4: give 0 to"):
        frame_at(info, Fraction(60))


def test_where_frames_are_evenly_spaced_none_has_to_be_read(video: Path, tmp_path: Path):
    frames = make_video(tmp_path / "even.mp4", list(make_frames(4, 24, 32)))
    info = probe(frames)
    frames.unlink()
    assert [frame_at(info, Fraction(t, 100)) for t in (0, 3, 4, 15, 16)] == [0, 0, 1, 3, 3]


@pytest.mark.parametrize(("frame", "start", "end"), [(0, 0, 9), (10, 6, 15), (19, 15, 20)])
def test_neighbours_on_both_sides_are_run(video: Path, frame: int, start: int, end: int):
    clip, place = frames_around(probe(video), frame, ONE_SHOT)
    assert (clip.start, clip.start + len(clip)) == (start, end)
    assert clip.start + place == frame


def test_neighbours_are_of_the_same_shot(video: Path):
    clip, place = frames_around(probe(video), 10, ListedShots((0, 9, 12)))
    assert (clip.start, len(clip), place) == (9, 3, 1)


def test_beyond_the_last_frame_is_the_last(video: Path):
    clip, place = frames_around(probe(video), 500, ONE_SHOT)
    assert clip.start + place == COUNT - 1


def test_both_sides_are_written_and_the_time_is_foretold(
    video: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path: Path
):
    settings = JobSettings(scale=2)
    plan = plan_still(video, tmp_path / "out.png", tiny_upscaler.limits, settings)
    report = preview_still(plan, tiny_upscaler, Fraction(14, 25))
    assert (report.frame, report.at, report.width, report.height) == (11, 0.56, 64, 48)
    assert report.job_seconds == pytest.approx(COUNT * report.seconds_per_frame, abs=0.1, rel=0.1)
    assert json.loads(report.to_json())["model"] == "seedvr2:tiny"

    picture = np.asarray(Image.open(tmp_path / "out.png"))
    clip, place = frames_around(plan.source, 11, plan.shots)
    still = enlarge_still(clip, place, tiny_upscaler, plan.size, settings.seed)
    for shown, side in zip(np.split(picture, 2, 1), still.sides, strict=True):
        assert np.array_equal(shown, side.to_array()[0])
    assert not torch.equal(still.sides[0].frames, still.sides[1].frames)


def test_by_default_it_is_the_middle(video: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path: Path):
    plan = plan_still(video, tmp_path / "out.jpg", tiny_upscaler.limits, JobSettings(scale=1))
    assert preview_still(plan, tiny_upscaler).frame == COUNT // 2


def test_an_image_is_one_frame(tiny_upscaler: SeedVR2Upscaler, tmp_path: Path):
    Image.fromarray(make_frames(1, 24, 32)[0]).save(tmp_path / "in.png")
    plan = plan_still(
        tmp_path / "in.png", tmp_path / "out.png", tiny_upscaler.limits, JobSettings(scale=1)
    )
    assert preview_still(plan, tiny_upscaler).frame == 0
    assert Image.open(tmp_path / "out.png").size == (64, 24)


def test_a_video_is_no_place_for_one_frame(
    video: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path: Path
):
    with pytest.raises(SettingsError, match=r"out.mp4 is no image: give a name such as out.png"):
        plan_still(video, tmp_path / "out.mp4", tiny_upscaler.limits, JobSettings())


def test_a_video_that_begins_late_is_counted_from_its_first_frame(tmp_path: Path):
    late = make_video(
        tmp_path / "late.mkv", list(make_frames(COUNT, 24, 32)), times=range(25, 25 + COUNT)
    )
    info = probe(late)
    assert frame_at(info, Fraction(0)) == 0
    assert frame_at(info, Fraction("1.5")) == 12
    assert frame_at(info, Fraction("1.79")) == 19
    with pytest.raises(SettingsError, match=r"give 0 to 1\.80 seconds"):
        frame_at(info, Fraction("1.9"))


def test_listed_shots_are_those_of_the_whole_source(
    video: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path: Path
):
    (tmp_path / "shots.txt").write_text("0\n8\n")
    settings = JobSettings(scale=1, shots=str(tmp_path / "shots.txt"))
    plan = plan_still(video, tmp_path / "a.png", tiny_upscaler.limits, settings)
    assert plan.shots == ListedShots((0, 8))
    assert plan.window == 9  # which are run, and not those of the whole job
    assert (plan.source.frames, plan.settings) == (COUNT, settings)
