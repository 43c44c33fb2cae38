"""Weights in ComfyUI's folders, and how long models stay loaded."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_models import TRANSFORMER_FILE, make_frames, write_parts
from safetensors.torch import save_file

from skipsr.assets import __file__ as assets

LABEL = f"{TRANSFORMER_FILE} (seedvr2:3b transformer)"


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(make_frames(3, 24, 32)).float() / 255


@pytest.fixture
def parts(pack, published, tmp_path) -> Path:
    """A published model, as small as can be, each part where ComfyUI's users keep it."""
    made, models = tmp_path / "made", Path(pack.folders.models_dir)
    made.mkdir()
    write_parts(published, made)
    (made / TRANSFORMER_FILE).rename(models / "diffusion_models" / TRANSFORMER_FILE)
    (made / "ema_vae.pth").rename(models / "vae" / "ema_vae.pth")
    (made / "pos_emb.pt").rename(models / "seedvr2" / "pos_emb.pt")
    return models


def choices(pack, name: str) -> list[str]:
    inputs = pack.nodes["SkipsrModel"].GET_SCHEMA().inputs
    (found,) = [i.widget["options"] for i in inputs if i.id == name]
    return found


def test_weights_are_listed_by_name_with_what_they_are(pack, parts):
    save_file({"weight": torch.zeros(3)}, parts / "diffusion_models" / "other.safetensors")
    (parts / "diffusion_models" / "notes.txt").write_text("no weights")
    assert choices(pack, "weights") == ["none", LABEL]
    assert choices(pack, "vae") == ["auto", "ema_vae.pth (seedvr2 autoencoder)"]


def test_parts_are_found_in_their_folders(pack, parts, images):
    (model,) = pack.run("SkipsrModel", model="auto", weights=LABEL)
    larger, computed = pack.run("SkipsrUpscaleImages", images=images, model=model, scale=2.0)
    assert larger.shape == (3, 48, 64, 3)
    assert larger.isfinite().all()
    assert computed.shape == (3, 48, 64)


def test_conditioning_is_found_where_other_nodes_bring_it(pack, parts, tmp_path):
    other = tmp_path / "nodes" / "seedvr2_videoupscaler"
    other.mkdir(parents=True)
    (parts / "seedvr2" / "pos_emb.pt").rename(other / "pos_emb.pt")
    (model,) = pack.run("SkipsrModel", model="auto", weights=LABEL)
    assert other / "pos_emb.pt" in [file.path for file in model.find().files.known]


def test_of_several_autoencoders_the_chosen_one_is_taken(pack, parts):
    shutil.copy(parts / "vae" / "ema_vae.pth", parts / "vae" / "second.pth")
    label = "second.pth (seedvr2 autoencoder)"
    for vae, name in (("auto", "ema_vae.pth"), (label, "second.pth")):
        (model,) = pack.run("SkipsrModel", model="auto", weights=LABEL, vae=vae)
        names = [file.path.name for file in model.find().files.known]
        assert sorted(names) == sorted([TRANSFORMER_FILE, "pos_emb.pt", name])


def test_missing_parts_are_one_sentence(pack, parts, images):
    (parts / "vae" / "ema_vae.pth").unlink()
    (model,) = pack.run("SkipsrModel", model="auto", weights=LABEL)
    with pytest.raises(pack.host.NodeError, match="no seedvr2 autoencoder"):
        pack.run("SkipsrUpscaleImages", images=images, model=model)


def test_a_damaged_file_of_our_folder_is_left_out_and_said(pack, caplog):
    (Path(pack.folders.models_dir) / "seedvr2" / "half.safetensors").write_bytes(b"12345")
    assert choices(pack, "weights") == ["none"]
    assert "half.safetensors is left out" in caplog.text


def test_the_upper_case_folder_of_other_packs_is_searched(pack):
    models = Path(pack.folders.models_dir)
    pack.weights.register()
    (models / "SEEDVR2").mkdir()
    shutil.copy(Path(assets).with_name("seedvr2-nano.safetensors"), models / "SEEDVR2")
    (label,) = choices(pack, "weights")[1:]
    assert label.startswith("seedvr2-nano.safetensors (seedvr2:nano")
    (model,) = pack.run("SkipsrModel", model="auto", weights=label)
    assert model.find().name == "seedvr2:nano"


def test_folders_that_extra_model_paths_name_in_upper_case_are_searched(pack, parts, tmp_path):
    pack.folders.add_model_folder_path("SEEDVR2", str(tmp_path / "shared"))
    (parts / "diffusion_models").rename(tmp_path / "shared")
    (parts / "diffusion_models").mkdir()
    assert choices(pack, "weights") == ["none", LABEL]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model": "seedvr2:3b", "weights": "none"}, "seedvr2:3b is not bundled: fetch its files"),
        ({"model": "auto", "weights": "gone"}, "'weights': gone is not in the model folders"),
        ({"model": "skipvsr:nano", "weights": "none", "steps": 3}, "'steps' is not for skipvsr"),
        ({"model": "auto", "weights": "none", "detail": 3.0}, "'detail' 3 is outside 0 to 1"),
    ],
)
def test_a_model_that_cannot_be_is_refused_by_the_node_that_names_it(pack, values, sentence):
    with pytest.raises(pack.host.NodeError) as error:
        pack.run("SkipsrModel", **values)
    assert str(error.value).startswith(sentence)


def test_a_model_is_given_back_after_each_run_unless_it_is_to_be_kept(pack, images, loads):
    (once,) = pack.run("SkipsrModel", model="skipvsr:nano", weights="none")
    kept = replace(once, keep_loaded=True)
    for model, count in ((once, 1), (once, 2), (kept, 3), (kept, 3)):
        pack.run("SkipsrUpscaleImages", images=images[:1], model=model, scale=1.0)
        assert loads.count == count
    pack.run("SkipsrUpscaleImages", images=images[:1], model=kept, scale=1.0, quality=0.9)
    assert loads.count == 4
    pack.run("SkipsrUpscaleImages", images=images[:1], model=once, scale=1.0)
    assert loads.count == 5


def test_a_failed_run_gives_its_model_back(pack, images, loads, monkeypatch):
    (kept,) = pack.run("SkipsrModel", model="skipvsr:nano", weights="none", keep_loaded=True)
    pack.comfy.interrupt_current_processing()
    for count in (1, 2):
        if count == 1:
            with pytest.raises(pack.comfy.InterruptProcessingException):
                pack.run("SkipsrUpscaleImages", images=images[:1], model=kept, scale=1.0)
        else:
            pack.run("SkipsrUpscaleImages", images=images[:1], model=kept, scale=1.0)
        assert loads.count == count
    pack.run("SkipsrUpscaleImages", images=images[:1], scale=1.0)  # another choice: it is dropped


def test_comfy_is_asked_for_room_on_its_own_device(pack, images):
    pack.run("SkipsrUpscaleImages", images=images, scale=2.0)
    ((need, device),) = pack.comfy.asked_for
    assert device == torch.device("cpu")
    assert 0 < need < 2**31
