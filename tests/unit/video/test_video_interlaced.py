from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter
import numpy as np
import pytest
from made_videos import copy_to, make_video, ramp, read_all

from skipsr.video import open_source, probe
from skipsr.video.deinterlace import progressive

FIELDS = {"x264-params": "interlaced=1", "crf": "4"}


def bar(place, height=64, width=96):
    """A bright bar, 16 pixels wide, beginning at column `place`."""
    frame = np.full((height, width, 3), 40, np.uint8)
    frame[:, place : place + 16] = 200
    return frame


def woven(count, bits=8):
    """Frames of a bar that moves 4 pixels per field: odd rows come first, as x264 flags them."""
    frames = []
    for index in range(count):
        frame = bar(8 * index)
        frame[::2] = bar(8 * index + 4)[::2]
        frames.append(frame if bits == 8 else frame.astype(np.uint16) * 257)
    return frames


def combing(frames):
    """How far rows are from the mean of their neighbours, grey levels."""
    return np.abs(frames[:, 1:-1] - (frames[:, :-2] + frames[:, 2:]) / 2).mean((1, 2, 3))


def read_as(path, deinterlace):
    with open_source(probe(path, deinterlace)) as source:
        clips = list(source.clips(4, 0))
    frames = [clip.frames.permute(0, 2, 3, 1).numpy() * 255.0 for clip in clips]
    return np.concatenate(frames), [time for clip in clips for time in clip.times]


@pytest.mark.parametrize(("bits", "pix_fmt"), [(8, "yuv420p"), (16, "yuv420p10le")])
def test_interlaced_frames_are_made_whole_one_for_one(tmp_path, caplog, bits, pix_fmt):
    times = [0, 3003, 6006, 9009, 15000, 18003, 21006, 24009]
    path = make_video(
        tmp_path / "a.mp4", woven(8, bits), options=FIELDS, pix_fmt=pix_fmt, times=times,
        time_base=Fraction(1, 90000),
    )  # fmt: skip
    combed, before = read_as(path, "off")
    caplog.clear()
    whole, after = read_as(path, "auto")
    assert before == after == times
    assert combed.shape == whole.shape
    assert combing(combed).min() > 5
    assert combing(whole).max() < 0.25 * combing(combed).min()  # the first and the last included
    # a frame shows the moment of its own earlier field
    assert np.abs(whole[:, 1::2] - combed[:, 1::2]).max() < 1
    assert [record.message for record in caplog.records] == [
        f"{path} is interlaced: it is deinterlaced as it is read"
    ]


def test_a_single_interlaced_frame_comes_out(tmp_path):
    path = make_video(tmp_path / "a.mp4", woven(1), options=FIELDS)
    assert len(read_as(path, "auto")[0]) == 1


def test_interlaced_frames_can_be_taken_as_they_are(tmp_path, caplog):
    path = make_video(tmp_path / "a.mp4", woven(3), options=FIELDS)
    assert combing(read_as(path, "off")[0]).min() > 5
    assert caplog.text.count("is interlaced: it is taken as it is") == 1


def test_progressive_frames_are_untouched(tmp_path, caplog):
    path = make_video(tmp_path / "a.mp4", [bar(8 * index) for index in range(6)])
    assert np.array_equal(read_as(path, "auto")[0], read_as(path, "off")[0])
    assert not caplog.records


def decoded(path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(video=0)


@pytest.mark.parametrize(("order", "first"), [("tff", 0), ("bff", 1)])
def test_the_field_that_comes_first_is_kept(tmp_path, order, first):
    path = make_video(tmp_path / "a.mp4", woven(4))
    with open_source(path) as source:
        info = source.info
    graph = av.filter.Graph()
    with av.open(str(path)) as container:
        video = graph.add_buffer(template=container.streams.video[0])
        graph.link_nodes(video, graph.add("setfield", order), graph.add("buffersink")).configure()
        flagged = []
        for frame in container.decode(video=0):
            graph.vpush(frame)
            flagged.append(graph.vpull())
    for before, after in zip(flagged, progressive(iter(flagged), info), strict=True):
        same = (before.to_ndarray()[:64] == after.to_ndarray()[:64]).all(1)  # rows of luma
        assert same[first::2].all()
        assert not same[1 - first :: 2].all()


def test_only_the_interlaced_part_of_a_source_changes(tmp_path):
    plain = make_video(tmp_path / "a.mp4", [bar(8 * index) for index in range(3)])
    fields = make_video(tmp_path / "b.mp4", woven(3), options=FIELDS)
    with open_source(fields) as source:
        info = source.info
    parts = (plain, fields, plain)
    before = [frame for part in parts for frame in decoded(part)]
    after = list(progressive((frame for part in parts for frame in decoded(part)), info))
    assert [frame.pts for frame in after] == [frame.pts for frame in before]
    same = [
        np.array_equal(a.to_ndarray(), b.to_ndarray()) for a, b in zip(before, after, strict=True)
    ]
    assert same == [True] * 3 + [False] * 3 + [True] * 3


def test_a_change_of_size_loses_no_frame(tmp_path):
    parts = [
        make_video(tmp_path / f"{side}.mp4", ramp(3, side, side), options=FIELDS)
        for side in (64, 96)
    ]
    with open_source(parts[0]) as source:
        frames = progressive((frame for part in parts for frame in decoded(part)), source.info)
        assert [frame.width for frame in frames] == [64] * 3 + [96] * 3


def test_the_result_of_an_interlaced_source_is_progressive(tmp_path):
    source = make_video(tmp_path / "a.mp4", woven(4), options=FIELDS)
    copy_to(source, tmp_path / "b.mkv", codec="ffv1")
    assert not any(frame.interlaced_frame for frame in decoded(tmp_path / "b.mkv"))
    assert combing(read_all(tmp_path / "b.mkv")[1]).max() < 2
