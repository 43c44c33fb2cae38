import errno
import logging
import os
import stat
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorTrc
from made_models import make_frames
from made_videos import copy_to, make_video, packets, patches, ramp, read_all
from PIL import Image

from skipsr.clip import Clip
from skipsr.errors import Cancelled, MediaError, SettingsError
from skipsr.settings import Encoding, JobSettings
from skipsr.tracing import Trace
from skipsr.video import check_target, formats, frames_info, open_source, open_target, side_step
from skipsr.video.color import ColorTags, FrameMaker, Matrix
from skipsr.video.encode import VideoEncoder
from skipsr.video.formats import VideoSpec
from skipsr.video.gif import GifEncoder

OUTPUTS = [
    ("h264", ".mp4"),
    ("h264", ".ts"),
    ("h265", ".mov"),
    ("h265", ".ts"),
    ("av1", ".mkv"),
    ("av1", ".webm"),
    ("ffv1", ".mkv"),
    ("ffv1", ".avi"),
    ("prores", ".mov"),
]


@pytest.fixture
def clip(tmp_path):
    """Twelve frames of 64x48 at 25 per second, with sound."""
    return make_video(tmp_path / "source.mp4", ramp(12), audio_seconds=0.5, title="A title")


def leftovers(folder):
    return [file.name for file in folder.iterdir() if ".part" in file.name]


@pytest.mark.parametrize(("codec", "suffix"), OUTPUTS)
def test_each_codec_reads_back(tmp_path, clip, codec, suffix, capfd):
    target = tmp_path / f"out{suffix}"
    assert copy_to(clip, target, codec=codec) == 12
    info, frames, _ = read_all(target)
    assert (info.frames, len(frames), info.rate) == (12, 12, 25)
    expected = read_all(clip)[1]
    assert np.abs(frames - expected).max() <= (0.01 if codec == "ffv1" else 3)
    assert info.bits == (16 if codec == "prores" else 8)
    assert leftovers(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("codec", "suffix", "pixel_format"),
    [
        ("h264", ".mp4", "yuv420p10le"),
        ("h265", ".mp4", "yuv420p10le"),
        ("av1", ".mp4", "yuv420p10le"),
        ("ffv1", ".mkv", "gbrp16le"),
        ("prores", ".mov", "yuv422p10le"),
    ],
)
def test_deep_sources_stay_deep(tmp_path, codec, suffix, pixel_format):
    image = patches(bits=16)
    options = {"level": "3"}
    source = make_video(
        tmp_path / "a.mkv", [image] * 2, codec="ffv1", pix_fmt="yuv420p10le", options=options
    )
    target = tmp_path / f"b{suffix}"
    copy_to(source, target, codec=codec, crf=None if codec in ("ffv1", "prores") else 4)
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == pixel_format
    before, after = read_all(source)[1], read_all(target)[1]
    assert np.abs(after - before)[0, 8::16, 8::16].max() < 2.5


def test_the_same_frames_make_the_same_file(tmp_path):
    """With AVX-512 x264 once made 16 files of 25 that were encoded of such frames."""
    clip = Clip(torch.from_numpy(make_frames(12, 90, 160)).permute(0, 3, 1, 2).float() / 255)
    made: set[bytes] = set()
    held: list[np.ndarray] = []  # so that memory is not what it was
    for turn in range(12):
        path = tmp_path / f"{turn}.mp4"
        with open_target(path, frames_info((90, 160), rate=25), (90, 160)) as target:
            target.write(clip)
        made.add(path.read_bytes())
        held.append(np.full(7919 * (turn + 1), turn / 7))
    assert len(made) == 1


def test_h265_is_tagged_for_apple(tmp_path, clip):
    copy_to(clip, tmp_path / "out.mp4", codec="h265")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize(("frames", "files"), [(1, 20), (2, 100)])
def test_short_clips_in_deep_h265_are_finished_every_time(tmp_path, frames, files):
    """x265 gives decoding times at random to clips of up to two frames, which mp4 cannot hold."""
    source = make_video(
        tmp_path / "a.mkv", ramp(frames), codec="ffv1", pix_fmt="yuv420p10le",
        options={"level": "3"},
    )  # fmt: skip
    with open_source(source) as opened:
        info = opened.info
    pixels = np.zeros((48, 64, 3), np.uint16)
    for index in range(files):
        encoder = VideoEncoder(
            tmp_path / f"{index}.mp4", VideoSpec(info, (48, 64), Encoding(codec="h265"))
        )
        for time in range(frames):
            encoder.encode(pixels, 40 * time)
        encoder.finish()  # raises unless the file holds its frames
    result, _, times = read_all(tmp_path / "0.mp4")
    assert [time * result.time_base for time in times] == [Fraction(i, 25) for i in range(frames)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_variable_rate_times_are_kept_exactly(tmp_path, suffix):
    base = Fraction(1, 1000 if suffix == ".mkv" else 90000)
    times = [0, 3003, 4500, 12000, 12001, 40000]
    source = make_video(tmp_path / "a.mp4", ramp(6), times=times, time_base=base)
    copy_to(source, tmp_path / f"b{suffix}", window=4)
    info, _, after = read_all(tmp_path / f"b{suffix}")
    assert [t * info.time_base for t in after] == [t * base for t in times]


@pytest.mark.parametrize(
    ("codec", "suffix"), [("h264", ".mkv"), ("av1", ".mp4"), ("prores", ".mov")]
)
def test_the_last_frame_is_shown_as_long(tmp_path, codec, suffix):
    """As that of a recorded screen, or of a GIF."""
    images = [Image.fromarray(frame) for frame in ramp(3)]
    source = tmp_path / "a.gif"
    images[0].save(source, save_all=True, append_images=images[1:], duration=[100, 200, 1500])
    copy_to(source, tmp_path / f"b{suffix}", codec=codec)
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        assert container.duration == 1_800_000  # microseconds


def test_ntsc_rate_is_exact(tmp_path):
    base = Fraction(1001, 30000)
    source = make_video(tmp_path / "a.mp4", ramp(5), rate=30, time_base=base, times=list(range(5)))
    copy_to(source, tmp_path / "b.mp4")
    info, _, times = read_all(tmp_path / "b.mp4")
    assert [t * info.time_base for t in times] == [i * base for i in range(5)]
    assert info.rate == Fraction(30000, 1001)


def test_a_late_start_is_kept(tmp_path):
    times = [512 * i + 5120 for i in range(6)]
    source = make_video(
        tmp_path / "a.mp4", ramp(6), times=times, time_base=Fraction(1, 12800), audio_seconds=0.5
    )
    copy_to(source, tmp_path / "b.mp4")
    assert read_all(tmp_path / "b.mp4")[2] == times
    assert packets(tmp_path / "b.mp4", "audio") == packets(source, "audio")


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "h264"), ("a.webm", "av1")])
def test_no_id_of_a_file_is_random(tmp_path, name, codec):
    made: set[bytes] = set()
    for turn in range(2):
        path = tmp_path / str(turn) / name
        path.parent.mkdir()
        with open_target(path, frames_info((64, 64)), (64, 64), Encoding(codec=codec)) as target:
            target.write(Clip(torch.zeros(2, 3, 64, 64)))
        made.add(path.read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
def test_audio_is_copied_and_in_step(tmp_path, clip, suffix):
    target = tmp_path / f"out{suffix}"
    copy_to(clip, target)
    before, after = packets(clip, "audio"), packets(target, "audio")
    payload = slice(7, None) if suffix == ".ts" else slice(None)  # MPEG-TS adds 7 bytes (ADTS)
    assert [data[payload] for _, data in after] == [data for _, data in before]
    gap_before = min(packets(clip, "video"))[0] - before[0][0]
    gap_after = min(packets(target, "video"))[0] - after[0][0]
    assert abs(gap_before - gap_after) <= Fraction(1, 1000)
    with av.open(str(target)) as container:
        assert suffix == ".ts" or container.metadata["title"] == "A title"


def test_an_mpeg_ts_starts_at_zero_elsewhere(tmp_path, clip):
    copy_to(clip, tmp_path / "a.ts")
    info, _, times = read_all(tmp_path / "a.ts")
    assert info.origin > 0
    copy_to(tmp_path / "a.ts", tmp_path / "b.mp4")
    again = read_all(tmp_path / "b.mp4")
    seconds = [(t - info.origin) * info.time_base for t in times]
    assert [t * again[0].time_base for t in again[2]] == seconds
    assert 0 <= seconds[0] < 0.2


def add_subtitles(clip, path):
    """The clip with a text subtitle, as Matroska."""
    subtitles = clip.with_name("s.srt")
    subtitles.write_text("1\n00:00:00,040 --> 00:00:00,300\nHello\n\n")
    with av.open(str(clip)) as a, av.open(str(subtitles)) as b, av.open(str(path), "w") as output:
        inputs = [*a.streams, b.streams.subtitles[0]]
        copies = {stream: output.add_stream_from_template(stream) for stream in inputs}
        for packet in [*b.demux(), *a.demux()]:
            if packet.size:
                packet.stream = copies[packet.stream]
                output.mux(packet)
    return path


def test_subtitles_are_copied_or_left_out_with_a_warning(tmp_path, clip, caplog):
    source = add_subtitles(clip, tmp_path / "with.mkv")
    copy_to(source, tmp_path / "out.mkv")
    assert packets(tmp_path / "out.mkv", "subtitles") == packets(source, "subtitles")
    assert not caplog.records
    copy_to(source, tmp_path / "out.mp4")
    assert "subtitle stream 2 (subrip) is left out" in caplog.text
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_pixel_aspect_is_carried_over(tmp_path):
    source = make_video(tmp_path / "a.mp4", ramp(2), aspect=Fraction(16, 11))
    copy_to(source, tmp_path / "b.mp4")
    with open_source(tmp_path / "b.mp4") as result:
        assert result.info.sample_aspect == Fraction(16, 11)


def test_rotation_is_not_applied_twice(tmp_path):
    source = make_video(tmp_path / "a.mp4", [patches()], rotation=90)
    copy_to(source, tmp_path / "b.mp4")
    before, after = read_all(source), read_all(tmp_path / "b.mp4")
    assert (after[0].height, after[0].width, after[0].turns) == (64, 48, 0)
    assert np.abs(after[1] - before[1])[0, 8::16, 8::16].max() <= 4


@pytest.mark.parametrize("codec", ["ffv1", "h264", "prores"])
def test_odd_sizes(tmp_path, codec):
    image = patches(47, 63)
    source = make_video(
        tmp_path / "a.mkv", [image] * 2, codec="ffv1", pix_fmt="bgr0", options={"level": "3"}
    )
    target = tmp_path / "b.mkv"
    size = JobSettings(scale=1).size(47, 63, side_step(target, codec))
    assert size == ((47, 63) if codec == "ffv1" else (48, 64))
    copy_to(source, target, codec=codec, size=size)
    info, frames, _ = read_all(target)
    assert (info.height, info.width) == size
    assert codec != "ffv1" or np.abs(frames[0] - image).max() < 0.01


def test_writing_is_timed_and_the_order_is_checked(tmp_path, clip):
    with Trace() as trace, open_source(clip) as source:
        clips = list(source.clips(4, 0))
        with open_target(tmp_path / "b.mp4", source.info, (48, 64)) as target:
            target.write(clips[0])
            with pytest.raises(ValueError, match="frame 0 comes after frame 3"):
                target.write(clips[0])
            with pytest.raises(ValueError, match="frames of"):
                target.write(Clip(torch.zeros(1, 3, 8, 8), 4))
    assert set(trace.seconds) == {"read", "write"}
    assert len(read_all(tmp_path / "b.mp4")[1]) == 4


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "frames"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_finished_is_kept_after_an_exception(tmp_path, clip, name, error):
    """Under another name each time, which the exception tells; only so much of the sound."""
    before = set(tmp_path.iterdir())

    def fail():
        with (
            open_source(clip) as source,
            open_target(tmp_path / name, source.info, (48, 64)) as target,
        ):
            for part in source.clips(4, 0):
                target.write(part)
                assert leftovers(tmp_path)
                raise error

    stem, dot, suffix = name.partition(".")
    for end in ("", "-2"):
        with pytest.raises(error) as caught:
            fail()
        kept = tmp_path / f"{stem}.partial{end}{dot}{suffix}"
        assert caught.value.__notes__ == [f"the 4 frames finished before that are in {kept}"]
        before.add(kept)
        assert set(tmp_path.iterdir()) == before
        assert len(read_all(kept)[1]) == 4
    if dot:
        sound = [len(packets(file, "audio")) for file in (kept, clip)]
        assert 0 < sound[0] < sound[1]


def test_an_image_is_whole_or_nothing(tmp_path):
    info = frames_info((8, 8), count=1)

    def fail():
        with open_target(tmp_path / "a.png", info, (8, 8)) as target:
            target.write(Clip(torch.zeros(1, 3, 8, 8)))
            raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert not hasattr(caught.value, "__notes__")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_of_what_was_cancelled(tmp_path):
    def cancel():
        with open_target(tmp_path / "a.mp4", frames_info((48, 64)), (48, 64)) as target:
            target.write(Clip(torch.zeros(2, 3, 48, 64)))
            raise Cancelled

    with pytest.raises(Cancelled) as caught:
        cancel()
    assert not hasattr(caught.value, "__notes__")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "frames"])
def test_what_has_its_name_is_on_the_disk(tmp_path, monkeypatch, name):
    synced: set[int] = set()
    fsync, replace, rename = os.fsync, Path.replace, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(os.fstat(fd).st_ino), fsync(fd)))

    def checked(move):
        def to(part, path):
            files = [part] if part.is_file() else [*part.iterdir()]
            assert {file.stat().st_ino for file in files} <= synced
            return move(part, path)

        return to

    monkeypatch.setattr(Path, "replace", checked(replace))
    monkeypatch.setattr(Path, "rename", checked(rename))
    with open_target(tmp_path / name, frames_info((16, 16)), (16, 16)) as target:
        target.write(Clip(torch.zeros(1, 3, 16, 16)))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert tmp_path.stat().st_ino in synced


def test_a_file_system_that_syncs_no_folders_takes_results(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refuse)
    with open_target(tmp_path / "a.mp4", frames_info((16, 16)), (16, 16)) as target:
        target.write(Clip(torch.zeros(1, 3, 16, 16)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_what_a_killed_process_of_the_same_id_left_is_no_obstacle(tmp_path):
    """In containers every process is number 1."""
    (tmp_path / f".frames.{os.getpid()}.part.dir").mkdir()
    (tmp_path / f".frames.{os.getpid()}.part.dir" / "frame_000009.png").touch()
    with open_target(tmp_path / "frames", frames_info((16, 16)), (16, 16)) as target:
        target.write(Clip(torch.zeros(1, 3, 16, 16)))
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert files == ["frames", "frames/frame_000001.png"]


def test_frames_need_no_source(tmp_path):
    """Spaced by the rate, or at times of their own."""
    clip = Clip(torch.rand(3, 3, 48, 64))
    for name, times, expected in (("a.mkv", (), [0, 1, 2]), ("b.mkv", (0, 1, 5), [0, 1, 5])):
        info = frames_info((48, 64), rate=10, count=3)
        with open_target(tmp_path / name, info, (48, 64), Encoding(codec="ffv1")) as target:
            target.write(Clip(clip.frames, 0, times))
        found, frames, seen = read_all(tmp_path / name)
        assert [time * found.time_base for time in seen] == [Fraction(n, 10) for n in expected]
        assert np.abs(frames - clip.to_array()).max() < 0.01


def test_two_jobs_with_one_output_do_not_meet(tmp_path, monkeypatch):
    """Each process writes to a name of its own, and the later one replaces nothing unasked."""
    info, clip = frames_info((48, 64)), Clip(torch.rand(2, 3, 48, 64))

    def write_both(overwrite: bool) -> None:
        monkeypatch.setattr("os.getpid", lambda: 2)
        with open_target(tmp_path / "a.mkv", info, (48, 64), overwrite=overwrite) as first:
            first.write(clip)
            monkeypatch.setattr("os.getpid", lambda: 1)
            with open_target(tmp_path / "a.mkv", info, (48, 64), overwrite=overwrite) as second:
                second.write(clip.part(0, 1))
            assert len(read_all(tmp_path / "a.mkv")[1]) == 1

    with pytest.raises(
        MediaError, match=r"a\.mkv has appeared meanwhile: the result is in .*partial"
    ):
        write_both(overwrite=False)
    assert len(read_all(tmp_path / "a.mkv")[1]) == 1
    assert len(read_all(tmp_path / "a.partial.mkv")[1]) == 2
    write_both(overwrite=True)
    assert len(read_all(tmp_path / "a.mkv")[1]) == 2


@pytest.mark.parametrize("stem", ["y" * 251, "\N{HIRAGANA LETTER A}" * 83])
def test_any_name_that_the_disk_takes_will_do(tmp_path, clip, stem):
    assert copy_to(clip, tmp_path / f"{stem}.mp4") == 12
    assert {file.name for file in tmp_path.iterdir()} == {f"{stem}.mp4", clip.name}


def test_nothing_remains_without_frames(tmp_path, clip):
    before = set(tmp_path.iterdir())
    with (
        pytest.raises(MediaError, match="no frame"),
        open_source(clip) as source,
        open_target(tmp_path / "b.mp4", source.info, (48, 64)),
    ):
        pass
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
def test_nothing_remains_of_an_interrupt_before_the_first_frame(tmp_path, monkeypatch, name):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    encoder = GifEncoder if name.endswith("gif") else VideoEncoder
    monkeypatch.setattr(encoder, "say_what_is_lost", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_target(tmp_path / name, frames_info((32, 48)), (32, 48))
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_counted_before_it_gets_its_name(tmp_path, clip, monkeypatch):
    with open_source(clip) as source:
        parts = list(source.clips(4, 0))
        target = open_target(tmp_path / "b.mp4", source.info, (48, 64))
        target.write(parts[0])
        monkeypatch.setattr(target._encoder, "_written", 5)
        with pytest.raises(MediaError, match="4 frames of 5"), target:
            pass
    assert not (tmp_path / "b.mp4").exists()
    assert leftovers(tmp_path) == []


def test_overwriting_needs_leave_and_keeps_the_old_file_on_failure(tmp_path, clip):
    target = tmp_path / "b.mp4"
    target.write_text("old")
    with pytest.raises(SettingsError, match="`overwrite`"):
        copy_to(clip, target)
    with pytest.raises(ValueError, match="frames of"):
        copy_to_wrong_size(clip, target)
    assert target.read_text() == "old"
    copy_to(clip, target, overwrite=True)
    assert len(read_all(target)[1]) == 12


def copy_to_wrong_size(source_path, target_path):
    with (
        open_source(source_path) as source,
        open_target(target_path, source.info, (48, 64), overwrite=True) as target,
    ):
        target.write(Clip(torch.zeros(1, 3, 8, 8)))


@pytest.mark.parametrize(("codec", "width"), [("h265", 2), ("h265", 62), ("av1", 2)])
def test_a_size_the_encoder_refuses_is_one_sentence(tmp_path, codec, width, caplog):
    image = patches(2, width)
    source = make_video(
        tmp_path / "a.mkv", [image], codec="ffv1", pix_fmt="bgr0", options={"level": "3"}
    )
    with pytest.raises(MediaError, match=f"{codec} cannot encode {width}x2 pixels"):
        copy_to(source, tmp_path / "b.mp4", codec=codec)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mkv"]
    assert not caplog.records


def test_broken_audio_times_do_not_stop_the_job(tmp_path, clip, caplog):
    source = tmp_path / "broken.mkv"
    with av.open(str(clip)) as before, av.open(str(source), "w") as output:
        copies = {stream: output.add_stream_from_template(stream) for stream in before.streams}
        for index, packet in enumerate(before.demux()):
            if packet.size:
                if packet.stream.type == "audio" and index % 3 == 0:
                    packet.pts = packet.dts = packet.dts - 1024  # the time of the one before
                packet.stream = copies[packet.stream]
                output.mux(packet)
    assert copy_to(source, tmp_path / "out.mp4") == 12
    assert "packets that are damaged or have broken times are left out" in caplog.text
    assert 0 < len(packets(tmp_path / "out.mp4", "audio")) < len(packets(source, "audio"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_damaged_sound_does_not_stop_the_job(tmp_path, caplog, suffix):
    source = make_video(tmp_path / "a.ts", ramp(12), audio_seconds=0.5)
    sound = [data for _, data in packets(source, "audio")]
    data = bytearray(source.read_bytes())
    at = data.index(sound[9][:16])
    data[at : at + 3] = bytes(3)  # where a frame of AAC says that it is one
    source.write_bytes(data)
    assert copy_to(source, tmp_path / f"b{suffix}") == 12
    assert "1: 1 packets that are damaged" in caplog.text
    kept = [data for _, data in packets(tmp_path / f"b{suffix}", "audio")]
    assert kept == [frame[7:] for frame in [*sound[:9], *sound[10:]]]


def test_hdr_sources_keep_their_tags(tmp_path):
    tags = ColorTags(matrix=Matrix.BT2020, primaries=9, transfer=int(ColorTrc.SMPTE2084))
    frame = FrameMaker("yuv420p10le", tags).make(patches(bits=16))
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, tags.transfer
        context.color_range = 1
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    copy_to(source, tmp_path / "b.mp4", codec="h265", crf=4)
    before, after = read_all(source), read_all(tmp_path / "b.mp4")
    assert before[0].color == after[0].color == tags
    assert np.abs(before[1] - after[1])[0, 8::16, 8::16].max() < 3


def test_the_input_is_never_the_output(tmp_path, clip):
    (tmp_path / "link.mp4").symlink_to(clip)
    with open_source(clip) as source:
        for target in (clip, tmp_path / "link.mp4", tmp_path / "." / "source.mp4"):
            with pytest.raises(SettingsError, match="is the input"):
                check_target(target, source.info, overwrite=True)


@pytest.mark.parametrize(
    ("name", "encoding", "match"),
    [
        ("a.mp4", {"codec": "ffv1"}, r"\.mkv or \.avi"),
        ("a.mp4", {"codec": "prores"}, r"\.mov"),
        ("a.webm", {}, "`codec` av1"),
        ("a.avi", {"codec": "h265"}, "`codec` ffv1"),
        ("a.mkv", {"codec": "ffv1", "crf": 10}, "has no crf"),
        ("a.mov", {"codec": "prores", "crf": 10}, "has no crf"),
        ("a.mp4", {"crf": 60}, "0 to 51"),
        ("a.png", {"crf": 10}, "`crf` is for videos"),
        ("a.mkv", {"codec": "ffv1", "preset": "slow"}, "has no presets"),
        ("a.mp4", {"preset": "6"}, "`preset` 6 is none of `codec` h264: ultrafast, .* placebo"),
        ("a.mp4", {"codec": "av1", "preset": "slow"}, "none of `codec` av1: 13, 12, .* 0"),
        ("a.gif", {"preset": "slow"}, "`preset` is for videos"),
        ("a.xyz", {}, r"\.mp4 .*\.png .*folder"),
        ("no/a.mp4", {}, "does not exist"),
    ],
)
def test_impossible_targets_are_refused_without_a_source(tmp_path, name, encoding, match):
    with pytest.raises(SettingsError, match=match):
        check_target(tmp_path / name, None, Encoding(**encoding))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("codec", "fast", "small"),
    [("h264", "ultrafast", "slow"), ("h265", "ultrafast", "medium"), ("av1", "13", "8")],
)
def test_a_slower_preset_makes_a_smaller_file(tmp_path, codec, fast, small):
    sample = Path(str(files("skipsr.assets"))) / "sample.mp4"
    for preset in (fast, small):
        copy_to(sample, tmp_path / f"{preset}.mp4", codec=codec, preset=preset)
    assert (tmp_path / f"{small}.mp4").stat().st_size < (tmp_path / f"{fast}.mp4").stat().st_size


def test_presets_are_those_of_one_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_available", lambda name: name == "libaom-av1")
    check_target(tmp_path / "a.mp4", frames_info((32, 32)), Encoding(codec="av1"))
    with pytest.raises(SettingsError, match="`preset` is for libsvtav1"):
        check_target(tmp_path / "a.mp4", None, Encoding(codec="av1", preset="8"))


def test_avi_refuses_a_variable_rate(tmp_path):
    times = [0, 10, 20, 300]
    source = make_video(tmp_path / "a.mp4", ramp(4), times=times, time_base=Fraction(1, 250))
    with pytest.raises(SettingsError, match="variable frame rate"):
        copy_to(source, tmp_path / "b.avi", codec="ffv1")


def test_a_full_disk_is_one_sentence(tmp_path, clip, caplog):
    caplog.set_level(logging.DEBUG)
    with open_source(clip) as source:
        parts = list(source.clips(12, 0))
        target = open_target(tmp_path / "b.mp4", source.info, (48, 64))

        def refuse(array, index, time):
            raise OSError(28, "No space left on device")

        target._put = refuse
        with pytest.raises(MediaError, match=r"cannot write .*b\.mp4: No space left"), target:
            target.write(parts[0])
    assert leftovers(tmp_path) == []
