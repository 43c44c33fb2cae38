"""Every recipe trains at toy size, resumes exactly, and changes only what it should."""

import dataclasses
import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from full_disk import no_file_beyond
from made_models import make_frames, write_parts
from PIL import Image
from safetensors.torch import load_file

from skipsr.backbones import family
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.errors import MediaError, SettingsError, WeightsError, describe
from skipsr.loading import identify_file, load_networks, load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.train.loop import TrainProgress, batches_ahead, learning_rate
from skipsr.train.masks import MaskShares, mixed_masks, smooth_mask
from skipsr.train.objectives.blockskip import BlockSkipObjective
from skipsr.train.objectives.finetune import VelocityObjective
from skipsr.train.objectives.predictor import PredictorObjective
from skipsr.train.objectives.reconstruct import ReconstructObjective
from skipsr.train.pixels import ssim_map, structure_loss
from skipsr.train.recipes import RECIPES, Recipe
from skipsr.train.run import RunPaths, run, run_recipe
from skipsr.train.state import Average, TrainingRun

TRANSFORMER = ("dit.", "text.")
TRUNKS = ("backward_trunk.", "forward_trunk.", "fusion.", "conv_last.")
TRAINED = {
    "nano-autoencoder": ("vae.",),
    "nano-teacher": TRANSFORMER,
    "nano-distill": TRANSFORMER,
    "nano-onestep": (*TRANSFORMER, "vae.decoder."),
    "nano-predictor": ("predictor.",),
    "3b-finetune": TRANSFORMER,
    "3b-distill": TRANSFORMER,
    "3b-adversarial": TRANSFORMER,
    "3b-predictor": ("predictor.",),
    "skipvsr-nano-flow": ("spynet.",),
    "skipvsr-nano-backbone": ("spynet.", *TRUNKS),
    "skipvsr-nano-regions": ("spynet.", *TRUNKS),
    "skipvsr-nano-routing": (*TRUNKS, "router_"),
    "skipvsr-nano-footage": ("spynet.", *TRUNKS),
    "skipvsr-nano-detail": ("spynet.", *TRUNKS),
    "skipvsr-nano-x2": ("spynet.",),  # its first stage
    "skipvsr-small": ("spynet.", *TRUNKS),
    "basicvsr-x4": ("spynet.", *TRUNKS),
    "basicvsr-x4-bd": ("spynet.", *TRUNKS),
    "skipvsr-x4-routing": (*TRUNKS, "router_"),
    "skipvsr-x4-routing-bd": (*TRUNKS, "router_"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from made_videos import make_video

    folder = tmp_path_factory.mktemp("train")
    make_video(folder / "a.mp4", list(make_frames(7, 64, 80)))
    for i in range(2):
        Image.fromarray(make_frames(1, 90, 72, seed=i)[0]).save(folder / f"{i}.png")
    return folder


def small(name: str, **changes: object) -> Recipe:
    """The recipe's own toy, with smaller crops still; of several stages the first."""
    stage = RECIPES[name].stages[0].tiny()
    settings = dataclasses.replace(stage.settings, crop=32, **changes)
    return Recipe((dataclasses.replace(stage, settings=settings),))


def state(out: Path) -> dict:
    (path,) = out.glob("*/state.pt")
    return torch.load(path, weights_only=True)


def logged(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))  # type: ignore[arg-type]
    return a == b


def test_every_recipe_is_tried():
    assert set(RECIPES) == set(TRAINED)


@pytest.mark.parametrize("name", RECIPES)
def test_a_toy_is_of_its_own_family(name: str):
    for stage in RECIPES[name].stages:
        toy = stage.tiny()
        assert family(toy.settings.model) == (family(stage.settings.model)[0], "tiny")
        assert toy.settings.frames <= stage.settings.frames
        assert toy.objective == stage.objective
        assert toy.settings.degradation == stage.settings.degradation
        diffuses = family(stage.settings.model)[0] is family("seedvr2:tiny")[0]
        assert not diffuses or stage.settings.frames % 4 == toy.settings.frames % 4 == 1


def test_the_published_training_of_recurrent_networks():
    for kind, suffix in (("matlab", ""), ("bd", "-bd")):
        (first,), (second,) = (
            RECIPES[f"{name}{suffix}"].stages for name in ("basicvsr-x4", "skipvsr-x4-routing")
        )
        for stage in (first, second):
            assert (stage.settings.degradation.clean, stage.settings.degradation.kind) == (1, kind)
            assert stage.settings.frames == 15
            assert stage.settings.ema == 0.999
        a, b = first.settings, second.settings
        assert (a.steps, a.batch, a.crop, a.learning_rate) == (300_000, 8, 256, 2e-4)
        assert (b.steps, b.batch, b.crop, b.learning_rate) == (100_000, 16, 192, 1e-4)
        assert first.objective == ReconstructObjective(flow_rate=0.125)
        assert second.objective == BlockSkipObjective(mask=0.1, error=0.1, router_rate=10.0)


def test_the_published_training_of_diffusion_models():
    """The configuration of SeedVR: transformed timesteps, `noise_scale` 0.25."""
    (stage,) = RECIPES["3b-finetune"].stages
    finetune = stage.objective
    assert isinstance(finetune, VelocityObjective)
    assert (finetune.shifted, finetune.condition_noise, finetune.dropped) == (True, 0.25, 0.1)
    later = [s.objective for n in ("3b-distill", "3b-adversarial") for s in RECIPES[n].stages]
    assert len(later) == 7
    assert all(objective.condition_noise == 0.25 for objective in later)
    (teacher,) = RECIPES["nano-teacher"].stages
    assert teacher.objective == VelocityObjective(shifted=False, condition_noise=0, dropped=0)


# those of other footage differ in nothing that a step does; small's first stage is that of x2, and
# 3b's adversarial step is nano's with masks that its other stages have
LIKE_OTHERS = ("-bd", "vsr-small", "3b-adversarial")


@pytest.mark.parametrize("name", [name for name in TRAINED if not name.endswith(LIKE_OTHERS)])
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, data: Path, tmp_path: Path):
    recipe, seen = small(name), list[TrainProgress]()

    def report(_stage: str, progress: TrainProgress) -> None:
        if progress.step == 2:  # what a crash in the second step leaves
            shutil.copytree(tmp_path / "straight", tmp_path / "parts")
        seen.append(progress)

    straight = run(recipe, RunPaths(data=data, out=tmp_path / "straight"), report=report)
    assert [p.step for p in seen] == [1, 2]
    assert all(math.isfinite(value) for p in seen for value in p.figures.values())
    norms = [v for p in seen for name, v in p.figures.items() if name.endswith("gradient")]
    assert norms
    assert all(norm > 0 for norm in norms)
    (folder,) = (f.parent for f in (tmp_path / "straight").glob("*/state.pt"))
    assert logged(folder) == [1, 2]
    used = json.loads((folder / "data.json").read_text())["used"]
    assert used == ["0.png", "1.png", "a.mp4"]

    assert state(tmp_path / "parts")["step"] == 1
    resumed = run(recipe, RunPaths(data=data, out=tmp_path / "parts"))
    a, b = load_file(straight), load_file(resumed)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert equal(state(tmp_path / "straight"), state(tmp_path / "parts"))
    assert logged(resumed.parent / folder.name) == [1, 2]  # the second once, though taken twice

    settings = recipe.stages[0].settings
    torch.manual_seed(settings.seed)
    backbone, preset = family(settings.model)
    before = backbone.build(backbone.presets[preset]).state_dict()
    after = state(tmp_path / "straight")["model"]
    changed = {k for k in after if not torch.equal(before[k], after[k])}
    assert all(k.startswith(TRAINED[name]) for k in changed)
    assert all(any(k.startswith(prefix) for k in changed) for prefix in TRAINED[name])
    assert not list((tmp_path / "straight").rglob("*.part*"))


def test_the_result_loads_and_can_be_started_from(data: Path, tmp_path: Path):
    recipe = small("nano-predictor", steps=1)
    file = run(recipe, RunPaths(data=data, out=tmp_path / "a"))
    runtime = RuntimeSettings(weights=file, device="cpu", dtype="float32")
    assert load_upscaler("seedvr2:tiny", runtime=runtime).name == "seedvr2:tiny"
    other = run(recipe, RunPaths(data=data, out=tmp_path / "b", start=file))
    a, b = load_file(file), load_file(other)
    assert all(torch.equal(a[k], b[k]) for k in a if not k.startswith("predictor."))
    assert any(not torch.equal(a[k], b[k]) for k in a if k.startswith("predictor."))


# training from published files


def exported(data: Path, out: Path, name: str, start: Path) -> Path:
    """What the recipe writes when it starts from files of 3B."""
    recipe = small(name, model="seedvr2:3b", steps=1)
    return run(recipe, RunPaths(data=data, out=out, start=start))


def test_no_untrained_predictor_is_written(published: SeedVR2, data: Path, tmp_path: Path):
    start = write_parts(published, tmp_path)
    assert published.text.negative is not None  # fine-tuning drops texts now and then
    torch.save(published.text.negative.detach().clone(), tmp_path / "neg_emb.pt")
    file = exported(data, tmp_path / "out", "3b-finetune", start)
    assert kind_of(file) == "seedvr2:3b whole model with negative conditioning"
    model = load_networks("seedvr2:3b", file)
    assert isinstance(model, SeedVR2)
    assert not model.predicts
    nothing = run(small("nano-autoencoder", steps=1), RunPaths(data=data, out=tmp_path / "b"))
    assert kind_of(nothing) == "seedvr2:tiny whole model with negative conditioning"
    dense = run(small("basicvsr-x4", steps=1), RunPaths(data=data, out=tmp_path / "c"))
    assert kind_of(dense) == "basicvsr:tiny network"
    routed = small("skipvsr-x4-routing", steps=1)
    routed = run(routed, RunPaths(data=data, out=tmp_path / "d", start=dense))
    assert kind_of(routed) == "basicvsr:tiny network with routers"


def test_a_trained_predictor_is_put_beside_the_published_files(
    published: SeedVR2, data: Path, tmp_path: Path
):
    start = write_parts(published, tmp_path)
    assert published.text.negative is not None  # fine-tuning drops texts now and then
    torch.save(published.text.negative.detach().clone(), tmp_path / "neg_emb.pt")
    file = exported(data, tmp_path / "out", "3b-predictor", start)
    assert kind_of(file) == "seedvr2 mask predictor"
    shutil.copy(file, tmp_path / "predictor.safetensors")
    model = load_networks("seedvr2:3b", tmp_path)
    assert isinstance(model, SeedVR2)
    assert model.predictor is not None
    assert all(torch.equal(model.predictor.state_dict()[k], v) for k, v in read(file).items())
    assert torch.equal(model.dit.vid_in.proj.weight, published.dit.vid_in.proj.weight)
    whole = exported(data, tmp_path / "more", "3b-finetune", start)  # it came with the start
    assert kind_of(whole) == (
        "seedvr2:3b whole model with mask predictor and negative conditioning"
    )
    assert all(torch.equal(read(whole)[f"predictor.{k}"], v) for k, v in read(file).items())


def read(file: Path) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(file).items()}


def kind_of(file: Path) -> str:
    match = identify_file(file)
    assert match is not None
    assert match.exact
    return match.kind


def test_resuming_with_other_settings_is_refused(data: Path, tmp_path: Path):
    paths = RunPaths(data=data, out=tmp_path)
    run(small("nano-predictor", steps=1), paths)
    with pytest.raises(SettingsError, match="other settings"):
        run(small("nano-predictor"), paths)
    with pytest.raises(SettingsError, match="already holds a run; give `resume`"):
        run_recipe("nano-predictor", paths)
    with pytest.raises(WeightsError, match="holds no run to resume"):
        run_recipe("nano-predictor", RunPaths(data=data, out=tmp_path / "other"), resume=True)
    saved = tmp_path / "predictor" / "state.pt"
    saved.write_bytes(saved.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"state.pt: the saved state is damaged"):
        run(small("nano-predictor"), paths)


def test_resuming_with_another_objective_or_other_data_is_noticed(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    paths = RunPaths(data=folder, out=tmp_path / "out")
    run(small("nano-predictor", steps=2), paths)
    saved = next(paths.out.glob("*/state.pt"))
    (paths.out / "predictor" / "model.safetensors").unlink()  # as if it had not finished

    recipe = small("nano-predictor", steps=2)
    other = dataclasses.replace(recipe.stages[0], objective=PredictorObjective(usual=0.5))
    with pytest.raises(SettingsError, match=r"with another objective; use another `out`"):
        run(Recipe((other,)), paths)
    for i in range(2):  # of the same names and sizes
        Image.fromarray(make_frames(1, 90, 72, seed=7 + i)[0]).save(folder / f"{i}.png")
    run(recipe, paths)
    assert (
        caplog.messages[-1]
        == f"{saved} was written by a run with other data: it goes on with these"
    )
    older = torch.load(saved, weights_only=True)
    del older["objective"], older["data"]
    torch.save(older, saved)
    run(recipe, paths)  # a state that does not say


def test_jobs_that_cannot_start(data: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="unknown recipe 'x'; there are nano-autoencoder, "):
        run_recipe("x", RunPaths(data=data, out=tmp_path))
    for name in ("nano-onestep", "skipvsr-nano-flow"):
        with pytest.raises(SettingsError, match="trains on pixels: leave out `latents`"):
            run_recipe(name, RunPaths(data=data, out=tmp_path, latents=tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MediaError, match="nothing to train on"):
        run(small("nano-predictor"), RunPaths(data=empty, out=tmp_path / "out"))


def test_what_goes_on_from_weights_needs_them(data: Path, tmp_path: Path):
    """Recipes that need none begin with an autoencoder, a flow network, or both networks at once;
    the others name a recipe, what is published, or what a script makes."""
    alone = {name for name, recipe in RECIPES.items() if recipe.start is None}
    assert alone == {
        "nano-autoencoder", "skipvsr-nano-flow", "skipvsr-nano-x2", "basicvsr-x4", "basicvsr-x4-bd",
    }  # fmt: skip
    for name in RECIPES.keys() - alone:
        with pytest.raises(SettingsError, match=f"{name} goes on from .*: give these weights as"):
            run_recipe(name, RunPaths(data=data, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_batches_that_wait_fit_the_machine(monkeypatch: pytest.MonkeyPatch):
    """A clip of 3B and its base have 1.2 GB; 16 GiB of a machine may wait."""
    small, large = (RECIPES[name].stages[0].settings for name in ("nano-teacher", "3b-finetune"))
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert batches_ahead(small, clips=4) == 64
    assert batches_ahead(large, clips=1) == 14
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert batches_ahead(small, clips=4) == 8
    assert batches_ahead(large, clips=1) == 2
    assert batches_ahead(large, clips=100) == 2  # one is made while one is used


def test_the_learning_rate_warms_up_and_sinks():
    settings = dataclasses.replace(
        RECIPES["nano-teacher"].stages[0].settings, steps=100, warmup=10, learning_rate=1.0
    )
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert 0.01 <= rates[-1] < 0.02
    assert rates[55] == pytest.approx(0.01 + 0.99 / 2)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_smooth_masks_keep_their_share(share: float):
    mask = smooth_mask((3, 8, 10), share, torch.Generator().manual_seed(0))
    assert mask.shape == (3, 8, 10)
    assert mask.sum().item() == pytest.approx(max(1, share * 240), abs=2)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def test_mixed_masks_are_never_empty_and_of_four_kinds():
    grid = (2, 4, 4)
    errors = torch.zeros(40, *grid)
    errors[..., 2:] = 1
    oracle, predicted = errors[0] > 0, torch.zeros(grid, dtype=torch.bool)
    predicted[0, 0] = True
    shares = MaskShares(oracle=0.25, predictor=0.25, blobs=0.25)
    masks = mixed_masks(errors, lambda _: predicted, shares, generators(40))
    assert all(mask.any() for mask in masks)
    kinds = [sum(torch.equal(m, kind) for m in masks) for kind in (oracle, predicted)]
    dense = sum(bool(m.all()) for m in masks)
    assert all(4 <= n <= 16 for n in (*kinds, dense, 40 - sum(kinds) - dense))

    shares = MaskShares(oracle=0.5, predictor=0.5, blobs=0)
    nothing = mixed_masks(
        torch.zeros_like(errors), lambda _: ~predicted & predicted, shares, generators(40)
    )
    assert all(mask.all() for mask in nothing)
    with pytest.raises(ValueError, match="add up"):
        MaskShares(oracle=0.5, predictor=0.5, blobs=0.5)


def test_structure_loss_against_a_loop():
    a, b = (torch.rand((1, 1, 12, 13), generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    ours = ssim_map(a, b)[0, 0]
    x, y = a[0, 0, 3:10, 2:9].double().flatten(), b[0, 0, 3:10, 2:9].double().flatten()
    covariance = (x * y).mean() - x.mean() * y.mean()
    c1, c2 = 1e-4, 9e-4
    expected = (2 * x.mean() * y.mean() + c1) * (2 * covariance + c2)
    expected /= (x.mean() ** 2 + y.mean() ** 2 + c1) * (
        x.var(correction=0) + y.var(correction=0) + c2
    )
    assert ours[3, 2].item() == pytest.approx(expected.item(), abs=1e-5)
    clip = torch.rand((1, 3, 2, 16, 16), generator=torch.Generator().manual_seed(2))
    assert structure_loss(clip, clip).item() == pytest.approx(0, abs=1e-5)


def test_a_state_that_does_not_fit_on_the_disk_leaves_the_last_one(tmp_path: Path):
    model, path = torch.nn.Linear(100, 100), tmp_path / "state.pt"
    settings = RECIPES["nano-predictor"].stages[0].tiny().settings
    training = TrainingRun(model, Average.of(model, 0.9), (), (), settings, "", "")
    training.save(path, 3, write=True)
    with no_file_beyond(50_000), pytest.raises(OSError, match="too large") as caught:
        training.save(path, 4, write=True)
    assert describe(caught.value) == f"{path}: File too large"
    assert training.load(path) == 3
    assert list(tmp_path.iterdir()) == [path]
