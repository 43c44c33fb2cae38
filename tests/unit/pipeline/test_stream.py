"""The heart of a job: clips in, joined results out, with no file and in bounded memory."""

import gc
import weakref
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_models import make_clip, make_frames
from made_videos import make_video, ramp

from skipsr.backbones import contract
from skipsr.backbones.contract import Upscaled
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.errors import MediaError, SettingsError
from skipsr.limits import Limits
from skipsr.pipeline.job import upscale_frames, upscale_video
from skipsr.pipeline.plan import plan_job, plan_windows
from skipsr.pipeline.stream import Reach, Tally, stream
from skipsr.settings import JobSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.video import probe

HALF = JobSettings(scale=2, window=5, overlap=1)


def compute_map(computed: int, total: int, **stages: float) -> ComputeMap:
    share = torch.full((1, 1, 1), computed / total)
    return ComputeMap(
        fractions=share, cell_size=(8, 8), units_run=computed, units_total=total, stages=stages
    )


def test_results_keep_the_times_of_their_clips():
    whole = make_clip(6, 8, 8)
    clips = [Clip(whole.frames[a:b], a, tuple(range(3 * a, 3 * b, 3))) for a, b in ((0, 4), (3, 6))]
    seen: list[Upscaled] = []

    def run(clip: Clip) -> Upscaled:
        return Upscaled(Clip(clip.frames * 0.5, clip.start), compute_map(1, 2))

    found = [joined.clip for joined in stream(clips, run, seen.append)]
    assert [clip.start for clip in found] == [0, 3]
    assert [time for clip in found for time in clip.times] == [0, 3, 6, 9, 12, 15]
    joined = torch.cat([clip.frames for clip in found])
    torch.testing.assert_close(joined, whole.frames * 0.5)
    assert [result.clip.start for result in seen] == [0, 3]


def test_a_tally_weighs_windows_by_their_units():
    tally = Tally()
    assert tally.fraction == 0
    tally.add(compute_map(1, 2, decode=0.5))
    tally.add(compute_map(6, 6, decode=1.0, encode=0.25))
    assert tally.stages == {"decode": pytest.approx(7 / 8), "encode": pytest.approx(6 * 0.25 / 8)}
    assert tally.fraction == tally.spent == pytest.approx(7 / 8)
    tally.add(replace(compute_map(2, 8), spent=0.5))  # counted otherwise than by units
    assert tally.fraction == pytest.approx(9 / 16)
    assert tally.spent == pytest.approx((7 + 4) / 16)


def test_frames_that_windows_share_count_once_on_the_way():
    reach = Reach()
    told: list[float] = []
    for start, first, stop in ((0, 0, None), (4, 0, None), (20, 22, 24)):  # the last leads to 22
        reach.enter(Clip(torch.zeros(6, 3, 1, 1), start), first, stop)
        told += [reach.frames(0.0), reach.frames(0.5)]
    assert told == [0, 3, 6, 8, 10, 11]


def test_a_plan_is_made_of_plain_numbers(tmp_path: Path):
    source = make_video(tmp_path / "a.mp4", ramp(9))
    settings = JobSettings(scale=1.5, window=4, overlap=1)
    plan = plan_job(source, tmp_path / "b.mp4", Limits(smallest=8), settings)
    assert (plan.size, plan.window, plan.overlap) == ((72, 96), 4, 1)
    assert [(w.start, w.end) for w in plan.windows] == [(0, 4), (3, 7), (6, 9)]
    assert (plan.source.frames, plan.source.rate) == (9, Fraction(25))
    assert plan == plan_job(probe(source), tmp_path / "b.mp4", Limits(smallest=8), settings)
    assert plan == plan_job(str(source), str(tmp_path / "b.mp4"), Limits(smallest=8), settings)


def test_frames_whose_number_is_known_are_planned_with_no_more(
    tiny_upscaler: SeedVR2Upscaler, monkeypatch: pytest.MonkeyPatch
):
    told: list[int | None] = []

    def spied(*given: object, frames: int | None) -> object:
        told.append(frames)
        return plan_windows(*given, frames=frames)  # type: ignore[arg-type]

    monkeypatch.setattr("skipsr.pipeline.plan.plan_windows", spied)
    frames = make_frames(2, 20, 27)
    for given in (list(frames), np.stack(list(frames)), iter(frames)):
        assert len(list(upscale_frames(given, tiny_upscaler, HALF))) == 2
    assert told == [2, 2, None]


def test_frames_from_memory_are_those_of_the_clip(tiny_upscaler: SeedVR2Upscaler):
    frames = make_frames(5, 20, 27)
    ours = list(upscale_frames(iter(frames), tiny_upscaler, HALF))
    clip = tiny_upscaler.upscale(make_clip(5, 20, 27), (40, 54)).clip
    assert np.array_equal(ours, clip.to_array())
    deep = [frame.astype(np.uint16) * 257 for frame in frames]
    assert np.array_equal(list(upscale_frames(deep, tiny_upscaler, HALF)), clip.to_array(16))
    assert list(upscale_frames([], tiny_upscaler, HALF)) == []
    # whoever keeps one keeps no more, and can write it to a pipe as it is
    assert all(frame.flags.c_contiguous and frame.flags.owndata for frame in ours)


def test_the_memory_of_a_frame_may_be_used_for_the_next(tiny_upscaler: SeedVR2Upscaler):
    frames = make_frames(9, 20, 27)

    def camera():
        held = np.empty_like(frames[0])
        for frame in frames:
            held[...] = frame
            yield held

    ours = list(upscale_frames(camera(), tiny_upscaler, HALF))
    assert np.array_equal(ours, list(upscale_frames(frames, tiny_upscaler, HALF)))


def test_a_stream_of_frames_that_is_closed_early_asks_for_no_more(tiny_upscaler: SeedVR2Upscaler):
    asked: list[int] = []

    def camera():
        for i in range(100):
            asked.append(i)
            yield np.full((8, 8, 3), i, np.uint8)

    with closing(upscale_frames(camera(), tiny_upscaler, HALF)) as frames:
        next(frames)
    assert asked == list(range(5 + 4))
    assert list(frames) == []


def test_memory_does_not_grow_with_the_number_of_frames(tiny_upscaler: SeedVR2Upscaler):
    """Of four times the frames no more are alive at once, and none is asked for early."""

    def most(count: int) -> tuple[int, int]:
        alive = asked = given = 0
        found: list[tuple[int, int]] = []

        def died() -> None:
            nonlocal alive
            alive -= 1

        class Counted(np.ndarray):
            """A frame that counts with its copies."""

            def copy(self, order: Any = "C") -> Any:
                return counted(super().copy(order))

        def counted(frame: Counted) -> Counted:
            nonlocal alive
            alive += 1
            weakref.finalize(frame, died)
            return frame

        def made():
            nonlocal asked
            for i in range(count):
                frame = counted(np.full((8, 8, 3), 100 + i % 3, np.uint8).view(Counted))
                asked += 1
                found.append((alive, asked - given))
                yield frame
                del frame

        for _ in upscale_frames(made(), tiny_upscaler, JobSettings(scale=2, window=5, overlap=1)):
            given += 1
        assert given == count
        gc.collect()
        return max(a for a, _ in found), max(b for _, b in found)

    few = most(20)
    assert most(80) == few
    assert few[0] <= 11  # two windows, and the one that is copied


class Lone:
    """An upscaler that repeats pixels, and looks whether earlier results are still there."""

    name, device, dtype, asked = "lone", "cpu", "float32", dict[str, float]()
    limits = Limits(side=2, smallest=8)

    def __init__(self) -> None:
        self.there: list[int] = []
        gc.collect()
        self._others = [x for x in gc.get_objects() if isinstance(x, torch.Tensor)]

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        tensors = (x for x in gc.get_objects() if isinstance(x, torch.Tensor))
        others = set(map(id, self._others))
        own = (x for x in tensors if id(x) not in others)
        large = [x for x in own if x.shape[-2:] == size and len(x) > 1]  # what is kept has one
        self.there.append(len(large))
        made = clip.frames.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return Upscaled(Clip(made, clip.start), compute_map(1, 1))


def test_no_result_is_there_while_the_next_is_made(tmp_path: Path):
    from_memory, from_file = Lone(), Lone()
    frames = make_frames(13, 16, 16)
    assert len(list(upscale_frames(frames, from_memory, HALF))) == 13
    source = make_video(tmp_path / "in.mp4", list(frames))
    upscale_video(source, tmp_path / "out.mp4", from_file, HALF)
    assert from_memory.there == [0, 0, 0]
    assert from_file.there == [0, 0, 0]


@pytest.mark.parametrize(
    ("frames", "error", "match"),
    [
        ([np.zeros((8, 8, 4), np.uint8)], MediaError, "a frame is h w 3"),
        ([None], MediaError, "not of type NoneType"),
        ([torch.zeros(8, 8, 3)], MediaError, "a NumPy array .* not of type Tensor"),
        ([np.zeros((8, 8, 3), np.float32)], MediaError, "of uint8 or uint16, not"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], MediaError, "all alike"),
        ([np.zeros((4, 8, 3), np.uint8)], MediaError, "a frame is 8x4; at least"),
        ([np.zeros((8, 2000, 3), np.uint8)], SettingsError, "change `scale`"),
    ],
)
def test_frames_that_will_not_do(
    tiny_upscaler: SeedVR2Upscaler, frames: list[np.ndarray], error: type[Exception], match: str
):
    scale = 16 if error is SettingsError else 2
    with pytest.raises(error, match=match):
        list(upscale_frames(frames, tiny_upscaler, JobSettings(scale=scale)))


def test_a_job_on_a_processor_keeps_what_it_frees(
    tiny_upscaler: SeedVR2Upscaler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    told: list[bool] = []

    @contextmanager
    def keep_freed(roomy: bool) -> Generator[None]:
        told.append(roomy)
        yield

    monkeypatch.setattr(contract, "keep_freed", keep_freed)
    assert len(list(upscale_frames(make_frames(5, 16, 16), tiny_upscaler, HALF))) == 5
    source = make_video(tmp_path / "in.mp4", ramp(5, 16, 16))
    upscale_video(source, tmp_path / "out.mp4", tiny_upscaler, HALF)
    assert told == [True, True]
