"""Benchmark layouts, as trees of tiny images."""

from pathlib import Path

import pytest
from PIL import Image

from skipsr.data.benchmarks import Item, list_items
from skipsr.errors import MediaError


def plant(root: Path, *names: str) -> Path:
    """Images of 4x4 pixels; a name that ends in / becomes a clip of two frames."""
    for name in names:
        files = [f"{name}{i:08d}.png" for i in range(2)] if name.endswith("/") else [name]
        for file in files:
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() == ".mp4":
                path.write_bytes(b"video")  # layouts are found by names: nothing is opened
            else:
                Image.new("RGB", (4, 4)).save(path)
    return root


def listed(root: Path, scale: int = 4) -> list[tuple[str, str | None, str | None]]:
    """Items with paths relative to the root."""
    return [
        (item.name, *(p and p.relative_to(root).as_posix() for p in (item.truth, item.low)))
        for item in list_items(root, scale)
    ]


def test_reds4(tmp_path: Path) -> None:
    clips = ("020", "000", "015", "011")
    root = plant(tmp_path / "REDS4", *(f"GT/{c}/" for c in clips))
    plant(root, *(f"sharp_bicubic/{c}/" for c in (*clips, "001")))
    assert listed(root) == [(c, f"GT/{c}", f"sharp_bicubic/{c}") for c in sorted(clips)]
    plant(root, "GT/001/")
    assert [item.name for item in list_items(root)] == sorted(clips)  # the four alone, by its name


def test_reds_as_published(tmp_path: Path) -> None:
    root = plant(tmp_path / "REDS", "val_sharp/000/", "val_sharp_bicubic/X4/000/")
    plant(root, "train_sharp/000/", "train_sharp_bicubic/X4/000/")
    assert listed(root) == [("000", "val_sharp/000", "val_sharp_bicubic/X4/000")]


@pytest.mark.parametrize(
    ("truth", "lows", "chosen"),
    [
        ("GT", ("BDx4", "BIx4"), "BIx4"),
        ("GT", ("BDx4",), "BDx4"),
        ("gt", ("bix2", "bdx4", "bix3"), "bdx4"),
        ("HR", ("LRx2", "LRx4"), "LRx4"),
        ("truth", ("low",), "low"),
        ("hq", ("LQ",), "LQ"),
    ],
)
def test_truth_and_low_side_by_side(
    tmp_path: Path, truth: str, lows: tuple[str, ...], chosen: str
) -> None:
    root = plant(tmp_path, f"{truth}/walk/", f"{truth}/city/")
    plant(root, *(f"{low}/{clip}/" for low in lows for clip in ("city", "walk")))
    assert listed(root) == [(c, f"{truth}/{c}", f"{chosen}/{c}") for c in ("city", "walk")]


def test_a_low_folder_may_be_chosen(tmp_path: Path) -> None:
    root = plant(tmp_path / "Vid4", "GT/city/", "BIx4/city/", "BDx4/city/")
    assert list_items(root / "BDx4") == [Item("city", root / "GT/city", root / "BDx4/city")]
    assert listed(root / "GT") == [("city", "city", None)]


def test_truth_and_low_in_each_clip(tmp_path: Path) -> None:
    spmcs = plant(tmp_path / "SPMCS", "car05_001/truth/", "car05_001/input4/", "amvtg/truth/")
    assert listed(spmcs) == [
        ("amvtg", "amvtg/truth", None),
        ("car05_001", "car05_001/truth", "car05_001/input4"),
    ]
    udm10 = plant(tmp_path / "udm10", "clap/truth/", "clap/blur4/")
    assert listed(udm10) == [("clap", "clap/truth", "clap/blur4")]


def test_of_several_scales_the_one_that_is_measured(tmp_path: Path) -> None:
    spmcs = plant(tmp_path / "SPMCS", *(f"car/{name}/" for name in ("truth", "input2", "input4")))
    div2k = plant(tmp_path / "DIV2K", "DIV2K_valid_HR/1.png")
    plant(div2k, *(f"DIV2K_valid_LR_bicubic/X{n}/1x{n}.png" for n in (2, 3, 4)))
    vid4 = plant(tmp_path / "Vid4", "GT/city/", "BIx2/city/", "BDx4/city/", "BIx4/city/")
    alone = plant(tmp_path / "more" / "DIV2K_valid_LR_bicubic", "X2/1x2.png", "X4/1x4.png")
    for n in (2, 4):
        assert listed(spmcs, n) == [("car", "car/truth", f"car/input{n}")]
        low = f"DIV2K_valid_LR_bicubic/X{n}/1x{n}.png"
        assert listed(div2k, n) == [("1", "DIV2K_valid_HR/1.png", low)]
        assert listed(vid4, n) == [("city", "GT/city", f"BIx{n}/city")]
        assert listed(alone, n) == [(f"1x{n}", None, f"X{n}/1x{n}.png")]


def test_youhq40(tmp_path: Path) -> None:
    alone = plant(tmp_path / "YouHQ40-Test", "002/", "001/")
    assert listed(alone) == [("001", "001", None), ("002", "002", None)]
    paired = plant(tmp_path / "YouHQ40", "gt/001/", "lq/001/")
    assert listed(paired) == [("001", "gt/001", "lq/001")]


@pytest.mark.parametrize("name", ["VideoLQ", "AIGC30", "videolq", "lr_real", "LQ", "BDx4"])
def test_low_alone_by_name(tmp_path: Path, name: str) -> None:
    root = plant(tmp_path / name, "000/", "001.mp4")
    assert listed(root) == [("000", None, "000"), ("001", None, "001.mp4")]


@pytest.mark.parametrize("name", ["lr", "LQ", "low"])
def test_low_alone_in_a_folder(tmp_path: Path, name: str) -> None:
    root = plant(tmp_path, f"{name}/b.png", f"{name}/a/")
    assert listed(root) == [("a", None, f"{name}/a"), ("b", None, f"{name}/b.png")]


def test_div2k(tmp_path: Path) -> None:
    root = plant(tmp_path / "DIV2K", "DIV2K_valid_HR/0802.png", "DIV2K_valid_HR/0801.png")
    for scale in (2, 4):
        for image in ("0801", "0802"):
            plant(root, f"DIV2K_valid_LR_bicubic/X{scale}/{image}x{scale}.png")
    plant(root, "DIV2K_train_HR/0001.png", "DIV2K_valid_LR_unknown/X4/0801x4.png")
    expected = [
        (n, f"DIV2K_valid_HR/{n}.png", f"DIV2K_valid_LR_bicubic/X4/{n}x4.png")
        for n in ("0801", "0802")
    ]
    assert listed(root) == expected
    assert [i.low for i in list_items(root / "DIV2K_valid_LR_bicubic")] == [
        root / low for _, _, low in expected
    ]
    assert [i.low for i in list_items(root / "DIV2K_valid_LR_bicubic/X2")] == [
        root / f"DIV2K_valid_LR_bicubic/X2/{n}x2.png" for n in ("0801", "0802")
    ]


def test_plain_folder_is_truth(tmp_path: Path) -> None:
    root = plant(tmp_path / "clips", "temple.mp4", "coast.MP4", "photo.jpg", "clip/", ".hidden.png")
    (root / "MANIFEST.csv").write_text("file,licence\n")
    (root / "notes").mkdir()
    assert listed(root) == [
        ("clip", "clip", None),
        ("coast", "coast.MP4", None),
        ("photo", "photo.jpg", None),
        ("temple", "temple.mp4", None),
    ]


def test_a_neighbour_with_other_names_is_another_set(tmp_path: Path) -> None:
    plant(tmp_path, "gt/city/", "lr_real/tiger/", "many/gt/a/", "many/hq/a/", "many/lq/a/")
    assert listed(tmp_path / "lr_real") == [("tiger", None, "tiger")]
    assert listed(tmp_path / "many/lq") == [("a", None, "a")]  # which truth is not clear


def test_names_that_only_sound_like_low(tmp_path: Path) -> None:
    root = plant(tmp_path / "input", "low-light-street/", "sharp-corner/", "blurred/")
    assert [low for _, _, low in listed(root)] == [None] * 3


def test_videos_pair_with_folders_of_frames(tmp_path: Path) -> None:
    root = plant(tmp_path, "gt/Tiger.mp4", "lr/tiger_x4/")
    assert listed(root) == [("Tiger", "gt/Tiger.mp4", "lr/tiger_x4")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["clips/a.mp4", "more/b.mp4"], r"folders of videos \(clips, more\): give one"),
        (["lr/a.mp4", "clips/a.mp4"], "holds lr beside clips"),
        (["gt/a/", "gt/b/", "lr/a/"], "no LR version of b"),
        (["GT/a/", "truth/a/"], r"several folders of truths \(GT, truth\)"),
        (["a.png", "a.mp4"], r"both a\.mp4 and a\.png"),
        (["gt/deep/er/x.png"], "gt holds no videos"),
        (["deep/er/x.txt.png/"], "no videos, images or folders"),
    ],
)
def test_refusals(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(MediaError, match=message):
        list_items(plant(tmp_path / "set", *names))


def test_refuses_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is not a folder"):
        list_items(tmp_path / "missing")
    with pytest.raises(MediaError, match="in a layout we know"):
        list_items(plant(tmp_path, "far/too/deep/") / "far")
