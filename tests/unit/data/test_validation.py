"""What is kept for validation: a sound list, and no training on anything in it."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipsr.data import validation
from skipsr.data.clips import ClipDataset
from skipsr.data.validation import Sibling, ValidationClip, held_out, read_list
from skipsr.errors import MediaError


def save_image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (24 + 8 * seed, 32, 3)  # so that no two files are of one size
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def fingerprint(path: Path) -> tuple[int, str]:
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images: one to train on, one that is listed, and one of the same source."""
    root = tmp_path / "train"
    save_image(root / "free.png", 0)
    size, digest = fingerprint(save_image(root / "kept.png", 1))
    clip = ValidationClip(name="old/a_0.mp4", size=size, sha256=digest, kind="calm", share=0.5)
    size, digest = fingerprint(save_image(root / "part.png", 2))
    sibling = Sibling(name="old/a_1.mp4", size=size, sha256=digest, of="old/a_0.mp4")
    monkeypatch.setattr(validation, "read_list", lambda: (clip, sibling))
    return root


def test_the_list_is_sound():
    entries = read_list()
    clips = [entry for entry in entries if isinstance(entry, ValidationClip)]
    kinds = [clip.kind for clip in clips]
    assert (kinds.count("calm"), kinds.count("busy"), len(kinds)) == (10, 10, 20)
    for attribute in ("name", "sha256"):
        assert len({getattr(entry, attribute) for entry in entries}) == len(entries)
    assert len({Path(clip.name).name for clip in clips}) == 20  # links share a folder
    assert all(len(entry.sha256) == 64 and int(entry.sha256, 16) for entry in entries)
    assert all(entry.size > 0 for entry in entries)
    shares = {kind: [c.share for c in clips if c.kind == kind] for kind in ("calm", "busy")}
    assert 0 <= min(shares["busy"]) <= max(shares["busy"]) < min(shares["calm"])
    assert max(shares["calm"]) <= 1
    assert {entry.of for entry in entries if isinstance(entry, Sibling)} <= {
        clip.name for clip in clips
    }


def test_a_listed_file_is_known_whatever_its_name(root: Path):
    renamed = root / "other" / "name.jpg"
    renamed.parent.mkdir()
    shutil.copy(root / "kept.png", renamed)
    assert held_out(renamed) == "validation clip, old/a_0.mp4"
    assert held_out(root / "free.png") is None


def test_training_leaves_it_and_its_siblings_out(root: Path):
    (root / "kept.png").rename(root / "holiday.png")
    data = ClipDataset(root, crop=16, frames=2)
    assert data.sources == ["free.png"]
    assert data.excluded == {
        "holiday.png": "validation clip, old/a_0.mp4",
        "part.png": "of the same source as validation clip old/a_0.mp4",
    }


def test_a_file_of_the_same_size_is_trained_on(root: Path):
    size = (root / "kept.png").stat().st_size
    free = root / "free.png"
    free.write_bytes(free.read_bytes().ljust(size, b"\0"))  # readers stop at the image's end
    assert free.stat().st_size == size
    assert ClipDataset(root, crop=16, frames=2).sources == ["free.png"]


def test_only_files_of_a_listed_size_are_read(root: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr(validation, "sha256", refuse)
    assert held_out(root / "free.png") is None


def test_a_cache_older_than_the_list(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache, kept = tmp_path / "cache", validation.read_list()
    monkeypatch.setattr(validation, "read_list", tuple)
    assert len(ClipDataset(root, crop=16, frames=2, cache=cache).sources) == 3

    monkeypatch.setattr(validation, "read_list", lambda: kept)
    assert ClipDataset(root, crop=16, frames=2, cache=cache).sources == ["free.png"]


def test_nothing_else_to_train_on(root: Path):
    (root / "free.png").unlink()
    with pytest.raises(MediaError, match="validation clip, old/a_0"):
        ClipDataset(root, crop=16, frames=2)
