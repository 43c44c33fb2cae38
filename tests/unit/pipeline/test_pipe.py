"""A stream in, a larger stream out."""

import io
from dataclasses import replace

import numpy as np
import pytest
from made_models import make_frames

from skipsr.backbones.contract import Upscaled
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.pipeline.job import Progress, upscale_frames
from skipsr.pipeline.pipe import upscale_pipe
from skipsr.settings import JobSettings
from skipsr.video import PipeReader, PipeWriter, frames_info

HALF = JobSettings(scale=2, window=5, overlap=1)


def written(frames: np.ndarray, rate: int = 25) -> bytes:
    """Frames of RGB as full 4:4:4, in a stream."""
    size = frames.shape[1:3]
    out = io.BytesIO()
    with PipeWriter(out, frames_info(size, rate=rate), size) as writer:
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


def test_windows_stay_those_that_memory_was_planned_for(
    tiny_upscaler: SeedVR2Upscaler, monkeypatch: pytest.MonkeyPatch
):
    """Once the model is loaded less memory is free, and other windows would be planned."""
    monkeypatch.setattr("skipsr.pipeline.pipe.plan_windows", lambda *_: (3, 0, None))
    windows: list[tuple[int, int]] = []

    class Windows:
        def __getattr__(self, name: str) -> object:
            return getattr(tiny_upscaler, name)

        def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
            windows.append((clip.start, len(clip)))
            return tiny_upscaler.upscale(clip, size, seed=seed)

    source = io.BytesIO(written(make_frames(8, 20, 26)))
    settings, model = JobSettings(scale=2), Windows()
    upscale_pipe(source, io.BytesIO(), tiny_upscaler.limits, lambda _: model, settings)  # type: ignore[arg-type, return-value]
    assert windows == [(0, 3), (3, 3), (6, 2)]


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
