"""Weight files: recognised by their tensors, refused in one clear sentence, never executed."""

import json
import pickle
import re
import struct
from pathlib import Path

import pytest
import torch
from full_disk import no_file_beyond
from safetensors.torch import load_file, save_file
from torch import nn

from skipsr.backbones.seedvr2.weights import normal_name, normalise
from skipsr.errors import WeightsError, describe
from skipsr.loading import identify_file, load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.weights.identify import FileKind, compare, identify
from skipsr.weights.load import inventory, load_strictly, read_inventory, read_tensors
from skipsr.weights.packing import SafetensorsHeader
from skipsr.weights.save import save_tensors

A = FileKind("a", {"x": (2, 3), "y": (4,)})
B = FileKind("b", {"x": (2, 3), "z": (5,), "u": (1,), "v": (1,)})


def test_a_torch_file_of_the_old_form_that_the_disk_has_changed(tmp_path: Path):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    key = re.findall(rb"\d{8,}", data)[-1]  # of the numbers, told once more before they follow
    before, _, after = data.rpartition(key)
    path.write_bytes(before + bytes([key[0] ^ 1]) + key[1:] + after)
    with pytest.raises(WeightsError, match=r"a\.pth: not a readable torch file"):
        read_tensors(path)


def test_exact_match():
    match = identify({"y": (4,), "x": (2, 3)}, [B, A])
    assert match is not None
    assert (match.kind, match.exact, match.describe()) == ("a", True, "exact")


def test_differences_are_named():
    match = compare({"x": (3, 2), "w": (1,)}, A)
    assert match.missing == ("y",)
    assert match.unexpected == ("w",)
    assert match.misshapen == ("x: (3, 2) instead of (2, 3)",)
    assert match.differences == 3
    text = match.describe()
    assert "1 missing (such as y)" in text
    assert "1 unexpected (such as w)" in text
    assert "1 of another shape (such as x: (3, 2) instead of (2, 3))" in text


def test_the_nearest_kind_is_taken():
    match = identify({"x": (2, 3), "y": (4,), "w": (1,)}, [B, A])
    assert match is not None
    assert match.kind == "a"
    assert identify({"nothing": (1,)}, [A, B]) is None
    assert identify({}, [A, B]) is None


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("blocks.0.attn.proj_qkv.vid.weight", "blocks.0.attn.proj_qkv.vid.weight"),
        ("model.diffusion_model.vid_in.proj.bias", "vid_in.proj.bias"),
        (
            "encoder.mid_block.attentions.0.query.weight",
            "encoder.mid_block.attentions.0.to_q.weight",
        ),
        ("decoder.mid_block.attentions.0.key.bias", "decoder.mid_block.attentions.0.to_k.bias"),
        ("decoder.mid_block.attentions.0.value.bias", "decoder.mid_block.attentions.0.to_v.bias"),
        (
            "decoder.mid_block.attentions.0.proj_attn.weight",
            "decoder.mid_block.attentions.0.to_out.0.weight",
        ),
        ("positive_conditioning", None),
        ("model.diffusion_model.negative_conditioning", None),
    ],
)
def test_names_of_repacks(published: str, ours: str | None):
    assert normal_name(published) == ours


def test_inventories_under_our_names():
    found = {"model.diffusion_model.a": (1,), "positive_conditioning": (58, 5120)}
    assert normalise(found) == {"a": (1,)}


def saved(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path)
    return path


def test_safetensors_headers(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2, 3), "s": torch.zeros(())}, path, {"made": "here"})
    assert read_inventory(path) == {"x": (2, 3), "s": ()}
    assert read_tensors(path)["x"].shape == (2, 3)


def test_a_file_that_cannot_be_opened_is_named_with_the_reason(tmp_path: Path):
    """Where a name leads nowhere; the library calls so whatever it may not read."""
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError) as told:
        SafetensorsHeader.read(path)
    assert describe(told.value) == f"{path}: No such file or directory"


@pytest.mark.parametrize("length", [0, 5, 8, 40, -1])
def test_truncated_safetensors(tmp_path: Path, length: int):
    path = saved(tmp_path / "a.safetensors", x=torch.zeros(100))
    path.write_bytes(path.read_bytes()[:length])
    for read in (read_inventory, read_tensors):
        with pytest.raises(WeightsError, match="damaged or incomplete"):
            read(path)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"\xff\xfe",
        b"[]",
        b'{"x": 3}',
        b'{"x": {"shape": [1]}}',
        b'{"x": {"shape": 4, "data_offsets": [0, 4]}}',
        b'{"x": {"shape": [1], "data_offsets": ["0", "4"]}}',
        b'{"x": {"shape": [1], "data_offsets": []}}',
        b'{"x": {"shape": [1], "data_offsets": [0, 4], "dtype": "F9"}}',
        b'{"x": {"shape": [1], "data_offsets": [0, Infinity]}}',
        b"[" * 100_000,
    ],
)
def test_nonsense_in_a_safetensors_header(tmp_path: Path, header: bytes):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(WeightsError, match=r"damaged|cannot be read"):
        read_tensors(path)


def test_a_header_longer_than_the_file(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + json.dumps({}).encode())
    with pytest.raises(WeightsError, match="damaged"):
        read_inventory(path)


def test_torch_files(tmp_path: Path):
    table = {"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(4)}
    for name in ("a.pth", "a.pt"):
        torch.save(table, tmp_path / name)
        assert read_inventory(tmp_path / name) == {"x": (2, 3), "y": (4,)}
        assert torch.equal(read_tensors(tmp_path / name)["x"], table["x"])
    torch.save(torch.ones(58, 7), tmp_path / "single.pt")
    assert read_inventory(tmp_path / "single.pt") == {"": (58, 7)}


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_with_an_object_is_refused_and_not_run(tmp_path: Path, how: str):
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    content = {"x": torch.ones(2), "evil": Bomb(mark)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"evil": Bomb(mark)}, protocol=2))
    for read in (read_inventory, read_tensors):
        with pytest.raises(WeightsError, match=r"evil\.pth"):
            read(path)
    assert not mark.exists()
    torch.load(path, weights_only=False) if how == "torch" else pickle.loads(path.read_bytes())
    assert mark.exists(), "the bomb is none, so the test above says nothing"


@pytest.mark.parametrize(
    "content",
    [
        {"a": {"x": {"y": torch.ones(1)}}},
        {"a": {}, "x": torch.ones(1)},
        [torch.ones(1)],
        {"x": 3},
        {3: torch.ones(1)},
    ],
)
def test_torch_files_without_a_table_of_tensors_are_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="not a flat table of tensors"):
        read_tensors(tmp_path / "a.pth")


def test_tables_of_tensors_in_a_torch_file(tmp_path: Path):
    x = torch.arange(3.0)
    content = {"a": {"x": x, "y": x + 1}, "b": {"z": x + 2}, "c": {"lr": 1}, "d": [x], "e": x + 3}
    for zipped in (True, False):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        assert read_inventory(tmp_path / "a.pth") == dict.fromkeys(("a.x", "a.y", "b.z", "e"), (3,))
        read = read_tensors(tmp_path / "a.pth")
        assert [read[name][0].item() for name in ("a.x", "a.y", "b.z", "e")] == [0, 1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken", bytes(2000)])
def test_garbage_with_a_torch_suffix(tmp_path: Path, content: bytes):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pth: "):
        read_tensors(path)


def test_a_torch_file_of_the_old_form_with_a_wrong_byte(tmp_path: Path):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    content = bytearray(path.read_bytes())
    *_, key = re.finditer(rb"\d{6,}", content)  # in the list of those that follow
    content[key.start()] ^= 1
    path.write_bytes(content)
    for read in (read_inventory, read_tensors):
        with pytest.raises(WeightsError, match=r"a\.pth: not a readable torch file"):
            read(path)


def test_missing_files_and_other_formats(tmp_path: Path):
    with pytest.raises(WeightsError, match="no such file"):
        read_inventory(tmp_path / "a.safetensors")
    (tmp_path / "a.ckpt").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"not a \.safetensors, \.gguf, \.pth or \.pt file"):
        read_inventory(tmp_path / "a.ckpt")


def test_strict_loading():
    network = nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_strictly(network, good, "toy")
    assert torch.equal(network(torch.ones(3)), torch.tensor([3.0, 3.0]))
    for bad in (
        {"weight": good["weight"]},
        good | {"more": torch.ones(1)},
        good | {"bias": torch.ones(3)},
    ):
        with pytest.raises(WeightsError, match="the weights do not fit toy: 1 "):
            load_strictly(network, bad, "toy")
    assert inventory(network) == {"weight": (2, 3), "bias": (2,)}


# whole models and folders of them


def load_tiny(source: Path):
    runtime = RuntimeSettings(weights=source, device="cpu", dtype="float32")
    return load_upscaler("seedvr2:tiny", runtime=runtime)


def test_a_file_that_does_not_fit(tmp_path: Path, tiny_file: Path):
    tensors = load_file(tiny_file)
    del tensors["dit.vid_in.proj.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"less.* does not fit seedvr2:tiny: .* but 1 missing \(such as",
    ):
        load_tiny(tmp_path / "less.safetensors")
    match = identify_file(tmp_path / "less.safetensors")
    assert match is not None
    assert match.missing == ("dit.vid_in.proj.bias",)


def test_layers_that_rotate_differently_are_refused(tmp_path: Path, tiny_file: Path):
    tensors = load_file(tiny_file)
    tensors["dit.blocks.1.attn.rope.rope.freqs"] *= 1.01
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match="different frequencies"):
        load_tiny(tmp_path / "odd.safetensors")


def test_models_that_are_not_bundled_ask_for_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SKIPSR_HOME", str(tmp_path / "home"))
    with pytest.raises(WeightsError, match="seedvr2:3b is not bundled: fetch its files"):
        load_upscaler("seedvr2:3b")
    missing = RuntimeSettings(weights=tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="no such file or folder"):
        load_upscaler("seedvr2:3b", runtime=missing)
    with pytest.raises(WeightsError, match="no seedvr2:3b network there; it holds no weight file"):
        load_upscaler("seedvr2:3b", runtime=RuntimeSettings(weights=tmp_path))


def test_weights_that_do_not_fit_on_the_disk_are_an_error_of_the_disk(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    with no_file_beyond(1000), pytest.raises(OSError, match="too large") as caught:
        save_tensors(path, {"x": torch.zeros(1000)})
    assert describe(caught.value) == f"{path}: File too large"
    assert not list(tmp_path.iterdir())
