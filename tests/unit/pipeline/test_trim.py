"""A job of a part of its source: exact frames and times, with the sound and texts of that part."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_fields import write_fields
from made_models import make_frames
from made_videos import make_video, packets, read_all
from PIL import Image

from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import MediaError, SettingsError
from skipsr.pipeline.job import run_job, upscale_video
from skipsr.pipeline.plan import plan_job
from skipsr.pipeline.preview import Oracle, draw_masks
from skipsr.settings import JobSettings
from skipsr.shots import ListedShots
from skipsr.video import open_source, open_target, probe
from skipsr.video.trim import find_entry, ticks

COUNT, RATE = 40, 25
JOB = JobSettings(scale=1, window=5, overlap=1, segment=0.3)
GROUPS = {"g": "6", "bf": "2", "crf": "10"}
MADE = {
    "steady.mp4": {},
    "open groups.mp4": {"options": {"x264-params": "keyint=6:open-gop=1:bframes=2:scenecut=0"}},
    "piecewise.mkv": {"options": {"x264-params": "keyint=6:intra-refresh=1:scenecut=0"}},
    "uneven.mp4": {
        "times": [512 * i + 100 * (i % 3 == 1) + 1280 * (i >= 20) for i in range(COUNT)],
        "time_base": Fraction(1, 12800),
    },
    "late.mkv": {"times": [250 + i for i in range(COUNT)]},
    "edited.mp4": {"times": [i - 6 for i in range(COUNT)]},
    "stream.ts": {},
    "old.avi": {"codec": "mpeg4", "options": {"g": "6", "bf": "2"}},
    "untimed.h264": {},
}
TEXTS = [
    *((0.2, 0.4, "before"), (0.5, 0.9, "into"), (0.9, 1, "in")),
    *((1, 1.4, "out of"), (1.4, 1.5, "after")),
]
PARTS = [(None, 0.4), (0.04, 1), ("0:00:01.0", 1.12), (0.5004, "0:01.3"), (1.2, None), (1.3, 60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def film(folder: Path) -> Path:
    """With sound, texts, chapters and a timecode."""
    bare = make_video(
        folder / "bare.mp4", list(make_frames(COUNT, 24, 32)), audio_seconds=1.6, options=GROUPS
    )
    texts = folder / "texts.srt"
    clock = "00:00:{:06.3f}".format
    lines = [f"1\n{clock(a)} --> {clock(b)}\n{text}\n\n" for a, b, text in TEXTS]
    texts.write_text("".join(lines).replace(".", ","))
    made = folder / "film.mkv"
    files = av.open(str(bare)), av.open(str(texts))
    with files[0], files[1], av.open(str(made), "w") as output:
        streams = [stream for file in files for stream in file.streams]
        copies = {stream: output.add_stream_from_template(stream) for stream in streams}
        output.metadata["timecode"] = "01:00:00:00"
        output.streams.audio[0].metadata["NUMBER_OF_FRAMES"] = "76"
        output.set_chapters([_chapter(i, 640 * i, 640 * i + 640) for i in range(3)])
        every = [packet for file in files for packet in file.demux() if packet.size]
        for packet in sorted(every, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = copies[packet.stream]
            output.mux(packet)
    return made


def _chapter(number: int, start: int, end: int):
    told = {"title": f"chapter {number}"}
    base = Fraction(1, 1000)
    return {"id": number + 1, "start": start, "end": end, "time_base": base, "metadata": told}


@pytest.mark.parametrize("name", MADE)
def test_the_frames_of_a_part_are_those_of_the_whole(folder: Path, name: str):
    """Exactly those shown from the one time on and before the other, as a whole pass reads them."""
    frames = list(make_frames(COUNT, 24, 32))
    path = make_video(folder / name, frames, **{"options": GROUPS, **MADE[name]})
    info, whole, times = read_all(path)
    shown = [round(float((time - times[0]) * info.time_base), 3) for time in times]
    entered = 0
    for start, end in PARTS:
        job = JobSettings(start=start, end=end)
        least, most = job.start or 0, job.end or 1e9
        kept = [i for i, at in enumerate(shown) if round(least, 3) <= at < most]
        part = probe(path, trim=job.trim)
        assert part.frames == len(kept)
        with open_source(part) as reader:
            (clip,) = reader.clips(COUNT, 0)
            again = [frame.time for frame, _ in reader.frames(first=2)]
        assert clip.times == tuple(times[i] for i in kept)
        assert np.array_equal(clip.frames.permute(0, 2, 3, 1).numpy() * 255.0, whole[kept])
        assert again == [*clip.times[2:]]
        entered += part.cut.entry is not None
    assert (entered > 0) == name.endswith(("mp4", "mkv", "ts"))


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
def test_decoding_does_not_begin_between_fields(tmp_path: Path, suffix: str):
    """Every field is a key frame there, and two of them a frame."""
    path = write_fields(tmp_path / f"in{suffix}", [16 + 8 * i for i in range(12)], apart=True)
    _, whole, times = read_all(path)
    part = probe(path, trim=JobSettings(start=0.24, end=0.4).trim)
    assert part.cut.entry is not None
    with open_source(part) as reader:
        (clip,) = reader.clips(COUNT, 0)
    assert [*clip.times] == times[6:10]
    assert np.array_equal(clip.frames.permute(0, 2, 3, 1).numpy() * 255.0, whole[6:10])


def copy(source: Path, target: Path, start: float | None, end: float | None) -> Path:
    part = probe(source, trim=JobSettings(start=start, end=end).trim)
    with open_source(part) as reader, open_target(target, part, (24, 32)) as writer:
        for clip in reader.clips(7, 0):
            writer.write(clip)
    return target


def test_sound_texts_and_chapters_are_those_of_the_part(film: Path, tmp_path: Path, caplog):
    result = copy(film, tmp_path / "out.mkv", 0.8, 1.2)
    begun = min(time for time, _ in packets(film, "video"))  # Matroska's sound has a run-in
    times = sorted(time for time, _ in packets(result, "video"))
    assert times == [Fraction(i, RATE) for i in range(10)]
    sound = {data: time - begun for time, data in packets(film, "audio")}
    kept = packets(result, "audio")
    assert len(kept) == len({data for _, data in kept})
    for time, data in kept:
        assert sound[data] - time == Fraction(4, 5)  # in sync
    assert [d for _, d in kept] == [d for d, at in sound.items() if 0.8 <= at < 1.2]
    with av.open(str(result)) as container:
        told = [
            (float(p.pts * p.time_base), float(p.duration * p.time_base), bytes(p).decode())
            for p in container.demux(container.streams.subtitles[0])
            if p.size
        ]
        chapters = [
            (c["metadata"]["title"], *(float(c[at] * c["time_base"]) for at in ("start", "end")))
            for c in container.chapters()
        ]
        assert "NUMBER_OF_FRAMES" not in container.streams.audio[0].metadata
        assert "timecode" not in {key.lower() for key in container.metadata}
    assert told == [(0, 0.1, "into"), (0.1, 0.1, "in"), (0.2, 0.2, "out of")]
    assert chapters == [("chapter 1", 0, 0.4)]
    assert "its timecode is left out, which is that of its first frame" in caplog.text


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".ts", ".mkv"])
def test_sound_is_in_sync_in_any_container(film: Path, tmp_path: Path, suffix: str):
    result = copy(film, tmp_path / f"out{suffix}", 0.8, None)
    zero = min(time for time, _ in packets(result, "video"))
    late = next(time for time, _ in packets(result, "audio")) - zero
    first = next(time for time, _ in packets(film, "audio") if time >= 0.8)
    assert abs(late - (first - Fraction(4, 5))) < 0.002


@pytest.mark.parametrize("start", [0.2, 0.24])
def test_sound_of_an_avi_is_in_sync_although_its_ticks_are_packets(tmp_path: Path, start: float):
    film = make_video(
        tmp_path / "film.avi", list(make_frames(20, 24, 32)), codec="mpeg4", audio_seconds=0.8
    )
    with av.open(str(film)) as container:
        assert container.streams.audio[0].time_base == Fraction(1024, 48000)
    result = copy(film, tmp_path / "out.mp4", start, 0.6)
    sound = {data: time for time, data in packets(film, "audio")}
    kept = packets(result, "audio")
    assert len(kept) > 10
    for time, data in kept:
        assert abs(sound[data] - Fraction(str(start)) - time) < 0.001


def test_the_last_frame_is_shown_as_long_as_in_the_source(film: Path, tmp_path: Path):
    with av.open(str(copy(film, tmp_path / "out.mp4", 0.2, 0.41))) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(6, RATE)


def test_an_interrupted_part_gives_the_same_bits(
    film: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path: Path
):
    class Stops:
        left = 3

        def __getattr__(self, name: str):
            return getattr(tiny_upscaler, name)

        def upscale(self, clip, size, *, seed=0):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return tiny_upscaler.upscale(clip, size, seed=seed)

    job = replace(JOB, start=0.4, end=1.2)
    whole = upscale_video(film, tmp_path / "whole.mkv", tiny_upscaler, job)
    assert whole.frames == 20
    target = tmp_path / "out.mkv"
    with pytest.raises(KeyboardInterrupt) as stopped:
        upscale_video(film, target, Stops(), job)  # type: ignore[arg-type]
    assert "8 finished frames are kept" in stopped.value.__notes__[0]
    with pytest.raises(SettingsError, match=r"`end` is 1\.16 and was 1\.2"):
        upscale_video(film, target, tiny_upscaler, replace(job, end=1.16))
    again = upscale_video(film, target, tiny_upscaler, replace(job, start="0:00.4"))
    assert again.frames == 20
    assert target.read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def test_shots_are_listed_for_the_whole(film: Path, tmp_path: Path):
    listed = tmp_path / "shots.txt"
    listed.write_text("0\n5\n12\n0.8\n39\n")
    job = replace(JOB, shots=str(listed), start=0.4, end=1.2)
    plan = plan_job(film, tmp_path / "out.mkv", Oracle.limits, job)
    assert plan.shots == ListedShots((2, 10, 29))
    assert plan.expected == 20


def test_masks_are_of_the_part(film: Path, tmp_path: Path):
    plan = plan_job(film, tmp_path / "out.mkv", Oracle.limits, replace(JOB, start=1, end=1.2))
    assert draw_masks(plan, Oracle(), "oracle", lambda _: None).frames == 5


def test_a_folder_is_trimmed_by_its_rate(tiny_upscaler: SeedVR2Upscaler, tmp_path: Path):
    source = tmp_path / "in"
    source.mkdir()
    for i, frame in enumerate(make_frames(12, 24, 32)):
        Image.fromarray(frame).save(source / f"{i:02}.png")
    rounded = JobSettings(start=0.042, end=0.417).trim  # of the frames 1 and 10 as clocks show them
    assert probe(source, trim=rounded).files == tuple(sorted(source.iterdir()))[1:10]
    plan = plan_job(source, tmp_path / "out", tiny_upscaler.limits, replace(JOB, start=0.25))
    assert plan.source.cut.before == 6  # by which shots that are listed are counted
    assert run_job(plan, tiny_upscaler).frames == 6
    assert [file.name for file in sorted((tmp_path / "out").iterdir())] == [
        f"{i:02}.png" for i in range(6, 12)
    ]


def test_times_are_told_to_the_millisecond():
    assert ticks(Fraction("0.042"), Fraction(1, 24)) == 1  # which is at 0.041666
    assert ticks(Fraction("0.002"), Fraction(1, 10_000)) == 15
    assert ticks(Fraction(0), Fraction(1, 10_000)) == -5


@pytest.mark.parametrize(
    ("name", "found"), [("a.mp4", True), ("a.mkv", True), ("a.ts", True), ("a.avi", False)]
)
def test_reading_begins_two_key_frames_before(tmp_path: Path, name: str, found: bool):
    """Where frames are stored in another order than they are shown, and there is an index."""
    options = {"g": "6", "bf": "2", "sc_threshold": "0"}
    path = make_video(tmp_path / name, list(make_frames(COUNT, 24, 32)), options=options)
    with av.open(str(path)) as container:
        keys = [(p.pts, p.dts) for p in container.demux(video=0) if p.size and p.is_keyframe]
    if name.endswith(".avi"):
        keys = [(i, i) for i in range(7)]  # it tells no times
    assert find_entry(path, keys, keys[5][0]) == (keys[4][1] if found else None)
    assert find_entry(path, keys, keys[1][0]) is None
    wrong = [*keys[:4], (keys[4][0], keys[6][1]), *keys[5:]]  # leads past what is asked
    assert find_entry(path, wrong, keys[5][0]) is None


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (1.6, None, "`start` 1.6 is beyond the last frame of .*film.mkv, which is shown at 1.560"),
        (0.41, 0.43, "shows no new frame between 0.41 and 0.43 seconds: give a later `end`"),
    ],
)
def test_a_part_without_frames_is_refused(film: Path, start, end, message: str):
    with pytest.raises(SettingsError, match=message):
        probe(film, trim=JobSettings(start=start, end=end).trim)


def test_an_image_has_no_times(tmp_path: Path):
    picture = tmp_path / "a.png"
    Image.fromarray(make_frames(1, 24, 32)[0]).save(picture)
    with pytest.raises(
        SettingsError, match=r"for videos and folders of images, and .*a.png is neither"
    ):
        plan_job(picture, tmp_path / "b.png", Oracle.limits, JobSettings(start=1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": "1:40", "end": "1:30"}, "`end` 90 is not after `start` 100: give a later one"),
        ({"end": 0}, "`end` 0 is not after `start` 0"),
        ({"start": "soon"}, "`start` soon is no time: give seconds, or one such as 1:30"),
        ({"start": -1}, "`start` -1 is no time"),
        ({"end": float("nan")}, "`end` nan is no time"),
        ({"end": True}, "`end` True is no time"),
        ({"end": "9" * 400}, "is no time"),
    ],
)
def test_times_that_cannot_be(given: dict[str, object], message: str):
    with pytest.raises(SettingsError) as refused:
        JobSettings(**given)  # type: ignore[arg-type]
    assert message in str(refused.value)


def test_times_count_from_the_first_frame_of_a_recording_that_begins_between_key_frames(tmp_path):
    options = {"g": "12", "bf": "0", "sc_threshold": "0"}
    whole = make_video(tmp_path / "a.ts", list(make_frames(COUNT, 24, 32)), options=options)
    path = tmp_path / "b.ts"
    with av.open(str(whole)) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for packet in [p for p in source.demux(video=0) if p.size][7:]:
            packet.stream = copy
            output.mux(packet)
    every = read_all(path)[2]
    assert len(every) == COUNT - 12
    part = probe(path, "auto", (Fraction(1, 5), None))
    assert (part.frames, part.cut.before) == (COUNT - 12 - 5, 5)
    with open_source(part) as reader:
        assert [frame.time for frame, _ in reader.frames()] == list(every[5:])


def test_a_part_in_which_nothing_can_be_decoded_is_told(tmp_path):
    frames = list(make_frames(10, 24, 32))
    path = make_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0", options={"g": "1"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        last = [bytes(p) for p in container.demux(video=0) if p.size][-1]
    at, half = bytes(data).rindex(last), len(last) // 2
    data[at + half : at + 2 * half] = bytes(half)
    path.write_bytes(data)
    part = probe(path, "auto", (Fraction(9, 25), None))
    with open_source(part) as reader, pytest.raises(MediaError, match="has no frame in this part"):
        list(reader.frames())
