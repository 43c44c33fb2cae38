"""Samples that are made once: pairs stay pairs, and every use is another cut."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from made_models import make_frames
from made_videos import make_video
from PIL import Image

from skipsr.data.clips import ClipDataset
from skipsr.data.degrade import Degradation, downscale
from skipsr.errors import MediaError
from skipsr.train import kept as kept_samples
from skipsr.train.kept import KeptSource, larger, samples_name, shard_count
from skipsr.train.objectives.reconstruct import truth_for
from skipsr.train.settings import TrainSettings

SETTINGS = TrainSettings(
    model="skipvsr:tiny",
    steps=8,
    batch=2,
    crop=32,
    frames=4,
    degradation=Degradation(clean=1.0),
    samples=4,
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeptSource, ClipDataset]:
    folder = tmp_path_factory.mktemp("kept")
    make_video(folder / "a.mp4", list(make_frames(9, 64, 80)))
    crop, frames = larger(SETTINGS)
    assert (crop, frames) == (40, 6)
    data = ClipDataset(folder, crop=crop, frames=frames)
    source = KeptSource(folder / samples_name(data, SETTINGS), SETTINGS, lambda frames, _: frames)
    source.fill(data, iter(range(shard_count(SETTINGS))))
    return source, data


def test_a_cut_is_still_a_pair(kept: tuple[KeptSource, ClipDataset]):
    """However a sample is cut, flipped and turned: shrunk, the truth is what the network sees."""
    source, _ = kept
    for step in range(8):
        batch = source(step, range(2))
        assert batch.high.shape == (2, 3, 4, 32, 32)
        assert batch.base.shape == (2, 3, 4, 8, 8)
        assert batch.high.dtype == torch.uint8
        shrunk = 255 * downscale(batch.high.float() / 255, 4)
        inner = (..., slice(2, -2), slice(2, -2))  # at its border a cut knows less than the whole
        torch.testing.assert_close(shrunk[inner], 255 * batch.base[inner], atol=1.01, rtol=0)


def test_every_use_is_another_cut_and_the_same_step_the_same(
    kept: tuple[KeptSource, ClipDataset],
):
    source, _ = kept
    first, again, later = source(0, range(2)), source(0, range(2)), source(2, range(2))
    assert torch.equal(first.high, again.high)
    assert torch.equal(first.base, again.base)
    assert not torch.equal(first.high, later.high)


def test_samples_that_are_there_are_not_made_again(kept: tuple[KeptSource, ClipDataset]):
    source, data = kept
    files = sorted(source.folder.iterdir())
    before = [path.stat().st_mtime_ns for path in files]
    source.fill(data, iter(range(shard_count(SETTINGS))))
    assert [path.stat().st_mtime_ns for path in sorted(source.folder.iterdir())] == before


def test_a_fault_ends_the_making_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And so does an interrupt: samples that were not begun by then are not made."""
    made: list[int] = []

    def make(_data: object, _settings: object, _folder: object, shard: int) -> None:
        if not shard:
            raise MediaError("torn")
        time.sleep(0.02)
        made.append(shard)

    monkeypatch.setattr(kept_samples, "_make", make)
    monkeypatch.setattr(kept_samples, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(kept_samples.os, "cpu_count", lambda: 2)
    Image.fromarray(make_frames(1, 64, 64)[0]).save(tmp_path / "a.png")
    data = ClipDataset(tmp_path, crop=40, frames=6, cache=tmp_path / "cache")
    with pytest.raises(MediaError, match="torn"):
        KeptSource(tmp_path / "out", SETTINGS, lambda x, _: x).fill(data, iter(range(40)))
    assert len(made) < 10


def test_other_data_of_the_same_names_are_other_samples(tmp_path: Path):
    crop, frames = larger(SETTINGS)
    names: list[str] = []
    for seed in (0, 0, 1):
        make_video(tmp_path / "a.mp4", list(make_frames(9, 64, 80, seed)))
        names.append(samples_name(ClipDataset(tmp_path, crop=crop, frames=frames), SETTINGS))
    assert names[0] == names[1] != names[2]


def test_what_shrinks_by_four_serves_a_network_for_two():
    high = torch.rand(1, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    assert truth_for(high[..., ::2, ::2], high).shape == (1, 3, 2, 16, 16)
    assert truth_for(high, high) is high
