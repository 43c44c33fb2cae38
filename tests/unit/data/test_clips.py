"""Training crops: what is used, what is left out, and that a step always gives the same batch."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from skipsr.data import clips, sources
from skipsr.data.clips import ClipDataset, Prefetcher
from skipsr.errors import MediaError, SettingsError

FRAMES = 12


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth gradient under noise: `h w c`, uint8."""
    y, x = np.mgrid[:height, :width]
    plane = np.stack([y * 255 / height, x * 255 / width, (x + y) % 256], 2)
    noise = np.random.default_rng(seed).normal(0, 6, plane.shape)
    return (plane + noise).clip(0, 255).astype(np.uint8)


def save_image(path: Path, height: int, width: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(height, width, seed)).save(path)


def save_clip(path: Path, height: int, width: int, frames: int = FRAMES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wide = picture(height, width + 2 * frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            array = np.ascontiguousarray(wide[:, 2 * i : 2 * i + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train")
    save_clip(root / "a" / "moving.mp4", 64, 96)
    save_clip(root / "a" / "brief.mp4", 64, 96, frames=3)
    save_image(root / "b" / "large.png", 120, 160)
    save_image(root / "b" / "photo.JPG", 48, 70)
    save_image(root / "b" / "small.png", 20, 200)
    (root / "notes.txt").write_text("not a source")
    return root


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache")
    ClipDataset(folder, crop=32, frames=5, cache=path)
    return path


def no_decode(path: Path) -> None:
    raise AssertionError(f"{path} was decoded again")


def batch_of(data: ClipDataset, step: int, size: int) -> torch.Tensor:
    return torch.stack([data.sample(step, place) for place in range(size)])


def test_batch_shape_range_and_variety(folder: Path, cache: Path) -> None:
    data = ClipDataset(folder, crop=32, frames=5, cache=cache)
    batch = batch_of(data, 0, 24)
    assert batch.shape == (24, 3, 5, 32, 32)
    assert batch.dtype == torch.float32
    assert batch.min() >= 0
    assert batch.max() <= 1
    assert len({sample.numpy().tobytes() for sample in batch}) == 24
    assert (batch[:, :, 0] != batch[:, :, -1]).flatten(1).any(1).float().mean() > 0.7


def test_sources_and_reasons(folder: Path, cache: Path) -> None:
    data = ClipDataset(folder, crop=32, frames=5, cache=cache)
    assert data.sources == ["a/moving.mp4", "b/large.png", "b/photo.JPG"]
    assert data.excluded == {
        "a/brief.mp4": "3 frames are fewer than 5",
        "b/small.png": "200x20 is smaller than the crop of 32x32",
    }


def test_batch_depends_on_seed_and_step_alone(folder: Path, cache: Path) -> None:
    data = ClipDataset(folder, crop=32, frames=5, cache=cache)
    resumed = ClipDataset(folder, crop=32, frames=5, cache=cache)
    other = ClipDataset(folder, crop=32, frames=5, cache=cache, seed=1)
    batch_of(data, 0, 2)
    assert torch.equal(batch_of(data, 7, 3), batch_of(resumed, 7, 3))
    assert not torch.equal(batch_of(data, 7, 3), batch_of(data, 8, 3))
    assert not torch.equal(batch_of(data, 7, 3), batch_of(other, 7, 3))


def test_processes_that_share_a_cache_decode_each_file_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    decode = sources._decode

    def slow(path: Path) -> np.ndarray:
        decoded.append(path.name)
        time.sleep(0.05)
        return decode(path)

    monkeypatch.setattr(sources, "_decode", slow)

    def open_it(_: int) -> ClipDataset:
        return ClipDataset(folder, crop=32, frames=5, cache=tmp_path / "cache")

    with ThreadPoolExecutor(3) as pool:
        one, *others = pool.map(open_it, range(3))
    assert len(decoded) == len(set(decoded)) >= len(one.sources)
    assert all(torch.equal(batch_of(one, 2, 3), batch_of(other, 2, 3)) for other in others)


def test_memory_and_cache_agree(folder: Path, cache: Path) -> None:
    cached = ClipDataset(folder, crop=32, frames=5, cache=cache)
    assert torch.equal(
        batch_of(ClipDataset(folder, crop=32, frames=5), 3, 4), batch_of(cached, 3, 4)
    )


def test_cache_needs_no_decoding(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ClipDataset(folder, crop=32, frames=5, cache=cache)
    monkeypatch.setattr(sources, "_decode", no_decode)
    again = ClipDataset(folder, crop=32, frames=5, cache=cache)
    assert again.sources == before.sources
    assert torch.equal(batch_of(again, 1, 2), batch_of(before, 1, 2))


def test_a_folder_that_is_not_there_is_refused_though_there_is_a_cache(
    folder: Path, cache: Path
) -> None:
    with pytest.raises(MediaError, match="missing is not a folder: give one"):
        ClipDataset(folder / "missing", crop=32, frames=5, cache=cache)


def test_changed_file_is_decoded_again(tmp_path: Path) -> None:
    root, cache = tmp_path / "train", tmp_path / "cache"
    save_image(root / "a.png", 40, 40)
    ClipDataset(root, crop=16, frames=1, cache=cache)
    save_image(root / "a.png", 48, 48)
    ClipDataset(root, crop=16, frames=1, cache=cache)
    index = json.loads((cache / "index.json").read_text())
    assert index["sources"]["a.png"][1:] == [1, 48, 48]
    assert not list(cache.rglob("*.part"))


def test_crops_are_source_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "a.png", 40, 52)
    monkeypatch.setattr(clips, "SUBPIXEL_SHARE", 0)
    monkeypatch.setattr(clips, "SHRINK_SHARE", 0)
    source = picture(40, 52).astype(np.float32) / 255
    known = {source[y : y + 8, x : x + 8].tobytes() for y in range(33) for x in range(45)}
    batch = batch_of(ClipDataset(tmp_path, crop=8, frames=3), 0, 6)
    for sample in batch.permute(0, 2, 3, 4, 1).flatten(0, 1):
        turns = [torch.rot90(image, k) for image in (sample, sample.flip(1)) for k in range(4)]
        assert any(turn.contiguous().numpy().tobytes() in known for turn in turns)


@pytest.mark.parametrize("share", [0, 1])
def test_image_moves_at_constant_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (200, 256, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "ramp.png")
    monkeypatch.setattr(clips, "SUBPIXEL_SHARE", share)
    monkeypatch.setattr(clips, "SHRINK_SHARE", 0)
    levels = 255 * batch_of(ClipDataset(tmp_path, crop=32, frames=4), 0, 8).mean((1, 3, 4))  # b t
    steps = levels.diff(dim=1)
    assert torch.allclose(steps, steps[:, :1].expand_as(steps), atol=2e-3)
    assert steps.abs().max() <= clips.TOP_SPEED * (1 + share) + 1e-3
    fractional = (steps - steps.round()).abs() > 2e-3
    assert bool(fractional.any()) == bool(share)


ROWS = """file,kind,licence,source_path,note
free.png,image,CC-BY 4.0,"x, with ""quotes"" and a comma.png",
./b/dot.png,image,unstated,,"notes, too"
nc.png,image,CC-BY-NC-SA 4.0,,
under.png,image,cc_by_nc,,
words.png,image,"Free for Non-Commercial use, see page",,
one.png,image,noncommercial research only,,
sync.png,image,INCLUSIVE licence of Sync Inc,,
"""


def test_licence_filter(tmp_path: Path) -> None:
    names = ["free", "b/dot", "nc", "under", "words", "one", "sync", "unlisted", "b/unlisted"]
    for name in names:
        save_image(tmp_path / f"{name}.png", 20, 20)
    (tmp_path / "MANIFEST.csv").write_text(ROWS, encoding="utf-8-sig")
    data = ClipDataset(tmp_path, crop=16, frames=2)
    assert data.sources == ["b/dot.png", "free.png", "sync.png"]
    assert data.excluded["nc.png"] == "licence: CC-BY-NC-SA 4.0"
    assert data.excluded["unlisted.png"] == "no row in MANIFEST.csv"
    assert len(data.excluded) == 6
    # one shard given alone is still bound by the manifest beside it
    assert ClipDataset(tmp_path / "b", crop=16, frames=2).sources == ["dot.png"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [("name,licence\na.png,CC0\n", "columns"), ("file,kind,licence\na.png,image\n", "line 2")],
)
def test_broken_manifest_is_refused(tmp_path: Path, manifest: str, message: str) -> None:
    save_image(tmp_path / "a.png", 20, 20)
    (tmp_path / "MANIFEST.csv").write_text(manifest)
    with pytest.raises(MediaError, match=message):
        ClipDataset(tmp_path, crop=16, frames=2)


def test_nothing_usable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no clips or images"):
        ClipDataset(tmp_path, crop=16, frames=2)
    with pytest.raises(MediaError, match="not a folder"):
        ClipDataset(tmp_path / "missing", crop=16, frames=2)
    with pytest.raises(SettingsError, match="0 frames"):
        ClipDataset(tmp_path, crop=16, frames=0)


def test_prefetcher_keeps_order_and_closes() -> None:
    gate = threading.Event()

    def work(step: int) -> int:
        if step == 3:
            gate.wait(5)  # the first is the last to finish
        else:
            gate.set()
        return step * step

    with Prefetcher(work, range(3, 9), depth=3) as steps:
        assert list(steps) == [9, 16, 25, 36, 49, 64]
    with Prefetcher(lambda step: step, range(100), depth=2) as left:
        assert [next(iter(left)) for _ in range(4)] == [0, 1, 2, 3]
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_prefetcher_raises_at_its_step() -> None:
    with Prefetcher(lambda step: 1 // (2 - step), range(4), depth=2) as steps:
        results = iter(steps)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)
