"""Recipes of a file outside the package train, resume and plan as those in it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skipsr.errors import SettingsError
from skipsr.loading import identify_file
from skipsr.train.recipes import Recipe
from skipsr.train.run import RunPaths, check_recipe, find_recipe, run_recipe

BESIDE = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from skipsr.train.objective import Losses, Phase, to_clips
from skipsr.train.objectives.reconstruct import enlarge


class Spectrum:
    reads: ClassVar = "clips"
    weight = 0.1

    def phases(self, model):
        def losses(batch):
            result, high = enlarge(model, to_clips(batch))
            gap = self.weight * torch.fft.rfft2(result - high).abs().mean()
            return Losses(gap, {"spectrum": gap})

        return [Phase("model", model.part("all"), losses)]


@dataclass(frozen=True, kw_only=True)
class Told(Spectrum):
    weight: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Half(Told):
    window: object = torch.hann_window
"""
MINE = """
from dataclasses import replace

from losses_beside import Half, Spectrum, Told

from skipsr.train import doubt, need
from skipsr.train.recipes import RECIPES, Recipe, Stage

usual = RECIPES["skipvsr-nano-backbone"].stages[0].tiny()
settings = replace(usual.settings, crop=32, frames=2, batch=1)
own = Recipe((Stage(name="own", objective=Told(weight=0.3), settings=settings),))
untold = Recipe((replace(own.stages[0], objective=Spectrum()),))
half = Recipe((replace(own.stages[0], objective=Half(window=lambda side: side)),))
longer = Recipe((replace(own.stages[0], settings=replace(settings, steps=3)),))
planned = RECIPES["3b-predictor"]
small = replace(need.SETTINGS, steps=2, latents=8, batch=2, crop=32, frames=1)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "losses_beside.py").write_text(BESIDE)
    path = tmp_path / "my_recipes.py"
    path.write_text(MINE)
    before = list(sys.path)
    yield path
    sys.path[:] = before
    for name in ("my_recipes", "losses_beside"):
        sys.modules.pop(name, None)


def test_an_own_objective_trains_and_resumes(mine: Path, data: Path, tmp_path: Path):
    paths = RunPaths(data=data, out=tmp_path / "out")
    match = identify_file(run_recipe(f"{mine}:own", paths))
    assert match is not None
    assert match.kind == "basicvsr:tiny network"
    first, *_ = (tmp_path / "out/own/log.jsonl").read_text().splitlines()
    assert json.loads(first).keys() == {"step", "seconds", "loss", "gradient", "spectrum"}
    with pytest.raises(SettingsError, match="already holds a run; give `resume`"):
        run_recipe(f"{mine}:own", paths)
    (tmp_path / "out/own/model.safetensors").unlink()
    run_recipe(f"{mine}:own", paths, resume=True)
    with pytest.raises(SettingsError, match=r"was written by a run with other settings"):
        run_recipe(f"{mine}:longer", paths, resume=True)


@pytest.mark.parametrize(("name", "objective"), [("untold", "Spectrum"), ("half", "Half")])
def test_an_objective_that_no_resumed_run_would_know_is_refused(
    mine: Path, data: Path, tmp_path: Path, name: str, objective: str
):
    """Also one that says no more of what it was told than where that lies in memory."""
    with pytest.raises(
        SettingsError, match=rf"^{objective} does not say .* make it a frozen dataclass"
    ):
        run_recipe(f"{mine}:{name}", RunPaths(data=data, out=tmp_path / "out"))
    assert not (tmp_path / "out/own").exists()


def test_a_recipe_of_the_package_can_be_varied(mine: Path):
    found = find_recipe(f"{mine}:planned")
    assert isinstance(found, Recipe)
    assert found.start == "SeedVR2-3B"


def test_what_needs_no_stages_is_fitted_with_own_settings(mine: Path, data: Path, tmp_path: Path):
    check_recipe(f"{mine}:small")
    with pytest.raises(SettingsError, match=r"my_recipes.py:small has no stages to plan"):
        find_recipe(f"{mine}:small")
    run_recipe(f"{mine}:small", RunPaths(data=data, out=tmp_path / "need"))
    assert "lost" in json.loads((tmp_path / "need/need.json").read_text())


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (
            "{mine}",
            "give a recipe of .*my_recipes.py as .*:NAME; there are own, untold, half",
        ),
        (
            "{mine}:other",
            "give a recipe of .*my_recipes.py as .*; there are own, untold, half",
        ),
        ("{folder}/nowhere.py:own", "there is no file .*nowhere.py; give .* FILE.py:NAME$"),
        ("{folder}/json.py:own", "another module is named json; rename the file$"),
        ("{folder}/my.own.py:own", "my.own.py: a module's name has no dots; rename the file$"),
        ("{folder}/losses_beside.py:own", "it holds no Recipe$"),
        (
            "{mine}:settings",
            "settings without stages are for light, surroundings, need and doubt; make a Recipe",
        ),
    ],
)
def test_what_is_not_there_is_told(mine: Path, tmp_path: Path, told: str, why: str):
    for name in ("json.py", "my.own.py"):
        (tmp_path / name).touch()
    with pytest.raises(SettingsError, match=why):
        check_recipe(told.format(mine=mine, folder=tmp_path))
