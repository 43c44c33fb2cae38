"""Parts from encoders of their own become one file, as if one encoder had begun anew at each."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from made_videos import make_video, packets, patches, read_all

from skipsr.errors import MediaError
from skipsr.settings import Encoding
from skipsr.video import frames_info, open_parts, open_source, open_target, probe
from skipsr.video.formats import VideoSpec
from skipsr.video.join import Part, join

PLACES = [(0, 7), (7, 9), (9, 10), (10, 18)]  # long, two frames, one frame
# the last part's frames come far slower: its own decoding times would begin before the one before
TIMES = [512 * i + 100 * (i % 3 == 1) for i in range(11)] + [
    9000 * i - 90000 for i in range(11, 18)
]
SIZE = (48, 64)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eighteen frames at uneven times, not square, with sound, a title and a chapter."""
    return make_video(
        tmp_path_factory.mktemp("join") / "source.mp4",
        [np.roll(patches(*SIZE, seed=1), 3 * i, 1) for i in range(18)],
        times=TIMES,
        time_base=Fraction(1, 12800),
        aspect=Fraction(16, 11),
        audio_seconds=3,
        title="A title",
    )


def write(target, clips):
    with target:
        for clip in clips:
            target.write(clip)


def read_clip(path):
    with open_source(path) as opened:
        return next(opened.clips(100, 0))


def joined(source, folder, suffix, codec, info=None, places=PLACES):
    info = info or probe(source)
    clip = read_clip(source)
    parts = open_parts(folder / "parts", folder / f"out{suffix}", info, SIZE, Encoding(codec=codec))
    for start, end in places:
        write(parts.open(start), [clip.part(start, end)])
    parts.join(places, [(clip.times[start], clip.times[end - 1]) for start, end in places])
    assert not (folder / f"out{suffix}").exists()
    parts.place()
    return folder / f"out{suffix}"


def description(path):
    """What a file says of its video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        return {
            "kinds": [one.type for one in container.streams],
            "title": container.metadata.get("title"),
            "duration": container.duration,
            "frames": stream.frames,
            "start": stream.start_time,
            "units": stream.time_base,
            "rate": stream.average_rate,
            "aspect": stream.sample_aspect_ratio,
            "tag": context.codec_tag,
            "headers": context.extradata,
            "pixels": context.pix_fmt,
            "colours": (
                context.color_range, context.colorspace, context.color_primaries, context.color_trc,
            ),
            "reordered": context.has_b_frames,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("h264", ".mp4"),
        ("h264", ".mkv"),
        ("h264", ".ts"),
        ("h265", ".mp4"),
        ("h265", ".ts"),
        ("av1", ".mp4"),
        ("av1", ".webm"),
        ("ffv1", ".mkv"),
        ("prores", ".mov"),
    ],
)
def test_a_joined_file_is_like_one_of_one_encoder(source, tmp_path, codec, suffix):
    whole = tmp_path / f"whole{suffix}"
    # MP4 sums durations as frames are decoded, so that it matters which encoder showed last what
    info = replace(probe(source), last_duration=0)
    write(open_target(whole, info, SIZE, Encoding(codec=codec)), [read_clip(source)])
    path = joined(source, tmp_path, suffix, codec, info)
    assert description(path) == description(whole)
    if "audio" in description(path)["kinds"]:
        assert packets(path, "audio") == packets(whole, "audio")
    (_, ours, times), (_, theirs, expected) = read_all(path), read_all(whole)
    assert times == expected
    assert np.abs(ours - theirs).mean() <= (0 if codec in ("ffv1", "prores") else 2)
    files = sorted((tmp_path / "parts").iterdir())
    assert np.array_equal(ours, np.concatenate([read_all(file)[1] for file in files]))
    with av.open(str(path)) as container:
        decoded = [p.dts for p in container.demux(video=0) if p.dts is not None]
    assert all(a < b for a, b in pairwise(decoded))


def test_a_joined_avi_counts_its_frames(tmp_path):
    images = [np.roll(patches(*SIZE), 3 * i, 1) for i in range(18)]
    path = joined(make_video(tmp_path / "a.mp4", images), tmp_path, ".avi", "ffv1")
    info, frames, times = read_all(path)
    assert (len(frames), info.rate, times) == (18, 25, list(range(18)))


def test_a_joined_start_that_is_late_or_elsewhere_is_kept(tmp_path):
    images = [np.roll(patches(*SIZE), 3 * i, 1) for i in range(18)]
    late = make_video(
        tmp_path / "late.mp4", images, times=[512 * i + 5120 for i in range(18)],
        time_base=Fraction(1, 12800), audio_seconds=0.5,
    )  # fmt: skip
    path = joined(late, tmp_path, ".mp4", "h264")
    assert read_all(path)[2] == read_all(late)[2]
    with av.open(str(path)) as container:
        first, *_ = [p for p in container.demux(video=0) if p.size]
        assert first.pts - first.dts < 5 * 512  # as far as frames are reordered
    stream = make_video(tmp_path / "a.ts", images)
    assert probe(stream).origin
    (tmp_path / "b").mkdir()
    found = read_all(joined(stream, tmp_path / "b", ".mkv", "h265"))
    expected = [(t - probe(stream).origin) * Fraction(1, 90000) for t in read_all(stream)[2]]
    assert [t * found[0].time_base for t in found[2]] == [round(t, 3) for t in expected]


@pytest.mark.parametrize("change", ["frames", "first", "last"])
def test_a_part_that_is_not_what_it_should_be_is_not_joined(source, tmp_path, change):
    info, clip = probe(source), read_clip(source)
    parts = open_parts(tmp_path / "parts", tmp_path / "out.mp4", info, SIZE, Encoding())
    write(parts.open(0), [clip])
    (file,) = parts.files(0, 18)
    part = Part(file, 18, clip.times[0], clip.times[-1])
    with pytest.raises(MediaError, match="holds other frames than it should"):
        join([replace(part, **{change: 17})], tmp_path / "out.mp4", VideoSpec(info, SIZE))
    assert not (tmp_path / "out.mp4").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def copied(path, target, first):
    """A file with the packets of another from the one numbered `first` on; returns their times."""
    with av.open(str(path)) as source, av.open(str(target), "w", format="matroska") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        every = [packet for packet in source.demux(video=0) if packet.size]
        for packet in every[first:]:
            packet.stream = copy
            output.mux(packet)
        return sorted(packet.pts for packet in every[first:])


def test_a_part_that_lacks_its_key_frame_is_not_joined(tmp_path):
    """Its frames are as many as they should be, and none of them can be decoded."""
    info = frames_info(SIZE, rate=1000)  # whose units are Matroska's milliseconds
    images = [np.roll(patches(*SIZE), 3 * i, 1) for i in range(6)]
    whole = make_video(tmp_path / "a.mkv", images, times=range(0, 60, 10), time_base=info.time_base)
    times = copied(whole, tmp_path / "part", 1)
    part = Part(tmp_path / "part", len(times), times[0], times[-1])
    with pytest.raises(MediaError, match="holds other frames than it should"):
        join([part], tmp_path / "out.mp4", VideoSpec(info, SIZE))
    assert not (tmp_path / "out.mp4").exists()


def test_a_part_in_other_units_is_not_joined(source, tmp_path):
    """All times in it are between two units of the source."""
    info, clip = probe(source), read_clip(source)
    parts = open_parts(tmp_path / "parts", tmp_path / "out.mp4", info, SIZE, Encoding())
    write(parts.open(0), [clip])
    (file,) = parts.files(0, 18)
    coarse = replace(info, time_base=info.time_base * 8)
    part = Part(file, 18, 0, clip.times[-1] // 8)
    with pytest.raises(MediaError, match="holds other frames than it should"):
        join([part], tmp_path / "out.mp4", VideoSpec(coarse, SIZE))


def test_parts_follow_each_other(source, tmp_path):
    spec = VideoSpec(probe(source), SIZE)
    parts = [Part(tmp_path / "a", 2, 0, 512), Part(tmp_path / "b", 2, 512, 1024)]
    with pytest.raises(MediaError, match=r"b does not begin after .*a ends"):
        join(parts, tmp_path / "out.mp4", spec)
