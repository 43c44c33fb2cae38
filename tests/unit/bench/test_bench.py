"""What a benchmark runs, and what it says of it."""

import json
from typing import Any

import pytest
import torch

from skipsr.backbones.basicvsr.blocks import ResidualBlock
from skipsr.bench.measure import matmul_ceiling, measure_in_turn
from skipsr.bench.model import make_clip
from skipsr.bench.networks import fill_zeros
from skipsr.bench.run import run_bench
from skipsr.bench.settings import BenchSettings
from skipsr.errors import SettingsError
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.tracing import span

CPU = RuntimeSettings(device="cpu", dtype="float32")
SMALL: dict[str, Any] = {"frames": 2, "height": 32, "width": 32, "rounds": 1}


@pytest.fixture(autouse=True)
def short_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skipsr.bench.measure._SIDE_CPU", 256)


@pytest.mark.parametrize("model", ["seedvr2:tiny", "basicvsr:tiny"])
def test_shares_that_are_asked_for_are_skipped(model: str):
    settings = BenchSettings(**SMALL, skip_share=(0.3, 0.7))
    report = run_bench(model, settings, runtime=CPU)
    figures = json.loads(report.to_json())
    assert figures["weights"] == "random"
    assert figures["to"] == [128, 128]
    dense, some, most = figures["rows"]
    assert dense["skipped"] == 0
    assert dense["speedup"] == dense["time_over_flop"] == 1
    assert 0 < some["skipped"] < most["skipped"] <= 0.72
    assert most["tflop"] < some["tflop"]  # of so small a model dense takes less than the masks
    for row in figures["rows"]:
        assert 0 < sum(row["stages"].values()) <= row["seconds"] * 1.01
        assert row["of_matmul"] == pytest.approx(row["tflops"] / figures["matmul_tflops"], rel=1e-3)
        assert row["peak_memory_gib"] > 0
    lines = report.lines()
    assert len(lines) == 2 + 3 + 3
    assert lines[2].startswith("dense")


def test_nearly_all_can_be_asked_for():
    """Stages that skip unequal shares had made that a budget below what always runs."""
    report = run_bench("seedvr2:tiny", BenchSettings(**SMALL, skip_share=(0.999,)), runtime=CPU)
    assert json.loads(report.to_json())["rows"][1]["skipped"] > 0.9


def test_by_default_the_usual_dial_is_set_beside_dense():
    report = run_bench("seedvr2:tiny", BenchSettings(**SMALL), runtime=CPU)
    assert [row.name for row in report.rows] == ["dense", "quality 0.5"]


def test_a_transformer_of_another_shape_is_measured_in_all_ways():
    settings = BenchSettings(
        frames=5, height=24, width=32, rounds=1, layers=2, features=128, skip_share=(0.396,),
        mechanism=("route", "attention-only", "queries-only", "interleaved"),
    )  # fmt: skip
    figures = json.loads(run_bench("seedvr2:3b", settings, runtime=CPU).to_json())
    assert figures["tokens"] == [2, 6, 8]
    assert (figures["layers"], figures["features"]) == (2, 128)
    assert [row["name"] for row in figures["rows"]] == ["dense", *settings.mechanism]
    route = figures["rows"][1]
    assert route["paper_flop_ratio"] == pytest.approx(1135 / 2001, rel=1e-4)
    assert route["flop_ratio"] < 0.8


@pytest.mark.parametrize(
    ("model", "given", "dials", "told"),
    [
        ("skipvsr:nano", {"mechanism": ("route",)}, {}, "seedvr2:3b"),
        ("seedvr2:3b", {"mechanism": ("route",), "features": 100}, {}, "`features` 100"),
        ("seedvr2:3b", {"mechanism": ("route",)}, {"quality": 0.3}, "`quality`"),
        ("seedvr2:tiny", {"skip_share": (0.5,)}, {"quality": 0.3}, "`skip_share`"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: str, given: dict[str, Any], dials: dict[str, float], told: str
):
    settings = BenchSettings(**SMALL, **given)
    with pytest.raises(SettingsError, match=told):
        run_bench(model, settings, SkipSettings(**dials), CPU)


def test_what_changes_no_speed_is_refused():
    with pytest.raises(SettingsError, match="`detail`"):
        run_bench("skipvsr:nano", BenchSettings(**SMALL), options={"detail": 0.2})


@pytest.mark.parametrize("name", ["steps", "guidance"])
def test_what_one_step_does_not_have_is_refused(name: str):
    settings = BenchSettings(**SMALL, mechanism=("route",), layers=1, features=128)
    with pytest.raises(SettingsError, match=f"`{name}` is not for `mechanism`"):
        run_bench("seedvr2:3b", settings, runtime=CPU, options={name: 4})


@pytest.mark.parametrize(
    "given", [{"frames": 0}, {"skip_share": (1.0,)}, {"layers": 2}, {"scale": 0.5}]
)
def test_settings_out_of_range_are_refused(given: dict[str, Any]):
    with pytest.raises(SettingsError, match=f"`{next(iter(given))}`"):
        BenchSettings(**given)


def test_things_run_in_turn_after_a_warm_up():
    order: list[str] = []

    def run(name: str) -> None:
        order.append(name)
        with span("half"):
            _ = torch.ones(3, 4) @ torch.ones(4, 5)

    found = measure_in_turn([lambda: run("a"), lambda: run("b")], torch.device("cpu"), 2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert [one.tflop * 1e12 for one in found] == pytest.approx([120, 120])
    assert all(0 < one.stages["half"] <= one.seconds for one in found)


def test_convolutions_count_the_same_with_what_follows_them():
    block = ResidualBlock(8).requires_grad_(False)
    x = torch.rand(1, 8, 12, 10).to(memory_format=torch.channels_last)

    def run(*, gradients: bool) -> None:  # with them nothing is fused
        with torch.set_grad_enabled(gradients):
            block(x)

    ways = [lambda: run(gradients=True), lambda: run(gradients=False)]
    plain, fused = measure_in_turn(ways, torch.device("cpu"), 1)
    assert plain.tflop * 1e12 == fused.tflop * 1e12 == 2 * 2 * 9 * 8 * 8 * 120


def test_the_ceiling_is_a_rate():
    assert 0 < matmul_ceiling(torch.device("cpu"), torch.float32) < 100


def test_made_clips_differ_from_frame_to_frame_and_from_place_to_place():
    clip = make_clip(3, 40, 48)
    assert clip.frames.shape == (3, 3, 40, 48)
    assert 0 <= clip.frames.min() < clip.frames.max() <= 1
    assert not torch.equal(clip.frames[0], clip.frames[1])
    spread = clip.frames[0, 0].unfold(0, 8, 8).unfold(1, 8, 8).flatten(2).std(2)
    assert spread.max() > 3 * spread.min()


def test_zeros_are_filled_and_nothing_else():
    layer = torch.nn.Linear(3, 4)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    fill_zeros(layer)
    assert layer.weight.all()
    assert not layer.bias.any()
