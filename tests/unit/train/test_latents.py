"""Latents computed once and kept: the same as computed anew, and in folders of their own."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_models import make_frames, make_model
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from skipsr.backbones import family
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.data.clips import ClipDataset
from skipsr.data.degrade import Degradation
from skipsr.train import batches
from skipsr.train.batches import ClipSource, LatentSource, generators_of, latents_name
from skipsr.train.loop import train
from skipsr.train.objective import ClipBatch, to_latents
from skipsr.train.objectives.adversarial import AdversarialObjective
from skipsr.train.parallel import Parallel
from skipsr.train.recipes import RECIPES, Recipe
from skipsr.train.run import RunPaths, run
from skipsr.train.settings import TrainSettings

SHARD = 8
ALONE = Parallel(torch.device("cpu"))
SETTINGS = TrainSettings(
    model="seedvr2:tiny", steps=2, batch=3, crop=32, frames=5, warmup=1, latents=2 * SHARD,
    degradation=Degradation(video=0.0),
)  # fmt: skip


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_SHARD", SHARD)


def write_images(folder: Path, seed: int) -> Path:
    folder.mkdir()
    for i in range(2):
        Image.fromarray(make_frames(1, 48, 40, seed=seed + i)[0]).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", seed=0)


def clips_of(folder: Path, settings: TrainSettings = SETTINGS) -> ClipSource:
    dataset = ClipDataset(folder, crop=settings.crop, frames=settings.frames, seed=settings.seed)
    return ClipSource(dataset, settings, family(settings.model)[0].training_input)


def filled(folder: Path, model: SeedVR2, clips: ClipSource) -> LatentSource:
    source = LatentSource(folder, SETTINGS)
    source.fill(model, clips, ALONE)
    return source


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_shards_hold_what_the_encoder_says(tmp_path: Path, data: Path):
    model, clips = make_model(), clips_of(data)
    source = filled(tmp_path / "latents", model, clips)
    files = sorted((tmp_path / "latents").iterdir())
    assert files == [source.path(0), source.path(1)]
    for shard, file in enumerate(files):
        tensors = load_file(file)
        assert {k: v.dtype for k, v in tensors.items()} == {
            "high": torch.float16, "base": torch.float16, "errors": torch.float32,
        }  # fmt: skip
        for row in range(SHARD):
            step, place = divmod(shard * SHARD + row, SETTINGS.batch)
            latents = to_latents(model, clips(step, [place]))
            for name in ("high", "base"):
                assert torch.equal(tensors[name][row], getattr(latents, name)[0].half())
            assert torch.equal(tensors["errors"][row], latents.errors[0])


def test_every_pass_visits_each_sample_once_in_an_order_of_its_own(tmp_path: Path, data: Path):
    source = filled(tmp_path / "latents", make_model(), clips_of(data))
    stored = torch.cat([load_file(source.path(i))["high"] for i in (0, 1)]).float()
    count, batch = 2 * SHARD, SETTINGS.batch

    def number(high: Tensor) -> int:
        (found,) = (i for i, one in enumerate(stored) if torch.equal(one, high))
        return found

    steps = [source(step, range(batch)) for step in range(2 * count // batch + 1)]
    order = [number(high) for found in steps for high in found.high]
    first, second = order[:count], order[count : 2 * count]
    assert sorted(first) == sorted(second) == list(range(count))
    assert first != second
    assert first != list(range(count))
    later = source(3, [2, 0])  # a process asks for its own places alone
    assert torch.equal(later.high, steps[3].high[[2, 0]])
    assert torch.equal(later.base, steps[3].base[[2, 0]])
    assert torch.equal(later.errors, steps[3].errors[[2, 0]])
    for ours, theirs in zip(later.generators, generators_of(SETTINGS, 3, [2, 0]), strict=True):
        assert torch.equal(torch.rand(3, generator=ours), torch.rand(3, generator=theirs))


def test_an_interrupted_fill_goes_on(tmp_path: Path, data: Path):
    model, clips = make_model(), clips_of(data)
    whole = filled(tmp_path / "whole", model, clips)

    class Interrupted(ClipSource):
        def __call__(self, step: int, places: range) -> ClipBatch:  # type: ignore[override]
            if step * SETTINGS.batch + places[0] == SHARD + 3:
                raise KeyboardInterrupt
            return ClipSource.__call__(self, step, places)

    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        filled(folder, model, Interrupted(clips.data, clips.settings, clips.training_input))
    parts = LatentSource(folder, SETTINGS)
    assert [p.name for p in folder.iterdir()] == [parts.path(0).name]
    done = parts.path(0).stat().st_mtime_ns
    parts.fill(model, clips, ALONE)
    assert parts.path(0).stat().st_mtime_ns == done
    for i in (0, 1):
        assert equal(load_file(parts.path(i)), load_file(whole.path(i)))
    assert not list(folder.glob("*.part*"))


def other_weights(model: SeedVR2) -> None:
    with torch.no_grad():
        next(model.vae.encoder.parameters()).add_(1e-3)


Change = dict[str, object]
OTHER: dict[str, Change] = {
    "crop": {"crop": 16},
    "frames": {"frames": 1},
    "degradation": {"degradation": Degradation(video=0.0, clean=1.0)},
    "seed": {"seed": 1},
    "batch": {"batch": 2},
    "precision": {"bfloat16": True},
}
SAME: list[Change] = [{"learning_rate": 1.0}, {"steps": 9}, {"latents": 99}, {"sequence": 2}]


def name_of(folder: Path, change: Change, alter: Callable[[SeedVR2], None] | None = None) -> str:
    settings = dataclasses.replace(SETTINGS, **change)  # type: ignore[arg-type]
    model = make_model()
    if alter is not None:
        alter(model)
    return latents_name(model, clips_of(folder, settings).data, settings)


def test_what_makes_other_latents_has_another_folder(tmp_path: Path, data: Path):
    usual = name_of(data, {})
    assert [name_of(data, change) for change in SAME] == [usual] * len(SAME)
    others = {what: name_of(data, change) for what, change in OTHER.items()}
    others["encoder"] = name_of(data, {}, other_weights)
    namesakes = write_images(tmp_path / "namesakes", seed=5)  # other pictures, the same names
    others["data"] = name_of(namesakes, {})
    assert len({usual, *others.values()}) == 1 + len(others), others


def test_a_run_trains_on_kept_latents(tmp_path: Path, data: Path):
    stage = RECIPES["nano-teacher"].stages[0].tiny()
    settings = dataclasses.replace(stage.settings, crop=32, latents=SHARD)
    recipe = Recipe((dataclasses.replace(stage, settings=settings),))
    kept = tmp_path / "latents"
    first = run(recipe, RunPaths(data=data, out=tmp_path / "a", latents=kept))
    (folder,) = kept.iterdir()
    (shard,) = folder.iterdir()
    written = shard.stat().st_mtime_ns
    again = run(recipe, RunPaths(data=data, out=tmp_path / "b", latents=kept))
    assert shard.stat().st_mtime_ns == written
    weights, start = load_file(first), make_started(settings)
    assert equal(weights, load_file(again))
    changed = {k for k, v in weights.items() if k in start and not torch.equal(v, start[k].half())}
    assert "dit.vid_in.proj.weight" in changed
    assert not any(k.startswith("vae.") for k in changed)


def make_started(settings: TrainSettings) -> dict[str, Tensor]:
    torch.manual_seed(settings.seed)
    backbone, preset = family(settings.model)
    return dict(backbone.build(backbone.presets[preset]).named_parameters())


def test_a_batch_is_encoded_once_for_all_phases(tmp_path: Path, data: Path):
    model, clips, calls = make_model(), clips_of(data), list[int]()
    model.vae.encoder.register_forward_hook(lambda *_: calls.append(1))
    to_latents(model, clips(0, range(SETTINGS.batch)))
    once = len(calls)
    assert once > 0
    train(model, AdversarialObjective(depths=(0.5, 1.0)), SETTINGS, clips, tmp_path / "out")
    assert len(calls) == once * (1 + SETTINGS.steps)
