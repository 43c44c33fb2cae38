"""A job that was stopped goes on, and its result is that of one that was not."""

import json
import math
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_models import make_frames, make_model
from made_videos import make_video
from PIL import Image

from skipsr.backbones import family
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import Cancelled, MediaError, SettingsError, describe
from skipsr.files import sole_hold
from skipsr.limits import Footprint
from skipsr.loading import load_upscaler
from skipsr.pipeline import segments, unfinished
from skipsr.pipeline.identity import source_identity
from skipsr.pipeline.job import Progress, Report, run_job, upscale_video
from skipsr.pipeline.manifest import load_manifest, named_target
from skipsr.pipeline.plan import plan_job
from skipsr.pipeline.unfinished import find_jobs, remove_job
from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings
from skipsr.video import frames_info

COUNT = 22  # frames; windows begin every four, and segments every eight
JOB = JobSettings(scale=1, window=5, overlap=1, segment=0.3)
TIMES = [512 * i + 100 * (i % 3 == 1) for i in range(COUNT)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(
        tmp_path_factory.mktemp("source") / "in.mp4",
        list(make_frames(COUNT, 24, 32)),
        times=TIMES,
        time_base=Fraction(1, 12800),
        audio_seconds=0.8,
        title="A title",
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i, frame in enumerate(make_frames(COUNT, 24, 32)):
        Image.fromarray(frame).save(folder / f"{i}.png")
    return folder


class Windows:
    """The upscaler, counting its windows, and stopping at one of them."""

    def __init__(self, upscaler: SeedVR2Upscaler, stop: int | None = None, error=KeyboardInterrupt):
        self._upscaler, self._stop, self._error = upscaler, stop, error
        self.starts: list[int] = []

    def __getattr__(self, name: str):
        return getattr(self._upscaler, name)

    def upscale(self, clip, size, *, seed=0):
        if len(self.starts) == self._stop:
            raise self._error("stopped")
        self.starts.append(clip.start)
        return self._upscaler.upscale(clip, size, seed=seed)


def contents(path: Path) -> object:
    """Every packet with its times, and what the container says; or every image's bytes."""
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    with av.open(str(path)) as container:
        told = [
            (s.type, s.time_base, s.start_time, s.duration, s.frames, dict(s.metadata))
            for s in container.streams
        ]
        packets = [
            (p.stream_index, p.pts, p.dts, p.duration, p.is_keyframe, bytes(p))
            for p in container.demux()
        ]
        return container.duration, dict(container.metadata), told, packets


def stopped(source: Path, target: Path, upscaler: SeedVR2Upscaler, at: int, job=JOB, **how):
    with pytest.raises(how.get("error", KeyboardInterrupt)) as caught:
        upscale_video(source, target, Windows(upscaler, at, **how), job)  # type: ignore[arg-type]
    return caught.value


def resumed(
    source: Path, target: Path, upscaler: SeedVR2Upscaler, job=JOB
) -> tuple[Report, list[int]]:
    windows = Windows(upscaler)
    report = upscale_video(source, target, windows, job)  # type: ignore[arg-type]
    return report, windows.starts


@pytest.fixture(scope="module")
def whole_video(video: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path_factory) -> object:
    """What the job that is not stopped makes of the video."""
    target = tmp_path_factory.mktemp("whole") / "out.mp4"
    resumed(video, target, tiny_upscaler)
    return contents(target)


@pytest.fixture(scope="module")
def whole_images(images: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path_factory) -> object:
    """What it makes of the images."""
    target = tmp_path_factory.mktemp("whole") / "out"
    resumed(images, target, tiny_upscaler)
    return contents(target)


def test_a_resumed_job_ends_windows_at_the_same_shots(tiny_upscaler, tmp_path):
    """Shots of 7, 6 and 9 frames, which are found."""
    first = make_frames(COUNT, 24, 32)
    shots = first[:7], 255 - first[7:13, :, ::-1], np.rot90(first[13:], 2, (1, 2))
    video = make_video(tmp_path / "in.mp4", [frame for shot in shots for frame in shot])
    whole, every = resumed(video, tmp_path / "whole.mp4", tiny_upscaler)
    assert whole.shots == 3
    assert {0, 7, 13} <= set(every)
    for stop in (2, 4, 5):
        target = tmp_path / f"{stop}.mp4"
        stopped(video, target, tiny_upscaler, stop)
        report, again = resumed(video, target, tiny_upscaler)
        assert set(again) <= set(every)
        assert contents(target) == contents(tmp_path / "whole.mp4")
        assert report.shots == whole.shots


def test_what_ran_out_of_memory_is_told_that_other_windows_begin_anew(
    video, tiny_upscaler, tmp_path
):
    error = stopped(video, tmp_path / "out.mp4", tiny_upscaler, 3, error=MemoryError)
    assert "smaller `window`" in str(describe(error))
    assert "another begins with `restart`" in error.__notes__[0]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("out.mp4", "h264"),
        ("out.ts", "h264"),
        ("out.mp4", "h265"),
        ("out.mkv", "av1"),
        ("out.mkv", "ffv1"),
        ("out.mov", "prores"),
        ("out", "h264"),
    ],
)
def test_a_resumed_result_is_the_uninterrupted_one(video, tiny_upscaler, tmp_path, name, codec):
    job = replace(JOB, codec=codec, scale=2 if codec == "h265" else 1)  # x265 takes no 32 columns
    (tmp_path / "whole").mkdir()
    whole, every = resumed(video, tmp_path / "whole" / name, tiny_upscaler, job)
    assert every == [0, 4, 8, 12, 16, 20]
    target = tmp_path / name
    error = stopped(video, target, tiny_upscaler, 3, job)
    (note,) = error.__notes__
    assert note == f"8 finished frames are kept in {target}.job: start the same job again to go on"
    assert not target.exists()
    report, again = resumed(video, target, tiny_upscaler, job)
    assert again == [8, 12, 16, 20]  # none whose frames are kept
    assert contents(target) == contents(tmp_path / "whole" / name)
    assert (report.frames, report.computed, report.stages) == (
        whole.frames, whole.computed, whole.stages,
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["whole", name])


@pytest.mark.parametrize("at", [0, 2, 3, 5])
def test_wherever_it_stops(images, whole_images, tiny_upscaler, tmp_path, at):
    """Of a folder, twice: after `at` windows, and once more after the one that was resumed."""
    stopped(images, tmp_path / "out", tiny_upscaler, at)
    stopped(images, tmp_path / "out", tiny_upscaler, 1)
    resumed(images, tmp_path / "out", tiny_upscaler)
    assert contents(tmp_path / "out") == whole_images
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_an_overlap_no_window_is_run_twice(images, tiny_upscaler, tmp_path):
    job = replace(JOB, overlap=0, window=4)
    stopped(images, tmp_path / "out", tiny_upscaler, 3, job)
    assert resumed(images, tmp_path / "out", tiny_upscaler, job)[1] == [8, 12, 16, 20]


@pytest.mark.parametrize("harm", ["gone", "bits"])
def test_without_what_followed_a_segment_its_last_window_is_run_again(
    video, whole_video, tiny_upscaler, tmp_path, harm
):
    target = tmp_path / "out.mp4"
    stopped(video, target, tiny_upscaler, 5)
    (kept,) = (tmp_path / "out.mp4.job").glob("rest-*")
    assert kept.name == "rest-16.safetensors"
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    {"gone": kept.unlink, "bits": lambda: kept.write_bytes(content)}[harm]()
    assert resumed(video, target, tiny_upscaler)[1] == [12, 16, 20]
    assert contents(target) == whole_video


def test_where_frames_take_long_less_is_lost(video, tiny_upscaler, tmp_path):
    """A video of one second is kept in parts of seven frames, which end with windows."""
    job = JobSettings(scale=1, window=5, overlap=1)
    slow = Windows(tiny_upscaler, 3)
    slow.limits = replace(tiny_upscaler.limits, seconds=300 / 7 / (24 * 32))
    whole, again = Windows(tiny_upscaler), Windows(tiny_upscaler)
    whole.limits = again.limits = slow.limits
    target = tmp_path / "out.mp4"
    upscale_video(video, tmp_path / "whole.mp4", whole, job)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        upscale_video(video, target, slow, job)  # type: ignore[arg-type]
    upscale_video(video, target, again, job)  # type: ignore[arg-type]
    assert again.starts == whole.starts[2:]  # from the first whose frames were not kept
    assert contents(target) == contents(tmp_path / "whole.mp4")


@pytest.mark.parametrize(
    ("model", "device", "segment", "frames"),
    [
        ("seedvr2:nano", "cpu", None, 41),
        ("seedvr2:nano", "cuda:0", None, 240),
        ("skipvsr:nano", "cpu", None, 180),
        ("skipvsr:nano", "cpu", 20.0, 480),
        ("skipvsr:nano", "cuda:0", None, 240),
    ],
)
def test_what_is_kept_is_ten_seconds_or_the_work_of_five_minutes(
    tmp_path, model, device, segment, frames
):
    backbone, preset = family(model)
    limits = backbone.limits_together((preset,), device, 4)
    source = frames_info((180, 320), count=241)
    plan = plan_job(source, tmp_path / "out.mp4", limits, JobSettings(segment=segment))
    assert plan.segment == frames
    assert plan.in_segments == (frames < 241)


def test_short_jobs_keep_no_folder(images, tiny_upscaler, tmp_path):
    error = stopped(images, tmp_path / "out", tiny_upscaler, 3, replace(JOB, segment=10.0))
    assert error.__notes__ == [
        f"the 12 frames finished before that are in {tmp_path / 'out.partial'}"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]


@pytest.mark.parametrize(("at", "error"), [(1, KeyboardInterrupt), (4, Cancelled)])
def test_nothing_remains_of_what_was_not_begun_or_was_cancelled(
    images, tiny_upscaler, tmp_path, at, error
):
    caught = stopped(images, tmp_path / "out", tiny_upscaler, at, error=error)
    assert not hasattr(caught, "__notes__")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "which"), [("bits", 0), ("length", 1), ("missing", 0), ("missing", 1)]
)
def test_a_damaged_segment_is_made_again(
    video, whole_video, tiny_upscaler, tmp_path, caplog, damage, which
):
    target = tmp_path / "out.mp4"
    stopped(video, target, tiny_upscaler, 5)
    file = sorted((tmp_path / "out.mp4.job" / "segments").iterdir())[which]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "bits": lambda: file.write_bytes(content),
        "length": lambda: file.write_bytes(content[:-100]),
        "missing": file.unlink,
    }[damage]()
    _, again = resumed(video, target, tiny_upscaler)
    # what follows a segment is kept of the last one alone
    assert again == [[0, 4, 16, 20], [4, 8, 12, 16, 20]][which]
    assert f"frames {8 * which} to {8 * which + 7} are damaged" in caplog.text
    assert contents(target) == whole_video


CHANGES = {
    "crf": (replace(JOB, crf=30), "`crf` is 30 and was not given"),
    "seed": (replace(JOB, seed=1), "`seed` is 1 and was 0"),
    "window": (replace(JOB, window=9), "`window` is 9 and was 5"),
    "long segments": (replace(JOB, segment=100.0), r"`segment` is 100\.0 and was 0\.3"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_settings_are_refused_and_restart_begins_anew(video, tiny_upscaler, tmp_path, what):
    target = tmp_path / "out.mp4"
    job, phrase = CHANGES[what]
    stopped(video, target, tiny_upscaler, 4)
    with pytest.raises(SettingsError, match=f"another job: {phrase}; give `restart`"):
        resumed(video, target, tiny_upscaler, job)
    assert resumed(video, target, tiny_upscaler, replace(job, restart=True))[1][0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_another_source_other_weights_and_another_program_are_refused(
    video, tiny_upscaler, tiny_model, tmp_path, monkeypatch
):
    source = tmp_path / "in.mp4"
    source.write_bytes(video.read_bytes())
    target = tmp_path / "out.mp4"
    stopped(source, target, tiny_upscaler, 4)
    other = SeedVR2Upscaler("seedvr2:tiny", make_model(seed=1), SkipSettings(dense=True))
    with pytest.raises(SettingsError, match="another job: the weights are others; give"):
        resumed(source, target, other)
    skipping = SeedVR2Upscaler("seedvr2:tiny", tiny_model, SkipSettings(quality=0.3))
    with pytest.raises(SettingsError, match=r"`dense` is False and was True, `quality` is 0\.3"):
        resumed(source, target, skipping)
    with monkeypatch.context() as patch:
        patch.setattr("skipsr.pipeline.identity.version", lambda name: "9.9")
        with pytest.raises(SettingsError, match=r"torch is 9\.9 and was"):
            resumed(source, target, tiny_upscaler)
    os.utime(source, ns=(1, 1))
    with pytest.raises(SettingsError, match="another job: the source was changed; give"):
        resumed(source, target, tiny_upscaler)
    assert (tmp_path / "out.mp4.job").exists()


def test_shots_that_are_listed_otherwise_are_refused(video, tiny_upscaler, tmp_path):
    """The file has the same name, and what is kept ended windows where it listed others."""
    listed, target = tmp_path / "shots.txt", tmp_path / "out.mp4"
    job = replace(JOB, shots=str(listed))
    listed.write_text("0\n14\n")
    stopped(video, target, tiny_upscaler, 5, job)
    listed.write_text("0\n18\n")
    with pytest.raises(SettingsError, match="another job: the list of shots was changed; give"):
        resumed(video, target, tiny_upscaler, job)
    listed.write_text("14  # from which on it is dark\n")
    assert resumed(video, target, tiny_upscaler, job)[1] == [18]


def test_a_source_that_is_replaced_on_the_way_is_not_mixed(
    video, whole_video, tiny_upscaler, tmp_path
):
    source, other, target = (tmp_path / name for name in ("in.mp4", "other.mp4", "out.mp4"))
    shutil.copy2(video, source)
    make_video(other, list(make_frames(COUNT, 24, 32, seed=1)), audio_seconds=0.8)

    def replace_it(progress: Progress) -> None:
        if progress.frames == 8 and other.exists():
            shutil.copy2(source, tmp_path / "kept.mp4")
            other.replace(source)

    with pytest.raises(MediaError, match=r"in\.mp4 was changed while it was read: put") as caught:
        upscale_video(source, target, tiny_upscaler, JOB, watch=replace_it)
    assert caught.value.__notes__[0].startswith("8 finished frames are kept")
    with pytest.raises(SettingsError, match="another job: the source was changed; give"):
        resumed(source, target, tiny_upscaler)
    (tmp_path / "kept.mp4").replace(source)
    resumed(source, target, tiny_upscaler)
    assert contents(target) == whole_video


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_source_may_have_any_bytes_as_its_name(tmp_path):
    source = tmp_path / os.fsdecode(b"\xff.png")
    source.write_bytes(b"pixels")
    assert source_identity(source, [])["bytes"] == 6
    assert source_identity(tmp_path, [source])["bytes"] == 6


def test_a_second_process_is_refused(images, tiny_upscaler, tmp_path):
    (tmp_path / "out.job").mkdir()
    with (
        sole_hold(tmp_path / "out.job" / "lock"),
        pytest.raises(SettingsError, match=r"another process is making .*out: wait for it"),
    ):
        resumed(images, tmp_path / "out", tiny_upscaler)
    assert resumed(images, tmp_path / "out", tiny_upscaler)[0].frames == COUNT


def test_a_job_that_ends_while_jobs_are_listed_is_left_out(images, tiny_upscaler, tmp_path):
    for name in ("a", "b", "c"):
        stopped(images, tmp_path / name, tiny_upscaler, 4)
    jobs = find_jobs(tmp_path)
    first = next(jobs)
    shutil.rmtree(tmp_path / "b.job")
    assert [job.output.name for job in (first, *jobs)] == ["a", "c"]
    shutil.rmtree(first.folder)
    assert remove_job(first)


def test_a_job_that_begins_as_an_old_one_is_removed_stays(
    images, tiny_upscaler, tmp_path, monkeypatch
):
    stopped(images, tmp_path / "out", tiny_upscaler, 4)
    (job,) = find_jobs(tmp_path)

    @contextmanager
    def hold(path):
        with sole_hold(path):
            yield
        stopped(images, tmp_path / "out", tiny_upscaler, 4)

    monkeypatch.setattr(unfinished, "sole_hold", hold)
    assert remove_job(job)
    assert (tmp_path / "out.job" / "manifest.json").exists()


def test_memory_is_planned_for_the_windows_of_a_job_that_has_begun(video, tmp_path):
    """Another run has another share of memory, and the same windows."""
    upscaler = load_upscaler("skipvsr:nano", runtime=RuntimeSettings(device="cpu"))
    law = upscaler.limits.footprint
    assert isinstance(law, Footprint)
    little = math.ceil(law.of(10, 24 * 32, 96 * 128) / 0.6)
    job = JobSettings(segment=0.3)

    def plan(free: int, job: JobSettings = job):
        found = plan_job(video, tmp_path / "out.mp4", upscaler.limits, job, free=free)
        assert found.memory is not None
        return found.window, found.overlap, found.memory.window

    assert plan(little) == (10, 1, 10)
    assert plan(2**33) == (22, 5, 22)  # all of it

    def interrupt(progress):
        if progress.frames >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(
            plan_job(video, tmp_path / "out.mp4", upscaler.limits, job, free=little),
            upscaler,
            interrupt,
        )
    assert plan(2**33) == (10, 1, 10)
    assert plan(2**33, replace(job, restart=True)) == (22, 5, 22)


def test_the_report_tells_what_was_asked_for_as_it_was():
    report = Report("a model", asked={"tau": 2.5e-5}, computed=1 / 3)
    found = json.loads(report.to_json())
    assert (found["asked"], found["computed"]) == ({"tau": 2.5e-5}, 0.3333)


def test_a_folder_of_somebody_else_is_left_alone(images, tiny_upscaler, tmp_path):
    (tmp_path / "out.job").mkdir()
    (tmp_path / "out.job" / "mine").write_text("precious")
    with pytest.raises(SettingsError, match="holds mine: move it elsewhere"):
        resumed(images, tmp_path / "out", tiny_upscaler)
    assert (tmp_path / "out.job" / "mine").read_text() == "precious"


@pytest.mark.parametrize("restart", [False, True])
def test_what_a_killed_process_had_begun_to_write_is_removed(
    images, whole_images, tiny_upscaler, tmp_path, restart
):
    stopped(images, tmp_path / "out", tiny_upscaler, 4)
    folder = tmp_path / "out.job"
    names = (".tmpQ3x9Za", ".rest-8.safetensors.1.part", "frames/half.png")
    begun = [folder / name for name in names]
    for path in begun:
        path.write_bytes(b"half of")
    at = 4 if restart else 1  # of the windows that are run
    stopped(images, tmp_path / "out", tiny_upscaler, at, replace(JOB, restart=restart))
    assert folder.exists()
    assert not any(path.exists() for path in begun)
    resumed(images, tmp_path / "out", tiny_upscaler)
    assert contents(tmp_path / "out") == whole_images


def test_a_manifest_of_another_version_is_refused(images, tiny_upscaler, tmp_path):
    stopped(images, tmp_path / "out", tiny_upscaler, 4)
    manifest = tmp_path / "out.job" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 1}))
    with pytest.raises(MediaError, match=r"of another version of skipsr: .* give `restart`"):
        resumed(images, tmp_path / "out", tiny_upscaler)
    resumed(images, tmp_path / "out", tiny_upscaler, replace(JOB, restart=True))


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [('"window": 5', '"window": 4'), ('"total": null', '"total": 9   '), ('"end": 8', '"end": 0')],
)
def test_a_manifest_that_the_disk_has_changed_is_refused(
    images, tiny_upscaler, tmp_path, whole, damaged
):
    """What is left of it is JSON, and would have made another result, or a traceback."""
    stopped(images, tmp_path / "out", tiny_upscaler, 4)
    manifest = tmp_path / "out.job" / "manifest.json"
    text = manifest.read_text()
    assert whole in text
    manifest.write_text(text.replace(whole, damaged))
    (job,) = find_jobs(tmp_path)
    assert job.differs == ("the manifest cannot be read",)
    with pytest.raises(MediaError, match="no manifest that can be read: give `restart`"):
        resumed(images, tmp_path / "out", tiny_upscaler)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", range(5, 12))
def test_a_full_disk_keeps_what_was_noted(
    video, whole_video, tiny_upscaler, tmp_path, monkeypatch, call
):
    """At each of the times at which something has to reach the disk."""
    target, sync, calls = tmp_path / "out.mp4", os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr("skipsr.files.os.fsync", full)
        with pytest.raises(MediaError, match=r"cannot write .*: No space left") as caught:
            resumed(video, target, tiny_upscaler)
    found = load_manifest(tmp_path / "out.mp4.job")
    assert found is not None or not hasattr(caught.value, "__notes__")
    assert not target.exists()
    resumed(video, target, tiny_upscaler)
    assert contents(target) == whole_video


def test_an_existing_folder_is_filled_even_if_that_is_interrupted(
    images, whole_images, tiny_upscaler, tmp_path, monkeypatch
):
    """Half of the frames have their names already when the process dies."""
    job = replace(JOB, overwrite=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.txt").write_text("stays")
    renamed: list[Path] = []
    replace_file = Path.replace

    def die(file: Path, target: Path) -> Path:
        if target.parent == tmp_path / "out":
            renamed.append(file)
            if len(renamed) == 10:
                raise KeyboardInterrupt
        return replace_file(file, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        stopped(images, tmp_path / "out", tiny_upscaler, 99, job)
    assert resumed(images, tmp_path / "out", tiny_upscaler, job)[1] == []
    found = contents(tmp_path / "out")
    assert isinstance(found, dict)
    assert found.pop("other.txt") == b"stays"
    assert found == whole_images
    assert not (tmp_path / "out.job").exists()


@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_what_was_stopped_when_its_result_had_its_name_ends_well(
    video, tiny_upscaler, tmp_path, monkeypatch, name
):
    def die(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("skipsr.pipeline.segments.remove_folder", die)
        stopped(video, tmp_path / name, tiny_upscaler, 99)
    before = contents(tmp_path / name)
    assert resumed(video, tmp_path / name, tiny_upscaler)[1] == []
    assert contents(tmp_path / name) == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_interrupt_when_the_result_has_its_name_leaves_nothing_else(
    video, tiny_upscaler, tmp_path, monkeypatch
):
    remove, calls = segments.remove_folder, []

    def interrupt(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(folder)

    monkeypatch.setattr(segments, "remove_folder", interrupt)
    error = stopped(video, tmp_path / "out.mp4", tiny_upscaler, 99)
    assert error.__notes__ == [f"{tmp_path / 'out.mp4'} was finished before"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_what_appeared_meanwhile_is_not_replaced(images, whole_images, tiny_upscaler, tmp_path):
    target = tmp_path / "out"
    stopped(images, target, tiny_upscaler, 3)
    target.mkdir()

    def appear(*_: object) -> None:
        (target / "0.png").write_text("theirs")

    with pytest.raises(SettingsError, match="out is a folder with files in it"):
        upscale_video(images, target, tiny_upscaler, JOB, watch=appear)
    assert (target / "0.png").read_text() == "theirs"
    _, again = resumed(images, target, tiny_upscaler, replace(JOB, overwrite=True))
    assert again == []
    assert contents(target) == whole_images


def test_a_link_is_followed(video, whole_video, tiny_upscaler, tmp_path):
    """As to a larger disk."""
    (tmp_path / "disk").mkdir()
    link, place = tmp_path / "out.mp4", tmp_path / "disk" / "there.mp4"
    link.symlink_to(place)
    resumed(video, link, tiny_upscaler)
    assert link.is_symlink()
    assert contents(place) == whole_video
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "disk", link, place])


def test_links_in_a_loop_are_replaced(tmp_path):
    link = tmp_path / "out.mp4"
    link.symlink_to("out.mp4")
    assert named_target(link) == link
