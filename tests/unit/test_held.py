"""A model that stays loaded is placed as each job wants it."""

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skipsr.backbones.seedvr2.execution import Execution
from skipsr.backbones.seedvr2.memory_plan import WindowPlanner
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import WeightsError
from skipsr.held import Held
from skipsr.limits import MemoryPlan
from skipsr.loading import Model, find_model
from skipsr.nn.causal import Bounds
from skipsr.nn.residence import Residence
from skipsr.settings import RuntimeSettings, SkipSettings

DENSE = SkipSettings(dense=True)


def nano() -> Model:
    return find_model("seedvr2:nano", RuntimeSettings(device="cpu", dtype="float32"))


def plan_for(weights: Residence, bounds: Bounds | None = None) -> MemoryPlan:
    execution = Execution(weights=weights, bounds=bounds)
    return MemoryPlan(window=5, stages={}, residence=weights, execution=execution)


def load(held: Held, memory: MemoryPlan | None) -> SeedVR2Upscaler:
    found = held.upscaler("nano", nano(), DENSE, memory)
    assert isinstance(found, SeedVR2Upscaler)
    return found


def test_the_same_again_is_not_loaded_again():
    held = Held()
    first = load(held, None)
    assert load(held, plan_for("device")) is first
    assert held.upscaler("nano", nano(), SkipSettings(), None) is not first


def test_weights_are_where_each_jobs_plan_has_them():
    held = Held()
    for weights in ("device", "streamed", "in turn", "device"):
        assert load(held, plan_for(weights)).model.residence == weights


def test_what_is_held_is_arranged_for_the_next_job():
    held, bounds = Held(), Bounds(band=2**26, frames=1, tails=0)
    upscaler = load(held, plan_for("streamed"))
    assert load(held, plan_for("streamed", bounds)) is upscaler
    assert upscaler._execution == Execution(weights="streamed", bounds=bounds)  # pyright: ignore[reportPrivateUsage]


def test_the_old_model_is_given_up_before_the_new_one_is_read():
    held = Held()
    old = weakref.ref(load(held, None).model)
    broken = replace(nano(), files=replace(nano().files, known=(), folder=Path("nowhere")))
    with pytest.raises(WeightsError):
        held.upscaler("broken", broken, DENSE, None)
    assert old() is None


def test_a_plan_counts_on_what_a_held_model_gives_up(monkeypatch: pytest.MonkeyPatch):
    model = nano()
    config = model.backbone.presets[model.preset]
    monkeypatch.setattr("skipsr.backbones.seedvr2.memory_plan.free_card_memory", lambda _: 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 5 * 2**30)
    to_come = WindowPlanner(config, "cuda:0", 2).budget(None)
    there = WindowPlanner(config, "cuda:0", 2, resident="device").budget(None)
    away = WindowPlanner(config, "cuda:0", 2, resident="in turn").budget(None)
    assert to_come == 6 * 2**30
    assert away == 2**30
    assert there is not None
    assert 2**30 < there < 2**30 + 2**28
