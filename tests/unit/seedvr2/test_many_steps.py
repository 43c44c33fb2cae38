"""SeedVR: the files of SeedVR2's shape that are sampled in many guided steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_models import PUBLISHED as PARTS
from made_models import make_clip, write_parts

from skipsr.backbones.seedvr2 import weights
from skipsr.backbones.seedvr2.config import PRESETS, Sampling
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.options import SeedVR2Options
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.catalog import list_models
from skipsr.errors import SettingsError, WeightsError
from skipsr.loading import load_upscaler
from skipsr.settings import DType, RuntimeSettings, SkipSettings

TEXT, NEGATIVE = PARTS["3b"].text_tokens, PARTS["3b"].negative_tokens
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
    assert not [kind.name for kind in weights.kinds() if "-50" in kind.name]


@pytest.fixture
def folder(published: SeedVR2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Published files, small, which `3b-50` samples in three steps."""
    few = replace(published.config, sampling=replace(PUBLISHED, steps=3))
    monkeypatch.setitem(PRESETS, "3b-50", few)
    write_parts(published, tmp_path)
    assert published.text.negative is not None
    torch.save(published.text.negative.detach().clone(), tmp_path / "neg_emb.pt")
    return tmp_path


def load(
    preset: str, source: Path, steps: int | None = None, guidance: float | None = None
) -> SeedVR2Upscaler:
    runtime = RuntimeSettings(weights=source, device="cpu", dtype="float32")
    options = SeedVR2Options(steps=steps, guidance=guidance)
    upscaler = load_upscaler(f"seedvr2:{preset}", DENSE, runtime, options)
    assert isinstance(upscaler, SeedVR2Upscaler)
    return upscaler


def calls_of(upscaler: SeedVR2Upscaler) -> list[int]:
    """Text tokens of each call of the transformer that upscaling a clip takes."""
    seen: list[int] = []
    hook = upscaler.model.dit.register_forward_hook(lambda _, given, __: seen.append(len(given[1])))
    upscaler.upscale(make_clip(5, 8, 8), (32, 32))
    hook.remove()
    return seen


def test_every_step_is_guided_by_the_negative_tokens(folder: Path):
    assert calls_of(load("3b-50", folder)) == 3 * [
        TEXT,
        NEGATIVE,
    ]
    assert calls_of(load("3b-50", folder, steps=2, guidance=1.0)) == 2 * [TEXT]
    assert calls_of(load("3b", folder)) == [TEXT]
    asked = calls_of(load("3b", folder, steps=2, guidance=6.5))
    assert asked == 2 * [TEXT, NEGATIVE]


def test_guidance_and_condition_noise_change_the_result(folder: Path):
    clip, size = make_clip(5, 8, 8), (32, 32)
    upscaler = load("3b-50", folder)
    assert upscaler.sampling == replace(PUBLISHED, steps=3)
    result = upscaler.upscale(clip, size, seed=1).clip.frames
    for change in ({"guidance": 1.0}, {"guidance": 7.0}, {"condition_noise": 0.0}, {"steps": 2}):
        other = load("3b-50", folder)
        other.sampling = replace(other.sampling, **change)
        assert not torch.equal(other.upscale(clip, size, seed=1).clip.frames, result)
    again = load("3b", folder, steps=3, guidance=6.5)
    again.sampling = replace(again.sampling, condition_noise=0.1)
    assert torch.equal(again.upscale(clip, size, seed=1).clip.frames, result)


def test_without_negative_tokens_nothing_is_guided(folder: Path):
    (folder / "neg_emb.pt").unlink()
    with pytest.raises(WeightsError, match=r"no negative conditioning \(neg_emb\) there"):
        load("3b-50", folder)
    with pytest.raises(WeightsError, match=r"`guidance` needs negative conditioning.*neg_emb\.pt"):
        load("3b", folder, guidance=6.5)
    assert load("3b", folder, guidance=1.0).sampling.guidance == 1


def test_guidance_is_refused_by_models_that_know_none():
    with pytest.raises(SettingsError, match="`guidance` is not for seedvr2:nano: it was trained"):
        load_upscaler("seedvr2:nano", options=SeedVR2Options(guidance=2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_conditions_get_their_noise_in_half_precision(folder: Path, dtype: DType):
    """As on GPUs by default."""
    runtime = RuntimeSettings(weights=folder, device="cpu", dtype=dtype)
    half = load_upscaler("seedvr2:3b-50", DENSE, runtime)
    clip, size = make_clip(5, 8, 8), (32, 32)
    result = half.upscale(clip, size, seed=1).clip.frames
    exact = load("3b-50", folder).upscale(clip, size, seed=1).clip.frames
    assert (result - exact).abs().mean() < 0.02
