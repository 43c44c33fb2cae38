"""SeedVR: the files of SeedVR2's shape that are sampled in many guided steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_models import TINY, make_clip, make_model
from safetensors.torch import save_file

from skipsr.backbones.seedvr2 import weights
from skipsr.backbones.seedvr2.config import PRESETS, SAME_FILES, Sampling
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import SettingsError, WeightsError
from skipsr.loading import list_models, load_upscaler
from skipsr.settings import RuntimeSettings, SkipSettings

CPU = torch.device("cpu")
DENSE = SkipSettings(dense=True)
PUBLISHED = Sampling(steps=50, guidance=6.5, rescale=0.0, condition_noise=0.1)


def test_the_large_models_are_offered_with_their_scripts_settings():
    names = {model.name for model in list_models()}
    for size in ("3b", "7b"):
        assert f"seedvr2:{size}-50" in names
        assert PRESETS[f"{size}-50"] == replace(PRESETS[size], sampling=PUBLISHED)
        assert PRESETS[size].sampling == Sampling()


def test_no_two_kinds_of_file_look_the_same():
    """What a file is can be told by its tensors alone, so `auto` has one answer."""
    found = [tuple(sorted(kind.tensors.items())) for kind in weights.kinds()]
    assert len(set(found)) == len(found)
    names = [kind.name for kind in weights.kinds()]
    assert [name for name in names if "3b" in name] == ["seedvr2:3b transformer"]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Published files of `seedvr2:toy`, which `seedvr2:toy-50` samples in many steps."""
    few = replace(PUBLISHED, steps=3)
    monkeypatch.setitem(weights.PRESETS, "toy", TINY)
    monkeypatch.setitem(weights.PRESETS, "toy-50", replace(TINY, sampling=few))
    monkeypatch.setitem(weights.PRESETS, "3b", TINY)  # whose parts the other kinds are taken from
    monkeypatch.setitem(SAME_FILES, "toy-50", "toy")
    monkeypatch.setattr(weights, "_PUBLISHED", ("toy",))
    counts = {TINY.text_tokens: "positive", TINY.negative_tokens: "negative"}
    monkeypatch.setattr(weights, "_TEXT_NAMES", counts)
    weights.kinds.cache_clear()
    model = make_model()
    save_file(model.dit.state_dict(), tmp_path / "dit.safetensors")
    save_file(model.vae.state_dict(), tmp_path / "vae.safetensors")
    torch.save(model.text.positive.clone(), tmp_path / "pos_emb.pt")
    assert model.text.negative is not None
    torch.save(model.text.negative.clone(), tmp_path / "neg_emb.pt")
    yield tmp_path
    weights.kinds.cache_clear()


def load(
    preset: str, source: Path, steps: int | None = None, guidance: float | None = None
) -> SeedVR2Upscaler:
    return weights.load(preset, source, CPU, torch.float32, DENSE, steps, guidance)


def calls_of(upscaler: SeedVR2Upscaler) -> list[int]:
    """Text tokens of each call of the transformer that upscaling a clip takes."""
    seen: list[int] = []
    hook = upscaler.model.dit.register_forward_hook(lambda _, given, __: seen.append(len(given[1])))
    upscaler.upscale(make_clip(5, 8, 8), (32, 32))
    hook.remove()
    return seen


def test_every_step_is_guided_by_the_negative_tokens(folder: Path):
    assert calls_of(load("toy-50", folder)) == 3 * [TINY.text_tokens, TINY.negative_tokens]
    assert calls_of(load("toy-50", folder, steps=2, guidance=1.0)) == 2 * [TINY.text_tokens]
    assert calls_of(load("toy", folder)) == [TINY.text_tokens]
    asked = calls_of(load("toy", folder, steps=2, guidance=6.5))
    assert asked == 2 * [TINY.text_tokens, TINY.negative_tokens]


def test_guidance_and_condition_noise_change_the_result(folder: Path):
    clip, size = make_clip(5, 8, 8), (32, 32)
    upscaler = load("toy-50", folder)
    assert upscaler.sampling == replace(PUBLISHED, steps=3)
    result = upscaler.upscale(clip, size, seed=1).clip.frames
    for change in ({"guidance": 1.0}, {"guidance": 7.0}, {"condition_noise": 0.0}, {"steps": 2}):
        other = load("toy-50", folder)
        other.sampling = replace(other.sampling, **change)
        assert not torch.equal(other.upscale(clip, size, seed=1).clip.frames, result)
    again = load("toy", folder, steps=3, guidance=6.5)
    again.sampling = replace(again.sampling, condition_noise=0.1)
    assert torch.equal(again.upscale(clip, size, seed=1).clip.frames, result)


def test_without_negative_tokens_nothing_is_guided(folder: Path):
    (folder / "neg_emb.pt").unlink()
    with pytest.raises(WeightsError, match=r"no neg_emb\.pt there"):
        load("toy-50", folder)
    with pytest.raises(WeightsError, match=r"--guidance needs negative conditioning.*neg_emb\.pt"):
        load("toy", folder, guidance=6.5)
    assert load("toy", folder, guidance=1.0).sampling.guidance == 1


def test_guidance_is_refused_by_models_that_know_none():
    with pytest.raises(SettingsError, match="--guidance is not for seedvr2:nano: it was trained"):
        load_upscaler("seedvr2:nano", runtime=RuntimeSettings(guidance=2, device="cpu"))
    with pytest.raises(SettingsError, match="--guidance is not for skipvsr:nano: it is no diff"):
        load_upscaler("skipvsr:nano", runtime=RuntimeSettings(guidance=2, device="cpu"))
