"""From items to samples: crops that fit, given LR kept, made LR repeatable."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_models import make_frames
from made_videos import make_video
from PIL import Image

from skipsr.clip import Clip
from skipsr.data.benchmarks import Item
from skipsr.data.degrade import downscale, quantize
from skipsr.errors import MediaError, SettingsError
from skipsr.evaluation.samples import read_sample, write_low
from skipsr.settings import EvalSettings
from skipsr.video import Source, open_source, probe


def frames_folder(path: Path, count: int, height: int, width: int) -> Path:
    path.mkdir(parents=True)
    for index, frame in enumerate(make_frames(count, height, width)):
        Image.fromarray(frame).save(path / f"{index}.png")
    return path


def test_made_lr_is_whole_and_even(tmp_path: Path):
    truth = frames_folder(tmp_path / "clip", 6, 67, 85)
    sample = read_sample(Item("clip", truth, None), EvalSettings(frames=5), 8)
    assert sample.truth is not None
    assert sample.truth.shape == (5, 3, 64, 80)
    assert sample.low.shape == (5, 3, 16, 20)
    assert sample.size == (64, 80)
    frames = Clip.from_array(make_frames(6, 67, 85)[:5, :64, :80]).frames
    assert torch.equal(sample.truth, frames)
    expected = quantize(downscale(frames.permute(1, 0, 2, 3)[None], 4))[0].permute(1, 0, 2, 3)
    assert torch.equal(sample.low, expected)


def test_given_lr_is_used_unless_asked_otherwise(tmp_path: Path):
    truth = frames_folder(tmp_path / "gt" / "a", 4, 67, 80)
    low = frames_folder(tmp_path / "lq" / "a", 4, 17, 20)
    sample = read_sample(Item("a", truth, low), EvalSettings(), 8)
    given = Clip.from_array(make_frames(4, 17, 20)).frames
    assert torch.equal(sample.low, given[:, :, :16])
    assert sample.truth is not None
    assert sample.truth.shape == (4, 3, 64, 80)
    made = read_sample(Item("a", truth, low), EvalSettings(degrade="bicubic"), 8)
    assert made.low.shape == (4, 3, 16, 20)
    alone = read_sample(Item("a", None, low), EvalSettings(degrade="bicubic"), 8)
    assert alone.truth is None
    assert torch.equal(alone.low, given[:, :, :16])


def test_a_truth_of_another_scale_is_refused(tmp_path: Path):
    truth = frames_folder(tmp_path / "gt" / "a", 2, 64, 64)
    low = frames_folder(tmp_path / "lq" / "a", 2, 32, 32)
    with pytest.raises(MediaError, match="not `scale` 4"):
        read_sample(Item("a", truth, low), EvalSettings(), 8)
    assert read_sample(Item("a", truth, low), EvalSettings(scale=2), 8).size == (64, 64)


def test_a_truth_of_another_length_is_refused(tmp_path: Path):
    """Also where the frames that are read are there: the first ones need not be the same."""
    truth = frames_folder(tmp_path / "gt" / "a", 5, 64, 64)
    low = frames_folder(tmp_path / "lq" / "a", 5, 16, 16)
    video = make_video(tmp_path / "a.mkv", list(make_frames(5, 64, 64)))
    settings = EvalSettings(frames=2)
    for path in (truth, video):
        assert read_sample(Item("a", path, low), settings, 8).low.shape == (2, 3, 16, 16)
    (low / "0.png").unlink()
    for path in (truth, video):
        with pytest.raises(MediaError, match="lq/a has 4 frames and its truth 5"):
            read_sample(Item("a", path, low), settings, 8)
        read_sample(Item("a", path, low), replace(settings, degrade="bicubic"), 8)


def test_frames_of_a_video_are_counted_where_its_packets_disagree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    truth = make_video(tmp_path / "a.mkv", list(make_frames(5, 64, 64)))
    low = frames_folder(tmp_path / "lq" / "a", 5, 16, 16)

    def open_estimated(path: Path) -> Source:
        info = probe(path)
        return open_source(replace(info, frames=6) if path == truth else info)

    monkeypatch.setattr("skipsr.evaluation.samples.open_source", open_estimated)
    assert len(read_sample(Item("a", truth, low), EvalSettings(), 8).low) == 5


def test_small_clips_are_refused(tmp_path: Path):
    truth = frames_folder(tmp_path / "a", 1, 30, 64)
    with pytest.raises(MediaError, match="at least 8"):
        read_sample(Item("a", truth, None), EvalSettings(), 8)


@pytest.mark.parametrize("degrade", ["bd", "real"])
def test_other_degradations(degrade: str, tmp_path: Path):
    items = [
        Item(name, frames_folder(tmp_path / name, 2, 64, 64), None) for name in ("first", "second")
    ]
    settings = EvalSettings(degrade=degrade)  # type: ignore[arg-type]
    a, b = (read_sample(item, settings, 8) for item in items)
    again = read_sample(items[0], settings, 8)
    assert torch.equal(a.low, again.low)
    assert torch.equal(a.low, quantize(a.low))
    plain = read_sample(items[0], EvalSettings(), 8)
    assert not torch.equal(a.low, plain.low)
    # the two clips hold the same frames: only the draws of real-world damage differ by name
    assert torch.equal(a.low, b.low) == (degrade == "bd")
    # aligned with the truth: nearer to the plain LR than to one shifted by a pixel
    shifted = plain.low.roll(1, 3)
    assert (a.low - plain.low).abs().mean() < (a.low - shifted).abs().mean()


def test_lr_files_hold_the_lr_frames(tmp_path: Path):
    truth = frames_folder(tmp_path / "clip", 3, 64, 64)
    sample = read_sample(Item("clip", truth, None), EvalSettings(), 8)
    with open_source(write_low(sample, tmp_path)) as source:
        assert torch.equal(next(source.clips(3, 0)).frames, sample.low)


@pytest.mark.parametrize(
    "wrong",
    [{"scale": 1}, {"frames": 0}, {"metrics": ("niqe", "niqe")}, {"degrade": "bd", "scale": 2}],
)
def test_settings_are_checked(wrong: dict[str, object]):
    with pytest.raises(SettingsError):
        EvalSettings(**wrong)  # type: ignore[arg-type]
