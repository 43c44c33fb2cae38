"""Recordings that were put together by joining their files: each begins with its own clock."""

from array import array
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from made_videos import copy_to, make_video, packets, ramp, read_all

from skipsr.video.clock import find_restarts


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """The same 1.2 seconds, with sound, twice."""
    path = tmp_path_factory.mktemp("clock") / "a.ts"
    once = make_video(path, ramp(30), audio_seconds=1.2).read_bytes()
    path.write_bytes(once * 2)
    return path


def test_a_clock_that_starts_again_goes_on(twice, caplog):
    info, frames, times = read_all(twice)
    assert len(frames) == 60
    assert np.abs(frames[:30] - frames[30:]).max() < 1
    assert {b - a for a, b in pairwise(times)} == {3600}
    assert info.last_time == times[-1]
    assert info.constant_rate
    assert caplog.messages == [
        f"{twice} was put together of 2 recordings with clocks of their own: they follow each other"
    ]


def test_its_sound_goes_on_as_well(twice, tmp_path):
    copy_to(twice, tmp_path / "b.mp4")
    sound = packets(tmp_path / "b.mp4", "audio")
    assert len(sound) == len(packets(twice, "audio"))
    frames = sorted(time for time, _ in packets(tmp_path / "b.mp4", "video"))
    half = len(sound) // 2
    apart = [sound[0][0] - frames[0], sound[half][0] - frames[30]]
    assert abs(apart[0] - apart[1]) < Fraction(1, 1000)


@pytest.mark.parametrize("stray", [0, 900_000])
def test_a_stray_time_is_no_restart(stray):
    times = array("q", range(90_000, 450_000, 3600))
    times[50] = stray
    assert find_restarts(times, Fraction(1, 90_000)) == []


def test_shifts_add_up():
    times = array("q", [*range(0, 180_000, 3600)] * 3)
    assert find_restarts(times, Fraction(1, 90_000)) == [(50, 180_000), (100, 360_000)]
