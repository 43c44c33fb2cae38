"""Files as they are published, in every layout, given as a folder or by the network's file, among
strays: they load, or are refused in one sentence."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_models import PUBLISHED, TRANSFORMER_FILE, make_model, random, write_parts
from safetensors.torch import save_file
from torch import Tensor

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.model import SeedVR2, build_predictor
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.errors import SettingsError, WeightsError
from skipsr.loading import identify_file, load_networks, load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.skipping.need import NeedPredictor
from skipsr.train.run import export
from skipsr.weights import folder as folders

State = dict[str, Tensor]


def write_strays(folder: Path) -> list[str]:
    """Files that have no business there; returns the names of those that look like weights."""
    before = {path.name for path in folder.iterdir()}
    (folder / "readme.txt").write_text("not weights")
    save_file({"lora_up": torch.zeros(2, 2)}, folder / "foreign.safetensors")
    torch.save({"step": 3, "optimizer": [1, 2]}, folder / "optimizer.pt")
    (folder / "broken.pth").write_bytes(b"PK\x03\x04 broken")
    (folder / "half.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    save_file({"vid_in.proj.weight": torch.zeros(2, 2)}, folder / "alike.safetensors")
    names = {path.name for path in folder.iterdir()} - before - {"readme.txt"}
    assert len(names) == 5
    return sorted(names)


def load(source: Path, name: str = "auto", **options: object) -> SeedVR2Upscaler:
    runtime = RuntimeSettings(weights=source, device="cpu", dtype="float32")
    found = load_upscaler(name, None, runtime, options)
    assert isinstance(found, SeedVR2Upscaler)
    return found


def same(model: SeedVR2, expected: SeedVR2, dtype: torch.dtype = torch.float32) -> bool:
    """Whether all that the files hold is as they hold it; rotary frequencies are exact."""
    state, wanted = model.state_dict(), expected.state_dict()
    assert {k.split(".")[0] for k in state} == {"dit", "vae", "text"}
    held = {k: v if k.endswith("rope.freqs") else v.to(dtype) for k, v in wanted.items()}
    return all(torch.equal(v.float(), held[k].float()) for k, v in state.items())


@pytest.mark.parametrize("given", ["folder", "file"])
@pytest.mark.parametrize("layout", ["plain", "old names", "prefix", "packed"])
def test_every_layout_loads(published, tmp_path: Path, layout: str, given: str, caplog):
    file = write_parts(published, tmp_path, layout)
    strays = write_strays(tmp_path)
    upscaler = load(file if given == "file" else tmp_path)
    assert upscaler.name == "seedvr2:3b"
    assert same(upscaler.model, published)
    told = [] if given == "file" else [str(tmp_path / stray) for stray in strays]
    assert [m.split(" is left out")[0] for m in caplog.messages] == told


@pytest.mark.parametrize("given", ["folder", "file"])
@pytest.mark.parametrize("folder", ["diffusion_models", "SEEDVR2"])
def test_in_comfyui_parts_are_found_where_its_users_have_them(
    published, tmp_path: Path, folder: str, given: str, caplog, monkeypatch: pytest.MonkeyPatch
):
    own, vae, pack = (
        tmp_path / name for name in (f"models/{folder}", "models/vae", "custom_nodes/pack")
    )
    for each in (own, vae, pack):
        each.mkdir(parents=True)
    file = write_parts(published, own)
    (own / "ema_vae.pth").rename(vae / "ema_vae.pth")
    (own / "pos_emb.pt").rename(pack / "pos_emb.pt")
    write_strays(vae)
    monkeypatch.chdir(own)
    if folder == "diffusion_models":  # numz's nodes have theirs there
        (tmp_path / "models/SEEDVR2").mkdir()
        (vae / "ema_vae.pth").rename(tmp_path / "models/SEEDVR2/ema_vae.pth")
        assert same(load(file).model, published)
        (tmp_path / "models/SEEDVR2/ema_vae.pth").rename(vae / "ema_vae.pth")
    for source in (own, Path()) if given == "folder" else (file, Path(file.name)):
        assert same(load(source).model, published)
    write_parts(make_model(PUBLISHED["3b"], seed=1), vae, dtype=torch.float16).unlink()
    (vae / "ema_vae.pth").rename(own / "ema_vae.pth")
    assert not same(load(file).model, published)  # what lies beside comes first
    (own / "ema_vae.pth").unlink()
    assert caplog.messages == []
    lacking = rf"\(ema_vae\) there or in {pack} or in {vae}; it holds {file.name}"
    with pytest.raises(WeightsError, match=lacking):
        load(own)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision_loads(published, tmp_path: Path, dtype: torch.dtype):
    file = write_parts(published, tmp_path, dtype=dtype)
    for source in (tmp_path, file):
        found = load(source).model
        assert same(found, published, dtype)
        assert {p.dtype for p in found.parameters()} == {torch.float32}


def test_the_other_model_has_the_same_parts(published, tmp_path: Path):
    model = make_model(PUBLISHED["7b"], seed=1)
    file = write_parts(model, tmp_path)
    assert load(file).name == load(tmp_path).name == "seedvr2:7b"
    assert same(load(file).model, model)
    with pytest.raises(WeightsError, match=r"does not fit seedvr2:3b: it is seedvr2:7b transfor"):
        load(file, "seedvr2:3b")
    with pytest.raises(WeightsError, match=r"no seedvr2:3b network there; it holds ema_vae\.pth"):
        load(tmp_path, "seedvr2:3b")


def test_of_several_networks_the_named_one_is_taken(published, tmp_path: Path):
    write_parts(make_model(PUBLISHED["7b"]), tmp_path).rename(tmp_path / "7b.safetensors")
    write_parts(make_model(PUBLISHED["3b"], seed=2), tmp_path).rename(tmp_path / "b.safetensors")
    file = write_parts(published, tmp_path)
    assert same(load(file).model, published)
    assert not same(load(tmp_path / "b.safetensors").model, published)
    with pytest.raises(WeightsError, match="holds seedvr2:7b and seedvr2:3b: give `model`"):
        load(tmp_path)
    with pytest.raises(WeightsError, match=rf"b\.safetensors and {TRANSFORMER_FILE} are each"):
        load(tmp_path, "seedvr2:3b")


def test_each_header_is_read_once(published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read = Counter[str]()
    original = folders.read_inventory

    def counted(path: Path) -> dict[str, tuple[int, ...]]:
        read[path.name] += 1
        return original(path)

    monkeypatch.setattr(folders, "read_inventory", counted)
    file = write_parts(published, tmp_path)
    for source in (tmp_path, file):
        read.clear()
        load(source)
        assert read == dict.fromkeys((TRANSFORMER_FILE, "ema_vae.pth", "pos_emb.pt"), 1)


MISSING = {
    "ema_vae.pth": r"no seedvr2 autoencoder \(ema_vae\) there; it holds .*pos_emb\.pt \(",
    "pos_emb.pt": r"no positive conditioning \(pos_emb\) there; it holds .*ema_vae\.pth \("
    r".*; ByteDance-Seed/SeedVR2-3B on the",
}


@pytest.mark.parametrize("given", ["folder", "file"])
def test_missing_parts_are_named(published, tmp_path: Path, given: str):
    file = write_parts(published, tmp_path)
    source = file if given == "file" else tmp_path
    for name, message in MISSING.items():
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(WeightsError, match=message):
            load(source)
        (tmp_path / name).write_bytes(content[:100])
        with pytest.raises(WeightsError, match=rf"{name} \(not a readable torch file"):
            load(source)
        (tmp_path / name).write_bytes(content)
    for name in MISSING:
        (tmp_path / name).unlink()
    with pytest.raises(WeightsError) as caught:
        load(source)
    assert f"{tmp_path}: no seedvr2 autoencoder (ema_vae) and no positive" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["folder", "file"])
@pytest.mark.parametrize("name", ["ema_vae.pth", "pos_emb.pt"])
def test_two_of_a_part_are_refused(published, tmp_path: Path, name: str, given: str):
    file = write_parts(published, tmp_path)
    (tmp_path / f"a-{name}").write_bytes((tmp_path / name).read_bytes())
    with pytest.raises(WeightsError, match=f"a-{name} and {name} are each seedvr2 .*; keep one"):
        load(file if given == "file" else tmp_path)


def test_a_repack_is_taken_before_the_original(published, tmp_path: Path, caplog):
    """As in folders that ComfyUI and others share."""
    write_parts(published, tmp_path)
    original = torch.load(tmp_path / "ema_vae.pth")
    save_file({k: v.half() for k, v in original.items()}, tmp_path / "ema_vae_fp16.safetensors")
    assert not same(load(tmp_path).model, published)
    wanted = "of ema_vae.pth and ema_vae_fp16.safetensors ema_vae_fp16.safetensors is taken"
    assert caplog.messages == [f"{tmp_path}: {wanted}"]
    (tmp_path / "ema_vae.pth").unlink()
    assert not same(load(tmp_path).model, published)


def test_a_file_given_by_name_is_never_left_out(published, tmp_path: Path):
    write_parts(published, tmp_path)
    for name in write_strays(tmp_path):
        with pytest.raises(WeightsError, match=name):
            load(tmp_path / name)
        with pytest.raises(WeightsError, match=name):
            load(tmp_path / name, "seedvr2:3b")
    with pytest.raises(WeightsError, match=r"ema_vae\.pth is no model's network: seedvr2 autoenc"):
        load(tmp_path / "ema_vae.pth")
    with pytest.raises(WeightsError, match="does not fit seedvr2:3b: it is seedvr2 autoencoder"):
        load(tmp_path / "ema_vae.pth", "seedvr2:3b")


# predictors, and files of our own


def write_predictor(folder: Path, *, any_tau: bool) -> State:
    torch.manual_seed(3)
    predictor = build_predictor(replace(PRESETS["3b"].predictor, any_tau=any_tau))
    save_file(predictor.state_dict(), folder / f"predictor-{any_tau}.safetensors")
    return dict(predictor.state_dict())


@pytest.mark.parametrize("any_tau", [False, True])
def test_either_predictor_is_known_by_its_tensors(published, tmp_path: Path, any_tau: bool):
    file = write_parts(published, tmp_path)
    tensors = write_predictor(tmp_path, any_tau=any_tau)
    match = identify_file(tmp_path / f"predictor-{any_tau}.safetensors")
    assert match is not None
    assert match.exact
    assert match.kind == "seedvr2 mask predictor" + " for any tau" * any_tau
    for source in (tmp_path, file):
        loaded = load(source).model
        assert loaded.predictor is not None
        found = loaded.predictor.state_dict()
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], value) for name, value in tensors.items())
    latent = random(1, 1, 4, 4, 4)
    if any_tau:
        assert (loaded.scores(latent, 1e-6) > loaded.scores(latent, 1e-2)).all()
    else:
        with pytest.raises(SettingsError, match="leave out `tau`"):
            loaded.scores(latent, 1e-6)


def test_two_predictors_in_a_folder_are_refused(published, tmp_path: Path):
    write_parts(published, tmp_path)
    for any_tau in (False, True):
        write_predictor(tmp_path, any_tau=any_tau)
    message = r"predictor-False\.safetensors and predictor-True\.safetensors are each"
    with pytest.raises(WeightsError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("any_tau", [None, False, True])
def test_what_was_loaded_in_parts_is_written_whole(published, tmp_path: Path, any_tau: bool | None):
    """With and without the kinds of predictor; and the file says which."""
    write_parts(published, tmp_path)
    if any_tau is not None:
        write_predictor(tmp_path, any_tau=any_tau)
    model = load_networks("seedvr2:3b", tmp_path)
    (tmp_path / "own").mkdir()
    file = export(model, tmp_path / "own" / "whole.safetensors", {})
    again = load_networks("seedvr2:3b", file)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert load(file.parent).name == "seedvr2:3b"
    match = identify_file(file)
    assert match is not None
    assert match.exact
    held = "" if any_tau is None else " with mask predictor" + " for any tau" * any_tau
    assert match.kind == "seedvr2:3b whole model" + held


def test_the_need_predictor_is_known(tmp_path: Path):
    match = identify_file(export(NeedPredictor(), tmp_path / "model.safetensors", {}))
    assert match is not None
    assert (match.kind, match.exact) == ("need predictor", True)


def test_a_folder_without_a_predictor_skips_by_what_is_lost(published, tmp_path: Path, caplog):
    """Nobody has published a predictor: the bundled one, which reads LR frames, is used."""
    write_parts(published, tmp_path)
    with caplog.at_level(logging.WARNING):
        upscaler = load(tmp_path)
    assert upscaler.model.predictor is None
    assert not caplog.text
    frames = torch.rand(5, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    frames[..., 16:] = 0.5
    found = upscaler.upscale(Clip(frames), (96, 128))
    assert 0.2 < found.computed < 0.8
    assert found.compute_map.stages["denoise"] < 1
    dense = load(tmp_path, skip="tokens").upscale(Clip(frames), (96, 128))
    assert dense.computed == 1
    assert "every token will be computed" in caplog.text


def test_settings_of_another_family_are_refused_before_weights_are_read(tmp_path: Path):
    (tmp_path / "none").mkdir()
    with pytest.raises(
        SettingsError, match="`skip` blocks is not for seedvr2:3b: give all or tokens"
    ):
        load(tmp_path / "none", "seedvr2:3b", skip="blocks")
