"""A stream in, a larger stream out."""

import io
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from made_models import make_frames

from skipsr.backbones.contract import Upscaled
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.backbones.wrapper import UpscalerWrapper
from skipsr.clip import Clip
from skipsr.errors import MediaError, SettingsError
from skipsr.limits import MemoryPlan
from skipsr.pipeline.job import Progress, upscale_frames
from skipsr.pipeline.pipe import upscale_pipe
from skipsr.settings import JobSettings
from skipsr.video import PipeReader, PipeWriter, frames_info

HALF = JobSettings(scale=2, window=5, overlap=1)


class Plain(UpscalerWrapper):
    """Enlarges without the network, so that what is flat stays as it is."""

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        return replace(super().upscale(clip, size, seed=seed), clip=self.upsample(clip, size))


def written(frames: np.ndarray, rate: int = 25) -> bytes:
    """Frames of RGB as full 4:4:4, in a stream."""
    size = frames.shape[1:3]
    out = io.BytesIO()
    writer = PipeWriter(out, frames_info(size, rate=rate), size)
    for frame in frames:
        writer.write(frame)
    return out.getvalue()


def test_it_gives_what_the_frames_give(tiny_upscaler: SeedVR2Upscaler):
    source = written(make_frames(8, 20, 26), rate=30)
    with PipeReader(io.BytesIO(source)) as reader:
        assert reader.info.rate == 30
        low = list(reader.frames())
    told: list[Progress] = []
    out = io.BytesIO()
    count = upscale_pipe(
        io.BytesIO(source), out, tiny_upscaler.limits, lambda _: tiny_upscaler, HALF, told.append
    )
    assert count == len(told) == told[-1].frames == 8
    with PipeReader(io.BytesIO(out.getvalue())) as reader:
        assert (reader.info.rate, reader.info.height, reader.info.width) == (30, 40, 52)
        assert len(list(reader.frames())) == 8
    expected = np.stack(list(upscale_frames(low, tiny_upscaler, HALF)))
    assert out.getvalue() == written(expected, rate=30)


def test_nothing_is_held_back_in_a_buffer(tiny_upscaler: SeedVR2Upscaler):
    source, pipe = written(make_frames(2, 20, 26)), io.BytesIO()
    out = io.BufferedWriter(pipe, 2**20)  # type: ignore[arg-type]
    upscale_pipe(io.BytesIO(source), out, tiny_upscaler.limits, lambda _: tiny_upscaler, HALF)
    with PipeReader(io.BytesIO(pipe.getvalue())) as reader:
        assert len(list(reader.frames())) == 2


def test_sides_are_even(tiny_upscaler: SeedVR2Upscaler):
    out = io.BytesIO()
    source = io.BytesIO(written(make_frames(2, 20, 26)))
    settings = replace(HALF, scale=None, height=33)
    upscale_pipe(source, out, tiny_upscaler.limits, lambda _: tiny_upscaler, settings)
    assert out.getvalue().startswith(b"YUV4MPEG2 W42 H34 ")


def test_the_model_is_loaded_once_the_size_is_known(tiny_upscaler: SeedVR2Upscaler):
    """What cannot be is refused before, and nothing is written."""
    out = io.BytesIO()
    source = io.BytesIO(written(make_frames(2, 20, 26)))

    def load(_: object) -> SeedVR2Upscaler:
        pytest.fail("was loaded")

    with pytest.raises(SettingsError, match="`height`"):
        upscale_pipe(
            source, out, tiny_upscaler.limits, load, replace(HALF, scale=None, height=16384)
        )
    assert out.getvalue() == b""


@pytest.mark.parametrize(
    ("given", "depth", "colour", "expected"),
    [
        ("420jpeg", 8, 16 * 12, "420jpeg"),
        ("420p9", 9, 16 * 12, "420p9"),
        ("420p12", 12, 16 * 12, "420p12"),
        ("444p16", 16, 32 * 24, "444p16"),
        ("mono", 8, 0, "420jpeg"),
        ("mono12", 12, 0, "420p12"),
        ("411", 8, 8 * 24, "422"),
    ],
)
def test_depth_and_chroma_stay(
    tiny_upscaler: SeedVR2Upscaler, given: str, depth: int, colour: int, expected: str
):
    """And what was flat is as light as it was."""
    unit, dtype = 2 ** (depth - 8), np.uint8 if depth == 8 else np.uint16
    planes = np.full(32 * 24, 100 * unit, dtype), np.full(2 * colour, 128 * unit, dtype)
    frame = b"FRAME\n" + b"".join(plane.tobytes() for plane in planes)
    source = f"YUV4MPEG2 W32 H24 F25:1 Ip C{given} XCOLORRANGE=LIMITED\n".encode() + 2 * frame
    out, plain = io.BytesIO(), Plain(tiny_upscaler)
    upscale_pipe(io.BytesIO(source), out, plain.limits, lambda _: plain, HALF)
    header, _, pixels = out.getvalue().partition(b"\nFRAME\n")
    assert f" C{expected} ".encode() in header
    luma = np.frombuffer(pixels[: 64 * 48 * dtype().itemsize], dtype).astype(int)
    assert np.abs(luma - 100 * unit).max() <= unit


def test_an_end_within_a_frame_is_told_once_the_others_are_written(tiny_upscaler: SeedVR2Upscaler):
    source, out = written(make_frames(4, 20, 26))[:-100], io.BytesIO()
    with pytest.raises(MediaError, match="ends within a frame"):
        upscale_pipe(io.BytesIO(source), out, tiny_upscaler.limits, lambda _: tiny_upscaler, HALF)
    with PipeReader(io.BytesIO(out.getvalue())) as reader:
        assert len(list(reader.frames())) == 3
        reader.check_end()


def test_frames_that_are_too_small_are_refused_before_a_model_is_loaded(
    tiny_upscaler: SeedVR2Upscaler,
):
    limits = replace(tiny_upscaler.limits, smallest=32)
    source = io.BytesIO(written(make_frames(2, 20, 26)))
    with pytest.raises(MediaError, match="a frame is 26x20; at least 32 pixels"):
        upscale_pipe(source, io.BytesIO(), limits, lambda _: pytest.fail("was loaded"), HALF)


def test_frames_are_planned_for_once(
    tiny_upscaler: SeedVR2Upscaler, monkeypatch: pytest.MonkeyPatch
):
    """Loading takes of the memory that was planned with: what follows is as it was planned."""
    plan, used = MemoryPlan(window=5, stages={"window": 1}), []
    monkeypatch.setattr("skipsr.pipeline.plan.plan_windows", lambda *_, **__: (5, 1, plan))

    @contextmanager
    def arranged(_: object, memory: MemoryPlan | None):
        used.append(memory)
        yield

    monkeypatch.setattr("skipsr.pipeline.job.arranged", arranged)

    def load(memory: MemoryPlan | None) -> SeedVR2Upscaler:
        used.append(memory)
        monkeypatch.setattr(
            "skipsr.pipeline.plan.plan_windows", lambda *_, **__: pytest.fail("again")
        )
        return tiny_upscaler

    source = io.BytesIO(written(make_frames(2, 20, 26)))
    upscale_pipe(source, io.BytesIO(), tiny_upscaler.limits, load, HALF)
    assert used == [plan, plan]


@pytest.mark.parametrize(("length", "of"), [("", [0, 0, 0]), ("XLENGTH=2 ", [2, 2, 3])])
def test_progress_knows_of_how_many_where_the_header_says_so(
    tiny_upscaler: SeedVR2Upscaler, length: str, of: list[int]
):
    source = written(make_frames(3, 20, 26)).replace(b" Ip ", f" Ip {length}".encode(), 1)
    told: list[Progress] = []
    upscale_pipe(
        io.BytesIO(source),
        io.BytesIO(),
        tiny_upscaler.limits,
        lambda _: tiny_upscaler,
        HALF,
        told.append,
    )
    assert [(one.frames, one.of) for one in told] == [*zip((1, 2, 3), of, strict=True)]


def test_an_interrupt_says_what_was_written(tiny_upscaler: SeedVR2Upscaler):
    def stop(progress: Progress) -> None:
        if progress.frames == 2:
            raise KeyboardInterrupt

    source = io.BytesIO(written(make_frames(4, 20, 26)))
    with pytest.raises(KeyboardInterrupt) as caught:
        upscale_pipe(
            source, io.BytesIO(), tiny_upscaler.limits, lambda _: tiny_upscaler, HALF, stop
        )
    assert caught.value.__notes__ == ["2 frames had been written"]
