"""What every family folder promises: a tiny preset that runs, odd sizes, files that come back."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_models import make_clip, make_frames, perturb
from torch import nn

import skipsr
from skipsr import backbones
from skipsr.backbones.basicvsr import planes
from skipsr.backbones.contract import Backbone, Upscaler
from skipsr.backbones.options import options_of
from skipsr.backbones.trainable import Denoiser, Recurrent
from skipsr.catalog import list_models
from skipsr.errors import SettingsError
from skipsr.loading import identify_file, load_upscaler
from skipsr.settings import EvalSettings, JobSettings, RuntimeSettings, SkipSettings
from skipsr.skipping.route import Route
from skipsr.train.run import export

FAMILIES = backbones.families()
EXACT = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def backbone(family: str) -> Backbone:
    return backbones.get(family)


def made(backbone: Backbone) -> nn.Module:
    torch.manual_seed(0)
    model = backbone.build(backbone.presets["tiny"])
    perturb(model)
    return model


def families_of(kind: type) -> list[str]:
    """The families whose networks are of a kind of what can be trained."""
    return [name for name in FAMILIES if isinstance(made(backbones.get(name)), kind)]


DIFFUSION, RECURRENT = families_of(Denoiser), families_of(Recurrent)


@pytest.fixture(scope="module")
def weights(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    return export(made(backbone), folder / "tiny.safetensors", {"made": "by a test"})


@pytest.fixture(scope="module")
def upscaler(family: str, weights: Path) -> Upscaler:
    return load_upscaler(f"{family}:tiny", runtime=RuntimeSettings(weights=weights, **EXACT))


def test_there_is_a_family():
    assert "seedvr2" in FAMILIES
    assert set(DIFFUSION) | set(RECURRENT) == set(FAMILIES)


def test_building_needs_no_memory(backbone: Backbone):
    with torch.device("meta"):
        for config in backbone.presets.values():
            model = backbone.build(config)
            tensors = [*model.parameters(), *model.buffers()]
            assert tensors
            assert all(x.is_meta for x in tensors)
            assert isinstance(model, Denoiser | Recurrent)


def test_building_is_repeatable(backbone: Backbone):
    a, b = made(backbone).state_dict(), made(backbone).state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_odd_clips_come_back_in_shape(upscaler: Upscaler, frames: int):
    clip = make_clip(frames, 19, 13, start=8)
    size = (37, 23)
    result = upscaler.upscale(clip, size, seed=1)
    assert result.clip.frames.shape == (frames, 3, *size)
    assert result.clip.start == 8
    assert result.clip.frames.device.type == "cpu"
    assert result.clip.frames.isfinite().all()
    assert result.clip.frames.min() >= 0
    assert result.clip.frames.max() <= 1
    assert 0 <= result.computed <= 1
    computed = upscaler.compute_map(clip, size)
    assert torch.equal(result.compute_map.fractions, computed.fractions)
    for name in ("cell_size", "units_run", "units_total"):
        assert getattr(result.compute_map, name) == getattr(computed, name)
    assert computed.fractions.shape == (
        frames,
        *(-(-a // b) for a, b in zip(size, computed.cell_size, strict=True)),
    )
    assert upscaler.upsample(clip, size).frames.shape == (frames, 3, *size)


def test_seeds_repeat(family: str, weights: Path):
    runtime = RuntimeSettings(weights=weights, **EXACT)
    upscaler = load_upscaler(f"{family}:tiny", SkipSettings(dense=True), runtime)
    clip = make_clip(5, 16, 16)
    a, b, c = (upscaler.upscale(clip, (32, 32), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(a.clip.frames, b.clip.frames)
    draws = isinstance(upscaler.model, Denoiser)  # type: ignore[attr-defined]
    assert torch.equal(a.clip.frames, c.clip.frames) != draws
    assert a.computed == 1


@pytest.mark.parametrize("dense", [True, False])
def test_grey_frames_stay_grey(family: str, weights: Path, dense: bool):
    runtime = RuntimeSettings(weights=weights, **EXACT)
    upscaler = load_upscaler(f"{family}:tiny", SkipSettings(dense=dense), runtime)
    clip = make_clip(5, 16, 16)
    clip.frames[1:] = clip.frames[1:, :1]
    red, green, blue = upscaler.upscale(clip, (32, 32)).clip.frames.unbind(1)
    for other in (red, blue):
        assert torch.equal(other[1:], green[1:])
        assert not torch.equal(other[0], green[0])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Generator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "setting",
    [
        partial(default_dtype, torch.float64),
        partial(default_dtype, torch.bfloat16),
        partial(torch.device, "meta"),
        partial(torch.autocast, "cpu", torch.bfloat16),
        torch.inference_mode,
        torch.enable_grad,
    ],
)
def test_what_a_program_sets_for_its_own_networks_changes_nothing(
    family: str,
    weights: Path,
    upscaler: Upscaler,
    setting: Callable[[], AbstractContextManager[Any]],
):
    def run(upscaler: Upscaler) -> list[np.ndarray]:
        settings = JobSettings(scale=2, window=5, overlap=2)
        return list(skipsr.upscale_frames(make_frames(8, 20, 24), upscaler, settings))

    expected = run(upscaler)
    planes.bilinear_kernels.cache_clear()
    planes._kernels.cache_clear()
    with setting():
        loaded = load_upscaler(f"{family}:tiny", runtime=RuntimeSettings(weights=weights, **EXACT))
        inside = run(loaded)
    assert np.array_equal(inside, expected)
    assert np.array_equal(run(loaded), expected)
    assert not any(weight.is_inference() for weight in loaded.model.parameters())  # type: ignore[attr-defined]


def test_upscaling_leaves_its_input_alone(upscaler: Upscaler):
    clip = make_clip(3, 16, 16)
    before = clip.frames.clone()
    upscaler.upscale(clip, (32, 32))
    assert torch.equal(clip.frames, before)


def test_export_then_load_gives_the_same_weights(backbone: Backbone, upscaler: Upscaler):
    """Weights travel as float16, buffers as they are."""
    original, loaded = made(backbone), upscaler.model  # type: ignore[attr-defined]
    parameters = dict(original.named_parameters())
    state = loaded.state_dict()
    assert state.keys() == original.state_dict().keys()
    for name, value in original.state_dict().items():
        expected = value.half().float() if name in parameters else value
        assert torch.equal(state[name], expected), name
        assert state[name].dtype == expected.dtype


def test_a_file_says_what_it_is(family: str, weights: Path):
    match = identify_file(weights)
    assert match is not None
    assert match.exact
    assert match.kind.startswith(f"{family}:tiny")


def test_kinds_are_told_apart(backbone: Backbone):
    kinds = list(backbone.kinds())
    assert len({kind.name for kind in kinds}) == len(kinds)
    inventories = [frozenset(kind.tensors.items()) for kind in kinds]
    assert len(set(inventories)) == len(kinds)


@pytest.mark.parametrize("family", DIFFUSION)
def test_the_denoiser_of_a_tiny_model(family: str):
    """Shapes of what training asks for, and that a dense velocity is what a full route gives."""
    model = made(backbones.get(family))
    assert isinstance(model, Denoiser)
    frames = make_clip(5, 32, 48).frames.permute(1, 0, 2, 3)[None]
    with torch.no_grad():
        latent = model.encode(frames)
        sample, divergence = model.encode_sample(frames, [torch.Generator().manual_seed(0)])
        decoded = model.decode(latent, frames)
        scores = model.scores(latent)
        route = Route(
            torch.rand(scores.shape[1:], generator=torch.Generator().manual_seed(0)) < 0.5
        )
        velocity = model.velocity(latent[0], latent[0], torch.tensor(500.0), route)
    assert sample.shape == latent.shape
    assert divergence.ndim == 0
    assert decoded.shape == frames.shape
    assert velocity.shape == (route.kept, 4, latent.shape[-1])
    assert (latent.shape[2] // 2, latent.shape[3] // 2) == scores.shape[2:]


@pytest.mark.parametrize("family", RECURRENT)
def test_the_recurrence_of_a_tiny_model(family: str):
    """Shapes of what training asks for, and that flows are for both ways."""
    model = made(backbones.get(family))
    assert isinstance(model, Recurrent)
    frames = make_clip(3, 18, 22).frames[None]
    with torch.no_grad():
        ahead, back = model.flows(frames)
        turned, _ = model.flows(frames.flip(1))
        large = model(frames)
    assert ahead.shape == back.shape == (1, 2, 2, 18, 22)
    torch.testing.assert_close(turned.flip(1), back)
    assert large.shape == (1, 3, 3, 72, 88)
    assert all(p.requires_grad for p in model.part("all").parameters())
    flow = {id(p) for p in model.part("flow").parameters()}
    assert flow
    assert flow < {id(p) for p in model.part("all").parameters()}


@pytest.mark.parametrize("name", ["autoencoder", "decoder", "transformer", "predictor"])
@pytest.mark.parametrize("family", DIFFUSION)
def test_parts_belong_to_the_model(family: str, name: str):
    model = made(backbones.get(family))
    assert isinstance(model, Denoiser)
    whole = {id(p) for p in model.parameters()}
    part = {id(p) for p in model.part(name).parameters()}  # type: ignore[arg-type]
    assert part
    assert part < whole


def test_the_list_of_models(backbone: Backbone, family: str):
    names = [model.name for model in list_models()]
    assert len(set(names)) == len(names)
    own = {backbones.public_name(family, preset) for preset in backbone.presets}
    parts = {preset for others in backbone.siblings.values() for preset in others}
    hidden = {backbones.public_name(family, preset) for preset in ("tiny", *parts)}
    assert set(names) & own == own - hidden
    bundled = [model.bundled for model in list_models()]
    assert bundled == sorted(bundled, reverse=True)


def test_options_are_found_by_the_folder_and_have_names_of_their_own(
    backbone: Backbone, family: str
):
    """Each with a default; none that a setting of all families has."""
    assert options_of(family) is backbone.options
    assert backbone.options() == backbone.options()
    own = {field.name for field in fields(backbone.options)}
    for settings in (SkipSettings, RuntimeSettings, JobSettings, EvalSettings):
        assert not own & {field.name for field in fields(settings)}


@pytest.mark.parametrize("name", ["nonsense", "seedvr2:nonsense", "nonsense:tiny", "seedvr2", ""])
def test_unknown_models_are_refused(name: str):
    with pytest.raises(SettingsError, match=r"unknown model .* there are basicvsr:x4, "):
        load_upscaler(name)
    with pytest.raises(SettingsError, match="unknown model family"):
        backbones.get("nonsense")
