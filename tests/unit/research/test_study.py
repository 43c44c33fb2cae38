"""The blind study: the page hides who is who, the key knows, and crops show the difference."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from made_clips import copy_with_broken
from made_models import make_frames
from PIL import Image

from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import MediaError
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.methods import run_model
from skipsr.evaluation.samples import read_sample
from skipsr.research.study import crop, make_study
from skipsr.settings import EvalSettings, SkipSettings
from skipsr.video import open_source

NAMES = ("Alpha:one", "Beta:two")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three moving clips and a picture."""
    root = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(("walk", "city", "tree")):
        (root / name).mkdir()
        for index, frame in enumerate(make_frames(3, 64, 64, seed)):
            Image.fromarray(frame).save(root / name / f"{index}.png")
    Image.fromarray(make_frames(1, 64, 64, 9)[0]).save(root / "still.png")
    return root


@pytest.fixture(scope="module")
def models(tiny_upscaler: SeedVR2Upscaler) -> dict[str, SeedVR2Upscaler]:
    plain = TokenSkippingUpscaler("b", tiny_upscaler.model, SkipSettings(threshold=1.0))
    return dict(zip(NAMES, (tiny_upscaler, plain), strict=True))


def study(
    clips: Path, models: dict[str, SeedVR2Upscaler], folder: Path, seed: int
) -> tuple[str, dict]:
    settings = EvalSettings(frames=3, seed=seed)
    page = make_study(find_clips(clips, settings), models, settings, folder, {}).page
    return page.read_text(), json.loads((folder / "study-key.json").read_text())


@pytest.fixture(scope="module")
def made(clips: Path, models: dict, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    return study(clips, models, tmp_path_factory.mktemp("study"), seed=0)


def data_of(page: str) -> dict:
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_nothing_is_said_of_the_pages_own_files(
    clips: Path, models: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """A study has no option to choose a codec."""
    study(clips, models, tmp_path, seed=0)
    assert caplog.messages == []


def test_page_and_key(made: tuple[str, dict]):
    page, key = made
    data = data_of(page)
    assert not re.search(r"https?:", page)
    for word in (*NAMES, "Alpha", "Beta", "seedvr2", "tiny", "bicubic", "dense"):
        assert word not in page
    assert (key["a"], key["b"]) == NAMES
    assert key["study"] == data["study"]
    assert set(key["left"]) == {"walk", "city", "tree", "still"}
    assert sorted(key["left"].values()) == ["a", "a", "b", "b"]
    assert {entry["clip"] for entry in data["clips"]} == set(key["left"])
    assert all(set(entry) == {"clip", "source"} for entry in data["clips"])


def test_sides_are_where_the_key_says(
    clips: Path, models: dict, made: tuple[str, dict], tmp_path: Path
):
    """The embedded files, decoded, hold each model's frames on the side of the key."""
    page, key = made
    settings = EvalSettings(frames=3)
    items = {item.name: item for item in find_clips(clips, settings).items}
    for entry in data_of(page)["clips"]:
        kind, _, code = entry["source"].partition(";base64,")
        suffix = {"data:image/png": "png", "data:video/mp4": "mp4"}[kind]
        assert (suffix == "png") == (entry["clip"] == "still")
        file = tmp_path / f"{entry['clip']}.{suffix}"
        file.write_bytes(base64.b64decode(code))
        with open_source(file) as source:
            shown = next(source.clips(9, 0)).frames
        assert shown.shape == (1 if suffix == "png" else 4, 3, 64, 64 + 16 + 64)
        sample = read_sample(items[entry["clip"]], settings, 8)
        a, b = (run_model(sample, models[name], 0).frames for name in NAMES)
        left, right = (a, b) if key["left"][entry["clip"]] == "a" else (b, a)
        for part, mine, other in (
            (shown[: len(a), ..., :64], left, right),
            (shown[: len(a), ..., -64:], right, left),
        ):
            assert distance(part, mine) < distance(part, other) / 2


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of luma, smoothed a little: video keeps less of the chroma of noise."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    gap = torch.einsum("t c h w, c -> t h w", a - b, weights)
    return torch.nn.functional.avg_pool2d(gap, 4).abs().mean().item()


def test_the_seed_decides_sides_and_order(
    clips: Path, models: dict, made: tuple[str, dict], tmp_path: Path
):
    again, other = (study(clips, models, tmp_path / str(seed), seed) for seed in (0, 1))
    assert again == made
    orders = {
        (tuple(e["clip"] for e in data_of(page)["clips"]), tuple(key["left"].items()))
        for page, key in (made, other)
    }
    assert len(orders) == 2


def test_a_study_of_clips_some_of_which_are_broken_is_that_of_the_others(
    clips: Path, models: dict, made: tuple[str, dict], tmp_path: Path
):
    """Sides and order are drawn once it is known which can be read."""
    folder = copy_with_broken(clips, tmp_path / "clips", "walk")
    page, key = study(folder, models, tmp_path / "out", seed=0)
    assert list(key.pop("faults")) == ["broken", "cut"]
    assert key == {name: value for name, value in made[1].items() if name != "faults"}
    assert page == made[0]
    for name in key["left"]:
        shutil.rmtree(folder / name) if name != "still" else (folder / "still.png").unlink()
    with pytest.raises(MediaError, match=r"2\.png"):
        study(folder, models, tmp_path / "none", seed=0)
    assert not (tmp_path / "none").exists()


def test_the_crop_shows_the_difference():
    a = torch.zeros(2, 3, 600, 1000)
    b = a.clone()
    b[:, :, 500:560, 900:960] = 1
    cut, other = crop(a, b)
    assert cut.shape == other.shape == (2, 3, 480, 640)
    assert other.sum() == b.sum()
    small, _ = crop(a[..., :100, :120], b[..., :100, :120])
    assert small.shape == (2, 3, 100, 120)
