"""Recordings that were put together by joining their files: each begins with its own clock."""

from array import array
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest
from made_videos import copy_to, make_video, packets, ramp, read_all

from skipsr.video.clock import find_restarts, going_on
from skipsr.video.scan import clock_may_restart


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


def test_a_stray_time_of_the_second_packet_is_no_restart():
    times = array("q", range(90_000, 450_000, 3600))
    times[1] = 9_000_000
    assert find_restarts(times, Fraction(1, 90_000)) == []


def test_a_clock_need_not_start_again_at_zero():
    times = array("q", [*range(500_000, 680_000, 3600), *range(90_000, 270_000, 3600)])
    assert find_restarts(times, Fraction(1, 90_000)) == [(50, 590_000)]


@pytest.mark.parametrize(("back", "stays"), [(45_000, 50), (300_000, 5)])
def test_neither_a_short_step_back_nor_a_few_stray_times_are_a_restart(back: int, stays: int):
    times = array("q", range(0, 360_000, 3600))
    for i in range(90, min(100, 90 + stays)):
        times[i] -= back
    more = range(360_000 - back if stays == 50 else 360_000, 540_000, 3600)
    assert find_restarts(array("q", [*times, *more]), Fraction(1, 90_000)) == []


def test_packets_go_on_by_the_last_restart_before_them():
    restarts = [(100, Fraction(2)), (200, Fraction(4))]
    places = [0, 99, 100, 150, 200, None, -1, 300]  # some demuxers tell no place
    packets = [
        SimpleNamespace(pos=place, stream_index=0, pts=i, dts=None, time_base=Fraction(1, 10))
        for i, place in enumerate(places)
    ]
    found = [one.pts for one in going_on(packets, restarts)]  # type: ignore[arg-type]
    assert found == [0, 1, 22, 23, 44, 45, 46, 47]


@pytest.mark.parametrize(
    ("name", "may"), [("a.ts", True), ("a.flv", True), ("a.mp4", False), ("a.mkv", False)]
)
def test_only_clocks_of_streams_start_again(tmp_path, name, may):
    with av.open(str(make_video(tmp_path / name, ramp(30)))) as container:
        assert clock_may_restart(container) is may


def test_shifts_add_up():
    times = array("q", [*range(0, 180_000, 3600)] * 3)
    assert find_restarts(times, Fraction(1, 90_000)) == [(50, 180_000), (100, 360_000)]
