"""What a result keeps of its source beyond pixels, and the warnings about what it cannot."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorTrc
from made_videos import copy_to, make_video, packets, patches, ramp, read_all

from skipsr.video import open_source, open_target, probe
from skipsr.video.color import ColorTags, FrameMaker, Matrix
from skipsr.video.encode import VideoEncoder
from skipsr.video.light import Light, source_light

LIGHT = (
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    ":max-cll=1000,400"
)


def lossless(path, pix_fmt, bits=8, codec="ffv1"):
    image = patches(bits=bits)
    options = {"level": "3"} if codec == "ffv1" else {}
    return make_video(path, [image] * 2, codec=codec, pix_fmt=pix_fmt, options=options)


def stored(path):
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.pix_fmt


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("source", "codec", "suffix", "result"),
    [
        ("yuv444p", "h265", ".mp4", "yuv444p"),
        ("yuv422p", "h265", ".mp4", "yuv422p"),
        ("yuv440p", "h265", ".mkv", "yuv444p"),
        ("yuv411p", "h265", ".mkv", "yuv422p"),
        ("yuv420p", "h265", ".mp4", "yuv420p"),
        ("gray", "h265", ".mp4", "yuv420p"),
        ("bgr0", "h265", ".mp4", "yuv420p"),
        ("yuv444p10le", "h265", ".mp4", "yuv444p10le"),
        ("yuv422p10le", "h265", ".mov", "yuv422p10le"),
        ("yuv444p10le", "prores", ".mov", "yuv444p12le"),
        ("yuv420p", "prores", ".mov", "yuv422p10le"),
        ("yuv444p", "h264", ".mp4", "yuv420p"),
        ("yuv422p10le", "h264", ".mp4", "yuv420p10le"),
        ("yuv444p", "av1", ".mp4", "yuv420p"),
        ("yuv444p", "ffv1", ".mkv", "bgr0"),
    ],
)
def test_chroma_is_kept_or_missed(tmp_path, caplog, source, codec, suffix, result):
    path = lossless(tmp_path / "a.mkv", source, bits=16 if "10" in source else 8)
    copy_to(path, tmp_path / f"b{suffix}", codec=codec)
    assert stored(tmp_path / f"b{suffix}") == result
    before, after = read_all(path)[1], read_all(tmp_path / f"b{suffix}")[1]
    assert np.abs(after - before)[0, 8::16, 8::16].max() < 6
    missed = codec in ("h264", "av1") or source == "bgr0"
    told = [f"{path}: {codec} stores less colour detail than it has: `codec` ffv1 keeps all of it"]
    assert messages(caplog) == (told if missed else [])


def test_a_result_of_twice_the_size_misses_no_chroma(tmp_path, caplog):
    copy_to(lossless(tmp_path / "a.mkv", "yuv444p"), tmp_path / "b.mp4", size=(96, 128))
    assert stored(tmp_path / "b.mp4") == "yuv420p"
    assert not caplog.records


def test_a_smaller_result_of_a_usual_source_raises_no_alarm(tmp_path, caplog):
    copy_to(lossless(tmp_path / "a.mkv", "yuv420p"), tmp_path / "b.mp4", size=(24, 32))
    assert not caplog.records


def test_a_turned_source_keeps_its_chroma_across(tmp_path):
    image = patches(64, 96)
    path = make_video(
        tmp_path / "a.mp4", [image], pix_fmt="yuv422p", options={"crf": "4"}, rotation=90
    )
    with open_source(path) as source:
        assert source.info.chroma_step == (1, 2)
    copy_to(path, tmp_path / "b.mp4", codec="h265")
    assert stored(tmp_path / "b.mp4") == "yuv444p"


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mkv", "ffv1", "yuva444p"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_lost_transparency_is_told_once(tmp_path, caplog, name, codec, pix_fmt):
    path = lossless(tmp_path / name, pix_fmt, codec=codec)
    read_all(path)
    assert messages(caplog) == [f"{path} is partly transparent: the transparency is dropped"]


@pytest.mark.parametrize(("least", "told"), [(255, 0), (254, 1)])
def test_an_opaque_alpha_channel_is_no_loss(tmp_path, caplog, least, told):
    pixels = np.dstack([patches(), np.full((48, 64), 255, np.uint8)])
    pixels[5, 7, 3] = least
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        output.mux(stream.encode(None))
    read_all(path)
    assert len(caplog.records) == told


@pytest.fixture(scope="module")
def hdr(tmp_path_factory):
    """HDR10, with a mastering display and light levels."""
    path = tmp_path_factory.mktemp("hdr") / "hdr.mkv"
    tags = ColorTags(matrix=Matrix.BT2020, primaries=9, transfer=int(ColorTrc.SMPTE2084))
    maker = FrameMaker("yuv420p10le", tags)
    with av.open(str(path), "w") as output:
        options = {"x265-params": f"log-level=none:{LIGHT}"}
        stream = output.add_stream("libx265", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, tags.transfer
        for index in range(2):
            frame = maker.make(patches(bits=16))
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("h264", ".mp4"), ("h265", ".mp4"), ("h265", ".mkv"), ("av1", ".mp4"), ("av1", ".webm")],
)
def test_hdr10_metadata_is_carried_over(tmp_path, hdr, codec, suffix):
    copy_to(hdr, tmp_path / f"b{suffix}", codec=codec)
    with open_source(hdr) as before, open_source(tmp_path / f"b{suffix}") as after:
        assert before.info.light is not None
        assert before.info.light.content == after.info.light.content == (1000, 400)
        ours, theirs = before.info.light.display, after.info.light.display
        points = ours.red, ours.green, ours.blue, ours.white
        told = [round(float(number) * 50000) for point in points for number in point]
        assert told == [34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450]
        assert (float(ours.brightest), float(ours.darkest)) == (1000, 0.005)
        for name in ("red", "green", "blue", "white"):
            pairs = zip(getattr(theirs, name), getattr(ours, name), strict=True)
            assert all(abs(a - b) < 1e-4 for a, b in pairs), name
        assert abs(theirs.brightest - ours.brightest) < 0.01
        assert abs(theirs.darkest - ours.darkest) < 1e-4


def test_half_of_hdr10_metadata_is_read_as_what_there_is():
    whole = np.array([1, 2] * 10 + [1, 1], "=i4")
    level = np.array([1000, 400], "=u4")
    for missing in (20, 21):
        half = whole.copy()
        half[missing] = 0
        data = {"MASTERING_DISPLAY_METADATA": half, "CONTENT_LIGHT_LEVEL": level}
        found = source_light(SimpleNamespace(side_data=data))  # type: ignore[arg-type]
        assert found == Light(display=None, content=(1000, 400))
        del data["CONTENT_LIGHT_LEVEL"]
        assert source_light(SimpleNamespace(side_data=data)) is None  # type: ignore[arg-type]


def test_hdr_is_told_once_and_metadata_that_is_lost_too(tmp_path, hdr, caplog):
    sees = f"{hdr} is HDR: its values are enlarged as they are coded, by a model trained on SDR"
    copy_to(hdr, tmp_path / "a.mp4", codec="h265")
    assert messages(caplog) == [sees]
    caplog.clear()
    copy_to(hdr, tmp_path / "b.mov", codec="prores")
    assert sorted(messages(caplog)) == [
        sees,
        f"{hdr}: its HDR10 metadata is left out: prores files hold none",
    ]


def with_streams(path, *, picture=False, videos=1, sound=0.0, other=None, **told):
    """Four frames, with more beside them: a cover, other videos, a tone from `sound` seconds on,
    silence in another codec."""
    clip = make_video(path.with_name("clip.mkv"), ramp(4), audio_seconds=1.0)
    with av.open(str(clip)) as a, av.open(str(path), "w") as output:
        copies = [output.add_stream_from_template(a.streams.video[0]) for _ in range(videos)]
        copies[0].metadata.update(told)
        tone = output.add_stream_from_template(a.streams.audio[0])
        if picture:
            cover = output.add_stream("mjpeg")
            cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
            cover.disposition = Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(patches(), format="rgb24").reformat(
                format="yuvj420p"
            )
            output.mux(cover.encode(frame))
        if other:
            silence = output.add_stream(other, rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
            frame.sample_rate = 48000
            output.mux([*silence.encode(frame), *silence.encode(None)])
        for packet in a.demux():
            if packet.size and packet.stream.type == "audio":
                packet.pts = packet.dts = packet.pts + round(sound / packet.time_base)
                packet.stream = tone
                output.mux(packet)
            elif packet.size:
                for copy in copies:
                    packet.stream = copy
                    output.mux_one(packet)
    return path


def covers(path):
    """The pictures that stand for a file."""
    with av.open(str(path)) as container:
        found = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        return [bytes(next(container.demux(stream))) for stream in found]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cover_is_kept(tmp_path, caplog, suffix):
    source = with_streams(tmp_path / "a.mp4", picture=True)
    assert len(covers(source)) == 1
    copy_to(source, tmp_path / f"b{suffix}")
    assert covers(tmp_path / f"b{suffix}") == covers(source)
    copy_to(tmp_path / f"b{suffix}", tmp_path / "c.mp4")  # from either container
    assert covers(tmp_path / "c.mp4") == covers(source)
    assert not caplog.records


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_part_has_the_cover_of_the_whole(tmp_path, suffix):
    source = tmp_path / f"a{suffix}"
    copy_to(with_streams(tmp_path / "in.mp4", picture=True), source)
    part = probe(source, trim=(Fraction(2, 25), None))
    with open_source(part) as reader, open_target(tmp_path / "b.mp4", part, (48, 64)) as target:
        target.write(next(reader.clips(9, 0)))
    assert target.written == 2
    assert covers(tmp_path / "b.mp4") == covers(source)


def test_a_cover_that_cannot_be_kept_is_told(tmp_path, caplog):
    source = with_streams(tmp_path / "a.mp4", picture=True)
    copy_to(source, tmp_path / "b.mov")
    assert messages(caplog) == [
        f"{source}: cover, video stream 2 (mjpeg), is left out: mov files cannot hold it"
    ]


def test_a_video_without_sound_loses_none_as_images(tmp_path, caplog):
    copy_to(make_video(tmp_path / "a.mp4", ramp(2)), tmp_path / "out")
    assert not caplog.records


def test_other_videos_are_told(tmp_path, caplog):
    source = with_streams(tmp_path / "a.mkv", videos=2)
    copy_to(source, tmp_path / "b.mkv")
    assert messages(caplog) == [f"{source}: video stream 1 (h264) is left out: 0 is enlarged"]


def test_attachments_that_cannot_be_kept_are_told(tmp_path, caplog):
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as output:
        output.add_attachment("serif.ttf", "font/ttf", b"serif")
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(patches(), format="rgb24").reformat(format="yuv420p")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    copy_to(source, tmp_path / "b.mp4")
    assert messages(caplog) == [
        f"{source}: what is attached, as fonts are, is left out: mp4 files cannot hold it"
    ]
    caplog.clear()
    copy_to(source, tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert [stream.name for stream in container.streams.attachments] == ["serif.ttf"]
    assert not caplog.records


def test_a_passing_fault_of_the_disk_costs_no_sound(tmp_path, caplog, monkeypatch):
    source = make_video(tmp_path / "in.mp4", [patches()] * 2, audio_seconds=0.5)
    begin, faults = VideoEncoder._begin, [FFmpegError(5, "Input/output error")]

    def at_first(self, without=()):
        if faults:
            raise faults.pop()
        return begin(self, without)

    monkeypatch.setattr(VideoEncoder, "_begin", at_first)
    copy_to(source, tmp_path / "out.mp4")
    assert not messages(caplog)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1


def test_a_stream_that_fails_late_takes_no_other_with_it(tmp_path, caplog):
    """FFmpeg refuses Opus in .mov only when it writes the header, as TrueHD in .mp4."""
    source = with_streams(tmp_path / "a.mkv", other="libopus")
    copy_to(source, tmp_path / "b.mov")
    assert messages(caplog) == [
        f"{source}: audio stream 2 (opus) is left out: mov files cannot hold it"
    ]
    assert [data for _, data in packets(tmp_path / "b.mov", "audio")] == [
        data for _, data in packets(source, "audio")
    ]


ASPECTS = [("h264", ".mp4"), ("h264", ".mkv"), ("h265", ".mkv"), ("h265", ".ts")]
ASPECTS += [("av1", ".mp4"), ("av1", ".webm"), ("av1", ".mkv"), ("ffv1", ".mkv"), ("ffv1", ".avi")]
ASPECTS += [("prores", ".mov"), ("prores", ".mkv")]


@pytest.mark.parametrize(("codec", "suffix"), ASPECTS)
def test_the_shape_of_pixels_is_kept_or_missed(tmp_path, caplog, codec, suffix):
    source = make_video(tmp_path / "a.mp4", ramp(2), aspect=Fraction(16, 15))
    copy_to(source, tmp_path / f"b{suffix}", codec=codec)
    with open_source(tmp_path / f"b{suffix}") as result:
        kept = result.info.sample_aspect == Fraction(16, 15)
    told = f"{source}: that its pixels are 16:15 is left out, and players show the result squeezed"
    assert kept != any(message.startswith(told) for message in messages(caplog))


def test_what_the_video_says_of_itself_is_kept(tmp_path):
    source = with_streams(tmp_path / "a.mov", language="jpn", timecode="01:00:00:00")
    copy_to(source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        told = container.streams.video[0].metadata
        assert (told["language"], told["timecode"]) == ("jpn", "01:00:00:00")


@pytest.mark.parametrize(("suffix", "most"), [(".mkv", 0.05), (".ts", 0.1), (".mp4", 0.0)])
def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path, suffix, most):
    """As of a clip that was trimmed without encoding it: the sound before it is in the file."""
    source = with_streams(tmp_path / "a.mp4", sound=-0.5)
    assert packets(source, "audio")[0][0] < -0.4
    copy_to(source, tmp_path / f"b{suffix}")
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        starts = [next(container.decode(video=0)).time]
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        starts.append(next(container.decode(audio=0)).time)
    assert abs(starts[0] - starts[1]) <= most
