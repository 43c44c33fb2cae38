"""Animated GIFs are written with their own palettes and times."""

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_models import make_frames
from made_videos import make_video
from PIL import Image, ImageSequence

from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.pipeline.job import upscale_video
from skipsr.settings import Encoding, JobSettings
from skipsr.video import frames_info, open_source, open_target, probe

SIZE = (33, 47)  # odd, as no video with 4:2:0 may be


def gradients(count: int) -> np.ndarray:
    """Of one colour each, so that no palette of all would hold every one."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    light = (3 * x + 3 * y)[..., None]
    return np.stack([light * np.roll([1.0, 0.5, 0.1], i) for i in range(count)]).astype(np.uint8)


def durations(path: Path) -> list[int]:
    with Image.open(path) as image:
        return [frame.info["duration"] for frame in ImageSequence.Iterator(image)]


def write(path: Path, frames: np.ndarray, times: list[int], rate: Fraction) -> None:
    clip = Clip.from_array(frames, times=tuple(times))
    with open_target(path, frames_info(SIZE, rate=rate, count=len(frames)), SIZE) as target:
        target.write(clip)


def test_every_frame_has_its_own_colours(tmp_path: Path):
    frames = gradients(3)
    write(tmp_path / "a.gif", frames, [0, 1, 2], Fraction(10))
    with open_source(probe(tmp_path / "a.gif")) as source:
        found = next(source.clips(3, 0)).to_array()
    assert np.abs(found.astype(int) - frames).mean() < 2
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize(
    ("rate", "times", "shown"),
    [
        (Fraction(100), [0, 4, 30, 33], [40, 260, 30, 30]),
        (Fraction(30000, 1001), [0, 1, 2, 3, 4], [30, 40, 30, 30, 30]),  # adds up: no drift
        (Fraction(1000), [0, 2, 4], [10, 10, 10]),  # there is nothing shorter
    ],
)
def test_times_are_the_nearest_hundredths(
    tmp_path: Path, rate: Fraction, times: list[int], shown: list[int]
):
    write(tmp_path / "a.gif", gradients(len(times)), times, rate)
    assert durations(tmp_path / "a.gif")[:-1] == shown[:-1]


def test_a_gif_becomes_one_with_the_same_times(tmp_path: Path, tiny_upscaler: SeedVR2Upscaler):
    images = [Image.fromarray(frame) for frame in make_frames(4, 24, 32)]
    images[2] = images[1]  # a frame that repeats stays one
    source, target = tmp_path / "in.gif", tmp_path / "out.gif"
    shown = [100, 200, 70, 1500]
    images[0].save(source, save_all=True, append_images=images[1:], duration=shown)
    kept = durations(source)  # Pillow joins frames that repeat
    settings = JobSettings(scale=2, window=1, overlap=0, segment=0.01)
    report = upscale_video(source, target, tiny_upscaler, settings)
    assert durations(target) == kept
    assert report.frames == len(kept)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.gif", "out.gif"]


def test_frames_that_repeat_are_all_there(tmp_path: Path):
    write(tmp_path / "a.gif", gradients(1).repeat(3, 0), [0, 1, 2], Fraction(10))
    assert probe(tmp_path / "a.gif").frames == 3


def test_what_a_gif_cannot_hold_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = make_video(
        tmp_path / "a.mp4", list(make_frames(6, 24, 32)), rate=60, audio_seconds=0.1
    )
    info = probe(source)
    with (
        caplog.at_level(logging.WARNING),
        open_source(info) as reader,
        open_target(tmp_path / "b.gif", info, (24, 32)) as target,
    ):
        target.write(next(reader.clips(6, 0)))
    assert "a GIF holds no sound" in caplog.text
    assert "60 frames a second" in caplog.text
    with pytest.raises(SettingsError, match="`crf` is for videos"):
        open_target(tmp_path / "c.gif", info, (24, 32), Encoding(crf=20))


def test_what_was_finished_of_a_gif_is_kept(tmp_path: Path):
    def stopped() -> None:
        with open_target(tmp_path / "a.gif", frames_info(SIZE, count=3), SIZE) as target:
            target.write(Clip.from_array(gradients(2)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        stopped()
    assert "2 frames finished before that are in" in caught.value.__notes__[0]
    assert probe(tmp_path / "a.partial.gif").frames == 2


def test_a_last_frame_of_unknown_length_is_shown_as_long_as_others(tmp_path: Path):
    """With B-frames MP4 does not say how long the last one is."""
    video = make_video(tmp_path / "a.mp4", list(make_frames(8, 48, 64)))
    with open_source(video) as source, open_target(tmp_path / "a.gif", source.info, (48, 64)) as to:
        assert source.info.last_duration == 0
        for clip in source.clips(8, 0):
            to.write(clip)
    assert durations(tmp_path / "a.gif") == [40] * 8
