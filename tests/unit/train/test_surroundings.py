"""Fitting what is guessed beyond what is run."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from skipsr.data.degrade import Degradation
from skipsr.skipping.light import FOLDS
from skipsr.skipping.surroundings import CHANNELS, CODE, LAYERS, load_surroundings
from skipsr.train import need, surroundings
from skipsr.train.run import RunPaths, run_recipe
from skipsr.train.surroundings import Sums

SETTINGS = dataclasses.replace(
    surroundings.SETTINGS, crop=64, frames=3, latents=4, degradation=Degradation(clean=1.0)
)


def sums(read: torch.Tensor, wanted: torch.Tensor) -> Sums:
    x = torch.cat((read, torch.ones_like(read[:, :1])), 1)
    return Sums(x.T @ x, x.T @ wanted, wanted.square().sum(0))


def test_a_fit_finds_a_map_of_few_dimensions():
    generator = torch.Generator().manual_seed(0)
    read = torch.randn(4000, 80, generator=generator).double() + 0.5
    code = read @ torch.randn(80, CODE - 1, generator=generator).double()
    wanted = code @ torch.randn(CODE - 1, LAYERS * CHANNELS, generator=generator).double() + 3
    found = surroundings.fit(sums(read, wanted))
    guessed = found(read[:50].float()).transpose(0, 1).flatten(1)
    torch.testing.assert_close(guessed.double(), wanted[:50], atol=0.3, rtol=0)
    assert surroundings.left_by(found, sums(read, wanted)) < 1e-5
    assert surroundings.left_by(found, sums(read, -wanted)) > 3  # twice as far as nothing


def test_of_more_dimensions_it_keeps_those_that_leave_least():
    generator = torch.Generator().manual_seed(0)
    read = torch.randn(4000, 80, generator=generator).double()
    wanted = torch.zeros(4000, LAYERS, CHANNELS).double()
    wanted[:, :LAYERS, 0] = read[:, :LAYERS]
    wanted[:, :LAYERS, 1] = 0.1 * read[:, LAYERS : 2 * LAYERS]  # more than there is room for
    whole = wanted.flatten(1)
    left = surroundings.left_by(surroundings.fit(sums(read, whole)), sums(read, whole))
    assert 0.004 < left < 0.012  # at most a hundredth is in the others, some of which find room


def test_the_recipe_leaves_maps_that_load(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(surroundings, "SETTINGS", SETTINGS)
    monkeypatch.setattr(need, "_HELD_OUT", 2)
    paths = RunPaths(data=data, out=tmp_path / "out")
    path = run_recipe("surroundings", paths)
    for model in FOLDS:
        found = load_surroundings(model, path)
        assert found is not None
        assert torch.isfinite(found(torch.rand(3, 80))).all()
        ours = load_surroundings(model)
        assert ours is not None
        assert torch.equal(found.network, ours.network)
    told = json.loads((tmp_path / "out" / "surroundings.json").read_text())
    assert told.keys() == set(FOLDS)
    before = load_file(path)
    run_recipe("surroundings", paths, resume=True)
    assert all(torch.equal(load_file(path)[name], value) for name, value in before.items())
