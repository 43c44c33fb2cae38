"""A long job that several workers share: whoever makes what, the result is that of one."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_models import make_frames
from made_videos import make_video
from PIL import Image

from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import SettingsError
from skipsr.files import sole_hold
from skipsr.pipeline import takeover
from skipsr.pipeline.job import run_job, upscale_video
from skipsr.pipeline.manifest import Stretch, section_folder
from skipsr.pipeline.plan import JobPlan, plan_job
from skipsr.pipeline.sections import divide
from skipsr.pipeline.unfinished import find_jobs, remove_job
from skipsr.settings import JobSettings

COUNT = 34  # frames, of shots of 19, 6 and 9
JOB = JobSettings(scale=1, window=5, overlap=1, segment=0.24)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    first = make_frames(COUNT, 24, 32)
    shots = first[:19], 255 - first[19:25, :, ::-1], np.rot90(first[25:], 2, (1, 2))
    return make_video(
        tmp_path_factory.mktemp("source") / "in.mp4",
        [np.ascontiguousarray(frame) for shot in shots for frame in shot],
        times=[512 * i + 100 * (i % 3 == 1) for i in range(COUNT)],
        time_base=Fraction(1, 12800),
        audio_seconds=0.8,
    )


@pytest.fixture(scope="module")
def whole(video: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path_factory) -> object:
    target = tmp_path_factory.mktemp("whole") / "out.mp4"
    upscale_video(video, target, tiny_upscaler, JOB)
    return packets(target)


def packets(path: Path) -> object:
    with av.open(str(path)) as container:
        return [(p.stream_index, p.pts, p.dts, p.is_keyframe, bytes(p)) for p in container.demux()]


class Windows:
    """The upscaler, counting its windows, and stopping at one of them."""

    def __init__(self, upscaler: SeedVR2Upscaler, stop: int | None = None):
        self._upscaler, self._stop = upscaler, stop
        self.starts: list[int] = []

    def __getattr__(self, name: str):
        return getattr(self._upscaler, name)

    def upscale(self, clip, size, *, seed=0):
        if len(self.starts) == self._stop:
            raise KeyboardInterrupt
        self.starts.append(clip.start)
        return self._upscaler.upscale(clip, size, seed=seed)


def planned(source: Path, target: Path, upscaler: SeedVR2Upscaler, job=JOB) -> JobPlan:
    return plan_job(source, target, upscaler.limits, job)


def divided(plan: JobPlan, upscaler: SeedVR2Upscaler, workers: int = 3) -> list[Stretch]:
    return divide(plan, upscaler, workers, lambda frame: None)


def test_sections_end_where_segments_do(video, tiny_upscaler, tmp_path):
    """Windows begin every four frames of a shot, and segments are of two or more of them."""
    seen: list[int] = []
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    sections = divide(plan, tiny_upscaler, 3, seen.append)
    assert seen == list(range(COUNT))
    assert sections == [Stretch(0, 8, 0), Stretch(8, 23, 4), Stretch(23, None, 19)]
    assert [(one.start, one.end) for one in divided(plan, tiny_upscaler, 99)] == [
        (0, 8), (8, 16), (16, 23), (23, 29), (29, None),
    ]  # fmt: skip


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_whoever_makes_what_the_result_is_that_of_one(video, whole, tiny_upscaler, tmp_path, order):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    sections = divided(plan, tiny_upscaler)
    made = 0
    for number in order:
        report = run_job(replace(plan, stretch=sections[number]), tiny_upscaler)
        made += report.frames
    assert made == COUNT
    (job,) = find_jobs(tmp_path)
    assert (job.share, job.running, job.differs) == (1.0, False, ())
    last = Windows(tiny_upscaler)
    report = run_job(plan, last)  # type: ignore[arg-type]
    assert last.starts == []
    assert (report.frames, report.shots) == (COUNT, 3)
    assert packets(tmp_path / "out.mp4") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_what_sections_lack_is_made_by_the_job(video, whole, tiny_upscaler, tmp_path):
    """One was never begun, one was stopped over its second segment, one is damaged."""
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    _, second, third = divided(plan, tiny_upscaler)
    run_job(replace(plan, stretch=third), tiny_upscaler)
    with pytest.raises(KeyboardInterrupt):
        run_job(replace(plan, stretch=second), Windows(tiny_upscaler, 3))  # type: ignore[arg-type]
    for file in (section_folder(plan.target, third) / "segments").iterdir():
        file.write_bytes(b"not what it was")
    last = Windows(tiny_upscaler)
    upscale_video(video, plan.target, last, JOB)  # type: ignore[arg-type]
    assert last.starts == [0, 4, 12, 16, 19, 23, 25, 29]  # not 8: [8, 16) was finished
    assert packets(plan.target) == whole


def test_a_section_that_was_stopped_goes_on(video, whole, tiny_upscaler, tmp_path):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    sections = divided(plan, tiny_upscaler, 2)
    first = replace(plan, stretch=sections[0])
    with pytest.raises(KeyboardInterrupt):
        run_job(first, Windows(tiny_upscaler, 3))  # type: ignore[arg-type]
    again = Windows(tiny_upscaler)
    run_job(first, again)  # type: ignore[arg-type]
    assert again.starts[0] == 8
    rest = divided(plan, tiny_upscaler, 2)  # as when a batch is run again
    assert rest[0].start == sections[0].end
    for section in rest:
        run_job(replace(plan, stretch=section), tiny_upscaler)
    run_job(plan, tiny_upscaler)
    assert packets(plan.target) == whole


def test_images_are_shared_as_well(tiny_upscaler, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i, frame in enumerate(make_frames(COUNT, 24, 32)):
        Image.fromarray(frame).save(images / f"{i}.png")
    upscale_video(images, tmp_path / "whole", tiny_upscaler, JOB)
    plan = planned(images, tmp_path / "out", tiny_upscaler)
    for section in divided(plan, tiny_upscaler):
        run_job(replace(plan, stretch=section), tiny_upscaler)
    last = Windows(tiny_upscaler)
    run_job(plan, last)  # type: ignore[arg-type]
    assert last.starts == []
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_worker_that_computes_otherwise_makes_no_section(video, tiny_upscaler, tmp_path):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    section = divided(plan, tiny_upscaler)[1]
    other = Windows(tiny_upscaler)
    other.dtype = "bfloat16"
    with pytest.raises(SettingsError, match="was begun otherwise than this worker would go on"):
        run_job(replace(plan, stretch=section), other)  # type: ignore[arg-type]
    assert other.starts == []


def test_restarting_begins_without_what_sections_hold(video, tiny_upscaler, tmp_path):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    for section in divided(plan, tiny_upscaler):
        run_job(replace(plan, stretch=section), tiny_upscaler)
    again = Windows(tiny_upscaler)
    settings = replace(JOB, crf=30, restart=True)
    upscale_video(video, plan.target, again, settings)  # type: ignore[arg-type]
    assert again.starts == [0, 4, 8, 12, 16, 19, 23, 25, 29]


def test_a_section_beyond_the_end_does_not_tell_where_that_is(video, tiny_upscaler, tmp_path):
    """As where a container counts more packets than give frames; the others were not made."""
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    divided(plan, tiny_upscaler)
    run_job(replace(plan, stretch=Stretch(0, 8)), tiny_upscaler)
    run_job(replace(plan, stretch=Stretch(COUNT, None, COUNT)), tiny_upscaler)
    assert run_job(plan, tiny_upscaler).frames == COUNT


def test_a_division_that_is_interrupted_leaves_nothing(video, tiny_upscaler, tmp_path):
    def interrupt(frame: int) -> None:
        if frame == 9:
            raise KeyboardInterrupt

    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    with pytest.raises(KeyboardInterrupt):
        divide(plan, tiny_upscaler, 3, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_section_keeps_no_frames_for_another(video, tiny_upscaler, tmp_path):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    section = divided(plan, tiny_upscaler)[0]
    run_job(replace(plan, stretch=section), tiny_upscaler)
    folder = section_folder(plan.target, section)
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "manifest.json", "segments"]


def test_what_else_lies_among_sections_is_no_matter(video, whole, tiny_upscaler, tmp_path):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    first, second, _ = divided(plan, tiny_upscaler)
    for section in (first, second):
        run_job(replace(plan, stretch=section), tiny_upscaler)
    (section_folder(plan.target, second) / "manifest.json").write_text("{")
    (tmp_path / "out.mp4.job" / "sections" / ".DS_Store").write_text("")
    (job,) = find_jobs(tmp_path)
    assert job.share == pytest.approx(8 / COUNT)
    last = Windows(tiny_upscaler)
    run_job(plan, last)  # type: ignore[arg-type]
    assert last.starts[0] == 4
    assert packets(plan.target) == whole


@pytest.mark.parametrize("call", [1, 2])
def test_taking_over_goes_on_where_it_was_interrupted(
    video, whole, tiny_upscaler, tmp_path, monkeypatch, call
):
    """Each section is removed when its segments are noted: so many are, one more is noted."""
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    for section in divided(plan, tiny_upscaler):
        run_job(replace(plan, stretch=section), tiny_upscaler)
    remove, calls = takeover.remove_folder, []

    def die(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == call:
            raise KeyboardInterrupt
        remove(folder)

    with monkeypatch.context() as patch:
        patch.setattr(takeover, "remove_folder", die)
        with pytest.raises(KeyboardInterrupt):
            run_job(plan, tiny_upscaler)
    last = Windows(tiny_upscaler)
    run_job(plan, last)  # type: ignore[arg-type]
    assert last.starts == []
    assert packets(plan.target) == whole


def test_nobody_else_makes_it_meanwhile(video, tiny_upscaler, tmp_path):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    section = divided(plan, tiny_upscaler)[0]
    run_job(replace(plan, stretch=section), tiny_upscaler)
    with sole_hold(section_folder(plan.target, section) / "lock"):
        for job in (JOB, replace(JOB, restart=True)):
            with pytest.raises(SettingsError, match=r"another process is making .*out\.mp4: wait"):
                upscale_video(video, plan.target, tiny_upscaler, job)
        (job,) = find_jobs(tmp_path)
        assert job.running
        assert not remove_job(job)
    assert 0 < job.share < 1
    assert job.age < 60
    assert remove_job(job)
    assert list(tmp_path.iterdir()) == []


def test_what_one_worker_can_make_is_not_divided(video, tiny_upscaler, tmp_path):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    *others, last = divided(plan, tiny_upscaler)
    for section in others:
        run_job(replace(plan, stretch=section), tiny_upscaler)
    assert divided(plan, tiny_upscaler, 1) == []
    run_job(replace(plan, stretch=last), tiny_upscaler)
    assert divided(plan, tiny_upscaler) == []  # nothing is left


def test_a_section_of_a_job_that_was_removed_is_not_made(video, tiny_upscaler, tmp_path):
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler)
    section = divided(plan, tiny_upscaler)[1]
    (job,) = find_jobs(tmp_path)
    assert remove_job(job)
    with pytest.raises(SettingsError, match="was begun otherwise than this worker would go on"):
        run_job(replace(plan, stretch=section), tiny_upscaler)
    assert list(tmp_path.iterdir()) == []


def test_what_is_short_is_not_divided(video, tiny_upscaler, tmp_path):
    job = JobSettings(scale=1, window=5, overlap=1)
    plan = planned(video, tmp_path / "out.mp4", tiny_upscaler, job)
    assert divided(plan, tiny_upscaler) == []
    assert list(tmp_path.iterdir()) == []
