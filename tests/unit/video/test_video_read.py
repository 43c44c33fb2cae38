from fractions import Fraction

import av
import numpy as np
import pytest
from made_videos import copy_to, make_video, patches, ramp, read_all

from skipsr.errors import MediaError, SettingsError
from skipsr.tracing import Trace
from skipsr.video import open_source, probe

PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile other.ts\n",
    "m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXT-X-MEDIA-SEQUENCE:0\n"
    "#EXTINF:0.2,\nother.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period>'
    '<AdaptationSet mimeType="video/mp2t"><Representation id="0" bandwidth="1"><BaseURL>other.ts'
    "</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


def test_clips_share_their_overlap_and_cover_every_frame(tmp_path):
    path = make_video(tmp_path / "a.mp4", ramp(10))
    with open_source(path) as source, Trace() as trace:
        clips = list(source.clips(4, 1))
        assert [(clip.start, len(clip)) for clip in clips] == [(0, 4), (3, 4), (6, 4)]
        assert source.info.frames == 10
        times = [time for clip in clips for time in clip.times[clip.start > 0 :]]
        assert times == [i * source.info.step for i in range(10)]
        assert clips[0].size == (48, 64)
        assert np.allclose(clips[0].frames[3], clips[1].frames[0])
        with pytest.raises(SettingsError, match="`overlap`"):
            source.clips(4, 3)
    assert list(trace.seconds) == ["read"]


def test_a_second_pass_starts_again(tmp_path):
    with open_source(make_video(tmp_path / "a.mp4", ramp(6))) as source:
        next(source.clips(2, 0))
        assert sum(len(clip) for clip in source.clips(4, 0)) == 6


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, degrees):
    upright = patches(side=16)
    turns = degrees // 90
    path = make_video(tmp_path / "a.mp4", [upright], rotation=degrees or None)
    info, frames, _ = read_all(path)
    with av.open(str(path)) as container:
        counterclockwise = next(container.decode(video=0)).rotation
    assert abs(counterclockwise) == min(degrees, 360 - degrees)
    expected = np.rot90(upright, counterclockwise // 90 % 4)
    assert (info.height, info.width) == expected.shape[:2] == ((48, 64), (64, 48))[turns % 2]
    assert np.abs(frames[0][8::16, 8::16] - expected[8::16, 8::16]).max() <= 4


def test_mirroring_is_applied(tmp_path):
    path = tmp_path / "a.mp4"
    image = patches(side=16)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height = 64, 48
        stream.set_display_rotation(0, hflip=True)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    _, frames, _ = read_all(path)
    assert np.abs(frames[0][8::16, 8::16] - image[:, ::-1][8::16, 8::16]).max() <= 4


def test_rotation_turns_the_pixel_aspect(tmp_path):
    path = make_video(tmp_path / "a.mp4", ramp(2), rotation=90, aspect=Fraction(4, 3))
    with open_source(path) as source:
        assert source.info.sample_aspect == Fraction(3, 4)


@pytest.mark.parametrize("size", [(47, 63), (2, 2), (49, 64)])
def test_odd_and_tiny_sizes(tmp_path, size):
    frames = [patches(*size)] * 2
    path = make_video(
        tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0", options={"level": "3"}
    )
    info, read, _ = read_all(path)
    assert (info.height, info.width) == size
    assert np.abs(read[0] - frames[0]).max() < 0.01


def test_ten_bits_are_kept(tmp_path):
    shades = np.linspace(0, 65535, 256).round().astype(np.uint16)
    image = np.repeat(np.repeat(shades[None, :, None], 16, 0), 3, 2)
    path = make_video(
        tmp_path / "a.mkv", [image], codec="ffv1", pix_fmt="yuv420p10le", options={"level": "3"}
    )
    info, frames, _ = read_all(path)
    assert info.bits == 16
    shown = np.unique(frames[0][0, :, 1].round(2))
    assert len(shown) > 250  # not rounded to the 220 steps of limited range at 8 bits
    copy_to(path, tmp_path / "b.mkv", codec="ffv1")
    _, again, _ = read_all(tmp_path / "b.mkv")
    assert np.array_equal(again, frames)


def test_variable_rate_times_are_the_containers(tmp_path):
    times = [0, 3000, 4500, 12000, 12001, 40000]
    path = make_video(tmp_path / "a.mp4", ramp(6), times=times, time_base=Fraction(1, 90000))
    info, _, read = read_all(path)
    assert read == times
    assert info.time_base == Fraction(1, 90000)
    assert not info.constant_rate


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_frames_are_evenly_timed_despite_b_frames(tmp_path, codec, caplog):
    options = {"bf": "2", "qscale": "2"} if codec == "mpeg4" else {"bf": "2", "crf": "4"}
    info, frames, times = read_all(
        make_video(tmp_path / "a.avi", ramp(12), codec=codec, options=options)
    )
    assert len(frames) == 12
    assert np.diff(times).tolist() == [1] * 11
    assert info.constant_rate
    assert not caplog.records


def test_hidden_frames_raise_no_alarm(tmp_path, caplog):
    """VP8 keeps frames that are never shown; they travel as packets of their own."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "200000"}
    path = make_video(tmp_path / "a.webm", ramp(24), codec="libvpx", options=options)
    info, frames, _ = read_all(path)
    assert info.frames >= len(frames) == 24
    assert not caplog.records


def test_a_recording_may_begin_between_key_frames(tmp_path):
    path = make_video(tmp_path / "a.ts", ramp(30), options={"g": "10", "crf": "4"})
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 3 // 188 * 188 + 77 :])
    info, frames, times = read_all(path)
    assert 8 < len(frames) <= info.frames
    assert np.diff(times).tolist() == [3600] * (len(frames) - 1)


def test_b_frames_and_an_edit_list_raise_no_alarm(tmp_path, caplog):
    """A cut keeps the frames before it for decoding: they are neither counted nor shown."""
    options = {"bf": "3", "g": "30", "crf": "4"}
    path = make_video(tmp_path / "a.mp4", ramp(20), options=options)
    info, frames, times = read_all(path)
    assert info.frames == len(frames) == 20
    cut = tmp_path / "cut.mp4"
    with av.open(str(path)) as source, av.open(str(cut), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                # the first four frames lie before zero, which mp4 stores as an edit list
                packet.pts, packet.dts = packet.pts - 4 * 512, packet.dts - 4 * 512
                packet.stream = stream
                output.mux(packet)
    info, frames, times = read_all(cut)
    assert info.frames == len(frames) == 16
    assert times == [512 * i for i in range(16)]
    assert abs(frames[0].mean() - 40) < 2
    assert not caplog.records


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        *[(suffix, "libx264", "yuv420p") for suffix in ("mp4", "m4v", "mov", "mkv", "3gp")],
        *[(suffix, "libx264", "yuv420p") for suffix in ("avi", "ts", "m2ts", "flv", "h264")],
        *[(suffix, "libvpx", "yuv420p") for suffix in ("webm", "ogv")],
        *[(suffix, "mpeg2video", "yuv420p") for suffix in ("mpg", "vob", "mxf", "m2v")],
        *[(suffix, "wmv2", "yuv420p") for suffix in ("wmv", "asf")],
        ("gif", "gif", "rgb8"),
        ("apng", "apng", "rgb24"),
        ("y4m", "wrapped_avframe", "yuv420p"),
        ("nut", "ffv1", "yuv420p"),
        ("ivf", "libvpx-vp9", "yuv420p"),
        ("mjpeg", "mjpeg", "yuvj420p"),
    ],
)
def test_usual_containers_can_be_read(tmp_path, suffix, codec, pix_fmt):
    options = {"crf": "4"} if codec == "libx264" else {"b": "1000000"}
    path = make_video(
        tmp_path / f"a.{suffix}", [patches()] * 4, codec=codec, pix_fmt=pix_fmt, options=options
    )
    assert len(read_all(path)[1]) == 4


class TestBadInput:
    def refused(self, path, match):
        with pytest.raises(MediaError, match=match) as caught, open_source(path) as source:
            list(source.clips(4, 0))
        assert "\n" not in str(caught.value)
        assert str(path.name) in str(caught.value)

    def test_missing(self, tmp_path):
        self.refused(tmp_path / "no.mp4", "does not exist")
        self.refused(tmp_path / "no.png", "does not exist")
        self.refused(tmp_path / "no", "does not exist")

    def test_empty(self, tmp_path):
        for name in ("a.mp4", "a.png"):
            (tmp_path / name).touch()
            self.refused(tmp_path / name, "0 bytes")

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.txt", "a"])
    def test_text(self, tmp_path, name):
        (tmp_path / name).write_text("Dear diary, this is no video.\n" * 100)
        self.refused(tmp_path / name, "not a video")

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.m3u8", "a.mpd", "a.ffconcat", "a.sdp"])
    @pytest.mark.parametrize("text", PLAYLISTS)
    def test_a_playlist_opens_no_other_file(self, tmp_path, name, text):
        make_video(tmp_path / "other.ts", ramp(5))
        (tmp_path / name).write_text(PLAYLISTS[text])
        self.refused(tmp_path / name, "not a video")

    def test_a_pattern_of_images(self, tmp_path):
        for name in ("1.dpx", "%d.dpx"):
            with av.open(str(tmp_path / "one.dpx"), "w", format="image2") as output:
                stream = output.add_stream("dpx", rate=25)
                stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
                output.mux(stream.encode(av.VideoFrame.from_ndarray(patches(), format="rgb24")))
                output.mux(stream.encode(None))
            (tmp_path / "one.dpx").rename(tmp_path / name)
        self.refused(tmp_path / "%d.dpx", "not a video")

    def test_text_as_image(self, tmp_path):
        (tmp_path / "a.png").write_text("no image")
        self.refused(tmp_path / "a.png", "not an image")

    def test_audio_only(self, tmp_path):
        path = tmp_path / "a.m4a"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            frame.sample_rate = 48000
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        self.refused(path, "has no video stream")

    def test_cut_without_index(self, tmp_path):
        path = make_video(tmp_path / "a.mp4", [patches(seed=i) for i in range(10)])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.refused(path, "cut off or damaged")

    def test_cut_behind_the_index(self, tmp_path):
        options = {"movflags": "faststart"}
        frames = [patches(seed=i) for i in range(20)]
        path = make_video(tmp_path / "a.mp4", frames, container_options=options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        self.refused(path, r"ends early: \d+ of 20 frames could be read; .*ffmpeg")

    def damage(self, path, number):
        """Zeros in the second half of a packet."""
        data = bytearray(path.read_bytes())
        with av.open(str(path)) as container:
            packet = [bytes(p) for p in container.demux(video=0) if p.size][number]
        at, half = bytes(data).find(packet), len(packet) // 2
        data[at + half : at + 2 * half] = bytes(half)
        path.write_bytes(data)

    def test_damaged_packets(self, tmp_path, caplog):
        frames = [patches(seed=i) for i in range(10)]
        path = make_video(
            tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0", options={"g": "1"}
        )
        self.damage(path, 6)
        info, found, times = read_all(path)
        assert (len(found), info.frames) == (9, 10)
        assert np.diff(times).tolist() == [40] * 5 + [80] + [40] * 2
        assert np.abs(found - np.stack(frames[:6] + frames[7:])).max() < 1
        told = "packets that cannot be decoded: 1, first after frame 6; frames missing: 1"
        assert caplog.messages == [f"{path}: {told}"]
        self.damage(path, 9)
        assert len(read_all(path)[1]) == 8
        assert caplog.messages[1].endswith("first after frame 6; frames missing: 2")

    def test_a_damaged_last_packet_costs_its_frame(self, tmp_path, caplog):
        """As recordings end."""
        frames = [patches(seed=i) for i in range(10)]
        path = make_video(
            tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0", options={"g": "1"}
        )
        self.damage(path, 9)
        assert len(read_all(path)[1]) == 9
        assert "9 of 10" in caplog.messages[0] or "missing: 1" in caplog.messages[0]

    def test_packets_that_are_gone_since_it_was_scanned(self, tmp_path):
        frames = [patches(seed=i) for i in range(40)]
        path = make_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0")
        info = probe(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(MediaError, match=r"ends early: \d+ of 40 frames"):
            list(open_source(info).clips(8, 0))

    def test_a_key_frame_that_cannot_be_decoded_costs_all_that_needs_it(self, tmp_path, caplog):
        frames = [patches(seed=i) for i in range(30)]
        path = make_video(tmp_path / "a.mp4", frames, options={"g": "10", "bf": "0", "crf": "4"})
        with av.open(str(path)) as container:
            at, size = [(p.pos, p.size) for p in container.demux(video=0) if p.size][10]
        data = bytearray(path.read_bytes())
        data[at + 4 : at + size] = bytes(size - 4)
        path.write_bytes(data)
        _, found, _ = read_all(path)
        missing = 30 - len(found)
        assert missing >= 1
        (told,) = [line for line in caplog.messages if "cannot be decoded" in line]
        assert told.endswith(f"; frames missing: {missing}")
        assert "packets gave a frame" not in caplog.text

    def test_cut_matroska_is_announced(self, tmp_path, caplog):
        frames = [patches(seed=i) for i in range(100)]
        path = make_video(tmp_path / "a.mkv", frames, options={"g": "5", "crf": "4"})
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        info, frames, _ = read_all(path)
        assert 30 < len(frames) == info.frames < 70
        assert "may be cut off" in caplog.text
