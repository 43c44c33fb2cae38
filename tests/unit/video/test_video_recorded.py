"""Files as cameras, browsers and broadcasters write them, which encoders here do not."""

import re
from array import array
from fractions import Fraction

import av
import numpy as np
import pytest
from made_fields import SIDE, write_fields
from made_videos import copy_to, make_video, packets, ramp, read_all

from skipsr.errors import SettingsError
from skipsr.video import probe
from skipsr.video.scan import Scan


@pytest.mark.parametrize("apart", [True, False])
def test_fields_that_are_packets_of_their_own_are_no_frames(tmp_path, apart):
    path = write_fields(tmp_path / "a.ts", [*range(60, 180, 10)], apart=apart)
    info, frames, times = read_all(path)
    assert frames.shape == (12, SIDE, SIDE, 3)
    assert (info.frames, info.rate, info.constant_rate) == (12, 25, True)
    assert np.diff(times).tolist() == [3600] * 11
    assert info.last_time == times[-1]
    levels = frames.mean((1, 2, 3))
    assert np.allclose(np.diff(levels), 10 * 255 / 219, atol=1)


def in_milliseconds(path, times):
    """What a browser records: WebM that states no rate."""
    frames = ramp(len(times))
    webm = make_video(
        path, frames, codec="libvpx", options={"b": "400k"}, rate=30, times=times,
        time_base=Fraction(1, 1000),
    )  # fmt: skip
    data = bytearray(webm.read_bytes())
    at = data.index(b"\x23\xe3\x83")  # DefaultDuration becomes a void of its length
    length = data[at + 3] & 0x7F
    data[at : at + 4 + length] = bytes([0xEC, 0x80 | (length + 2)]) + bytes(length + 2)
    webm.write_bytes(data)
    with av.open(str(webm)) as container:
        assert container.streams.video[0].average_rate is None
    return webm


def test_a_rate_that_is_not_stated_is_that_of_the_frames(tmp_path):
    times = [0, *np.cumsum([33, 34, 66, 33, 17, 50, 41, 24] * 3).tolist()]
    path = in_milliseconds(tmp_path / "a.webm", times)
    assert float(probe(path).rate) == pytest.approx(24 / 0.894, rel=1e-3)
    assert copy_to(path, tmp_path / "b.webm", codec="av1") == 25
    with av.open(str(tmp_path / "b.webm")) as container:
        found = [round(1000 * frame.time) for frame in container.decode(video=0)]
    assert found == times


def test_a_stated_rate_of_the_clock_is_none(tmp_path):
    path = make_video(
        tmp_path / "a.webm", ramp(10), codec="libvpx", options={"b": "400k"}, rate=1000,
        times=[40 * i for i in range(10)], time_base=Fraction(1, 1000),
    )  # fmt: skip
    assert probe(path).rate == 25


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_of_a_dvd_that_begins_late_is_kept(tmp_path, suffix):
    """FFmpeg looks at the first 5 MB for streams, and a little at the end."""
    path = tmp_path / "a.vob"
    with av.open(str(path), "w", format="vob") as output:
        video = output.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        picture = av.VideoFrame.from_ndarray(ramp(1)[0], "rgb24")
        (intra,) = [bytes(p) for p in [*video.encode(picture), *video.encode(None)]]
        intra += bytes(200_000)  # stuffing
        sound = output.add_stream("mp2", rate=48000)
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), "s16", "stereo")
        chunk.sample_rate = 48000
        silence = bytes(next(p for _ in range(3) for p in sound.encode(chunk)))
        late = output.add_stream_from_template(sound)
        for index in range(80):
            for stream, data in ((video, intra), (sound, silence), (late, silence)):
                if stream is not late or index in range(60, 66):
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = stream, Fraction(1, 25)
                    packet.pts = packet.dts = index
                    output.mux_one(packet)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    result = tmp_path / f"b{suffix}"
    assert copy_to(path, result) == 80
    with av.open(str(result)) as container:
        assert len(container.streams.audio) == 2
        times = [float(p.pts * p.time_base) for p in container.demux(audio=1) if p.size]
    assert len(times) == 6
    assert times[0] == pytest.approx(60 / 25, abs=0.1)


def test_a_rate_is_one_that_encoders_take():
    times = array("q", [0, 900_001, 3_000_000_019])
    rate = Scan(times, 3, 0.0, 0, ()).rate(Fraction(1, 90_000), None)
    assert max(rate.as_integer_ratio()) < 2**31
    assert float(rate) == pytest.approx(2 * 90_000 / 3_000_000_019, rel=1e-6)


def test_two_frames_have_a_rate():
    assert Scan(array("q", [0, 3600]), 2, 0.0, 0, ()).rate(Fraction(1, 90_000), None) == 25


def frames_at(*times):
    """Frames that were decoded, of which only when they are shown matters."""
    frames = [av.VideoFrame(16, 16, "gray") for _ in times]
    for frame, time in zip(frames, times, strict=True):
        frame.pts = time
    return frames


def test_second_fields_are_no_frames():
    """They come half a frame after the first ones; a frame is as long as the shortest."""
    fields = array("q", [0, 2, 4, 6, 12, 14])  # one frame is missing
    keys = ((0, -4), (2, -2), (12, 10))
    scan = Scan(fields, 6, 1.0, 2, (), keys)
    found = scan.without_second_fields(frames_at(0, 4, 12))
    assert (found.times, found.packets, found.duration) == (array("q", [0, 4, 12]), 3, 0)
    assert found.keys == ((0, -4), (12, 10))


@pytest.mark.parametrize(
    ("times", "packets", "shown"),
    [
        ([0, 4, 8], 3, (0, 4, 8)),  # no second fields
        ([0, 2, 4], 5, (0,)),  # one frame does not tell how far apart they are
        ([0, 4], 5, (0, 4)),  # too few have times
    ],
)
def test_what_is_not_in_fields_stays(times, packets, shown):
    scan = Scan(array("q", times), packets, 1.0, 4, ())
    assert scan.without_second_fields(frames_at(*shown)) is scan


def test_a_time_far_from_the_others_is_none_of_the_rate(tmp_path):
    path = tmp_path / "a.ivf"
    data = bytearray(make_video(path, ramp(4), codec="libvpx", rate=25).read_bytes())
    at = 32  # of each frame its size, its time, and itself
    for _ in range(3):
        at += 12 + int.from_bytes(data[at : at + 4], "little")
    data[at + 4 : at + 12] = (2**40 + 11).to_bytes(8, "little")
    path.write_bytes(data)
    assert probe(path).rate == 25
    assert copy_to(path, tmp_path / "b.mkv") == 4


def test_av1_takes_any_rate(tmp_path):
    path = make_video(
        tmp_path / "a.mkv", ramp(6), codec="ffv1", pix_fmt="bgr0", rate=500, options={"level": "3"}
    )
    assert copy_to(path, tmp_path / "b.mkv", codec="av1", size=(64, 96)) == 6


def test_an_flv_whose_clock_starts_again_goes_on(tmp_path):
    path = tmp_path / "a.flv"
    once = make_video(path, ramp(30), audio_seconds=1.2).read_bytes()
    path.write_bytes(once + once[13:])  # without the second header
    _, frames, times = read_all(path)
    assert len(frames) == 60
    assert np.diff(times).min() > 20
    copy_to(path, tmp_path / "b.mkv")
    assert len(packets(tmp_path / "b.mkv", "audio")) == len(packets(path, "audio"))


def test_avi_packets_without_a_frame_keep_their_time(tmp_path):
    once = make_video(
        tmp_path / "a.avi", ramp(20), codec="mpeg4", options={"g": "1", "qmin": "1", "qmax": "2"}
    )
    path = tmp_path / "b.avi"
    with av.open(str(once)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(p for p in source.demux(video=0) if p.size):
            kept = packet
            if index in (7, 8):  # an XviD encoder's "as before"
                kept = av.Packet(_not_coded(index))
                kept.pts, kept.dts, kept.time_base = packet.pts, packet.dts, packet.time_base
            kept.stream = stream
            output.mux(kept)
    _, frames, times = read_all(path)
    shown = (frames.mean((1, 2, 3)) / 8 - 1).round().tolist()
    assert shown == [0, 1, 2, 3, 4, 5, 6, *range(9, 20)]
    assert [time - times[0] for time in times] == shown


def _not_coded(time):
    """An MPEG-4 picture that says no more than when it is."""
    bits = f"0101{time % 25:05b}10"
    bits += "0" + "1" * ((-len(bits) - 1) % 8)
    return b"\0\0\1\xb6" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


@pytest.mark.parametrize("bits", [8, 10])
def test_grey_of_limited_range_is_widened(tmp_path, bits):
    """As HEVC without colour; PyAV's swscale takes all grey for full."""
    frames = [np.full((64, 64, 3), level, np.uint8) for level in (0, 128, 255)]
    pix_fmt = "gray" if bits == 8 else "gray10le"
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(
            "libx265", rate=25, options={"crf": "0", "x265-params": "log-level=none"}
        )
        stream.width = stream.height = 64
        stream.pix_fmt = pix_fmt
        stream.codec_context.color_range = 1
        for index, level in enumerate((16, 126, 235)):
            plane = np.full((64, 64), level << (bits - 8), np.uint8 if bits == 8 else np.uint16)
            frame = av.VideoFrame.from_ndarray(plane, format=pix_fmt)
            frame.color_range, frame.pts = 1, index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    _, found, _ = read_all(path)
    assert np.abs(found - np.stack(frames)).max() < 1.1


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_colour_is_where_light_is(tmp_path, codec):
    """An edge of both, as smooth as half the colour allows; the file says how they lie."""
    edge = 1 / (1 + np.exp(-(np.arange(128) - 64) / 3))
    picture = np.stack([60 + 30 * edge, 60 + 90 * edge, 80 + 150 * edge], -1).round()
    picture = np.broadcast_to(picture, (64, 128, 3)).astype(np.uint8)
    source = make_video(
        tmp_path / "a.mkv", [picture], codec="ffv1", pix_fmt="bgr0", options={"level": "3"}
    )
    copy_to(source, tmp_path / "b.mp4", codec=codec, crf=1)
    found = read_all(tmp_path / "b.mp4")[1][0, 32]
    light = found @ [0.299, 0.587, 0.114]
    assert abs(_crossing(light) - _crossing(found[:, 2] - light)) < 0.2  # it was half a pixel


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libsvtav1"])
def test_colour_lies_left_where_nothing_is_said(tmp_path, codec, monkeypatch):
    """As in the H.264 that such files are mostly made of."""
    monkeypatch.setenv("SVT_LOG", "0")
    wide, high = 128, 64

    def plane(low, rise, places):
        line = low + rise / (1 + np.exp(-(places - 64) / 3))
        return np.broadcast_to(line.round().astype(np.uint8), (high * len(line) // wide, len(line)))

    sides = plane(110, 40, np.arange(0, wide, 2)), plane(128, 0, np.arange(0, wide, 2))
    parts = [plane(60, 100, np.arange(wide)), *sides]
    planes = np.concatenate([part.reshape(-1, wide) for part in parts])
    options = {"crf": "5", "b": "0"} if codec == "libvpx-vp9" else {"crf": "5"}
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    found = read_all(tmp_path / "a.mkv")[1][0, 32]
    light = found @ [0.299, 0.587, 0.114]
    assert abs(_crossing(light) - _crossing(found[:, 2] - light)) < 0.25  # it was half a pixel


def _crossing(line):
    """Where a rising line passes its middle."""
    middle = (line[:10].mean() + line[-10:].mean()) / 2
    at = int(np.argmax(line > middle))
    return at - 1 + (middle - line[at - 1]) / (line[at] - line[at - 1])


def test_pictures_that_begin_after_the_sound_are_none_for_avi(tmp_path):
    times = [25 + i for i in range(10)]
    path = make_video(tmp_path / "a.mkv", ramp(10), times=times, audio_seconds=1.4)
    with pytest.raises(SettingsError, match=r"begin after its sound, which \.avi cannot hold"):
        copy_to(path, tmp_path / "b.avi", codec="ffv1")
    silent = make_video(tmp_path / "c.mkv", ramp(10), times=times)
    assert copy_to(silent, tmp_path / "d.avi", codec="ffv1") == 10


def test_timecode_is_kept_from_matroska(tmp_path):
    path, target = tmp_path / "a.mkv", tmp_path / "b.mov"
    once = make_video(tmp_path / "once.mkv", ramp(5))
    with av.open(str(once)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        stream.metadata["timecode"] = "01:00:00:00"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    copy_to(path, target)
    with av.open(str(target)) as container:
        assert container.streams.video[0].metadata["timecode"] == "01:00:00:00"


def test_captions_and_data_that_are_left_out_are_told(tmp_path, caplog):
    bare = make_video(tmp_path / "a.h264", ramp(5), options={"bf": "0"})
    captions = bytes([0xB5, 0, 0x31]) + b"GA94" + bytes([3, 0xC1, 0xFF, 0xFC, 0x94, 0x2C, 0xFF])
    unit = b"\0\0\0\1\x06" + bytes([4, len(captions)]) + captions + b"\x80"
    data = re.sub(
        rb"(?=\x00\x00\x00\x01[\x65\x41\x01]|(?<!\x00)\x00\x00\x01[\x65\x41\x01])",
        lambda _: unit,
        bare.read_bytes(),
    )
    bare.write_bytes(data)
    path = tmp_path / "b.ts"
    with av.open(str(bare)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        telemetry = output.add_data_stream("klv")
        for time, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = time
            output.mux(packet)
            extra = av.Packet(b"0123456789")
            extra.stream, extra.time_base = telemetry, Fraction(1, 25)
            extra.pts = extra.dts = time
            output.mux(extra)
    copy_to(path, tmp_path / "c.mkv")
    assert f"{path}: its closed captions are left out" in caplog.messages
    assert f"{path}: 1 stream of data left out: sound and texts are copied" in caplog.messages
