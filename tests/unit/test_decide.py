"""Which cells are computed: dials, masks from need, what stands still, what repeats."""

import json
import math
import statistics
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from skipsr.backbones.basicvsr.config import PRESETS as RECURRENT
from skipsr.backbones.basicvsr.cost import region_cost
from skipsr.backbones.seedvr2.config import PRESETS as DIFFUSION
from skipsr.backbones.seedvr2.cost_law import skipping_cost
from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.decide import needed
from skipsr.skipping.dial import CostModel, Dial, default_dial
from skipsr.skipping.feather import feather
from skipsr.skipping.need import HEADS, LOST, Need, head_of, load_need
from skipsr.skipping.oracle import TAU
from skipsr.skipping.reuse import firsts, refined_cells, repeats, still_cells, without_still

COST = CostModel(always=0.1, fixed=0.2, slope=1.25)
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
USUAL = Dial(tau=1e-4, loss=0.01)
HEAD = 1


def dial(**skip: object) -> Dial:
    return Dial.of(SkipSettings(**skip), USUAL, COST)  # type: ignore[arg-type]


def need_of(change: Tensor, lost: float = 1e-2, spread: float = 0.1) -> Need:
    """Of errors `t rows columns`: what the model of `HEAD` changes, and what is lost."""
    mean = torch.full((len(change), len(HEADS), *change.shape[1:]), math.log(lost))
    mean[:, HEAD] = change.log()
    return Need(mean, torch.full_like(mean, spread))


def test_quality_moves_both_limits_by_decades():
    assert dial() == USUAL
    assert dial(quality=0.5) == USUAL
    low = dial(quality=0.0)
    assert (low.tau, low.loss) == (pytest.approx(1e-3), pytest.approx(0.1))
    assert dial(quality=1.0).everything
    assert not dial(quality=0.99).everything


def test_tau_is_an_absolute_limit():
    assert dial(tau=0.002) == Dial(tau=0.002)
    assert dial(tau=0.002, threshold=0.3) == Dial(tau=0.002, threshold=0.3)
    assert dial(threshold=0.0).everything


def test_budget_and_speed_ask_for_a_share_of_the_cells():
    assert dial(budget=0.55).share == pytest.approx(0.5)
    assert dial(budget=1.0).everything
    assert dial(speed=1 / 0.7).share == pytest.approx(0.4)
    assert dial(speed=1.0).everything
    with pytest.raises(SettingsError, match=r"`budget` 0.05 is less than .* at least 0.100"):
        dial(budget=0.05)
    with pytest.raises(SettingsError, match=r"`speed` 6 is out of reach: give at most 5.0 here"):
        dial(speed=6)


def test_a_share_of_the_cells_costs_what_it_is_told_to():
    assert COST.spent(0.5) == pytest.approx(0.55)
    for budget in (0.1, 0.4, 1.0):
        assert COST.spent(COST.cells_for_budget(budget)) == pytest.approx(budget)
    assert COST.cells_for_speed(5) == 0
    assert COST.fixed + COST.slope * COST.crossover == pytest.approx(1)


COSTS = {f"skipvsr:{name}": region_cost(config) for name, config in RECURRENT.items()} | {
    f"seedvr2:{name}": skipping_cost(config, config.sampling) for name, config in DIFFUSION.items()
}


@pytest.mark.parametrize("model", COSTS)
def test_what_a_refusal_suggests_is_taken(model: str):
    cost = COSTS[model]
    with pytest.raises(SettingsError) as refused:
        cost.cells_for_speed(99)
    fastest = float(str(refused.value).split()[-2])
    assert 0 <= cost.cells_for_speed(fastest) < 0.02
    if cost.always:
        with pytest.raises(SettingsError) as refused:
            cost.cells_for_budget(1e-6)
        assert 0 <= cost.cells_for_budget(float(str(refused.value).split()[-1])) < 0.01


def test_what_comes_with_every_frame_weighs_more_in_small_ones():
    cost = CostModel(always=0.1, fixed=0.1, slope=1.0, overhead=1000.0)
    small, large = cost.of_frames(10_000), cost.of_frames(100_000)
    assert small.fixed == pytest.approx(0.2)
    assert small.crossover == pytest.approx(0.8)
    assert large.crossover == pytest.approx(0.89)
    asked = Dial.of(SkipSettings(speed=2.0), Dial(tau=1e-4), cost)
    assert asked.share == pytest.approx(0.4)
    assert asked.among(6, 6, large).share == pytest.approx(0.39)
    assert asked.among(6, 6, small).share == pytest.approx(0.3)
    everything = Dial.of(SkipSettings(speed=1.0), Dial(tau=1e-4), cost)
    assert everything.among(6, 6, small).everything
    fastest = Dial.of(SkipSettings(speed=9.0), Dial(tau=1e-4), cost)
    assert fastest.among(6, 6, small).share == pytest.approx(0)  # it gets no faster


def test_a_share_of_all_frames_is_more_of_those_that_differ():
    assert dial(budget=0.55).among(4, 6, COST).share == pytest.approx(0.725 / 0.9)
    assert dial(budget=0.55).among(2, 6, COST).everything
    assert dial().among(2, 6, COST) == dial()


@pytest.mark.parametrize(
    ("recorded", "model"),
    [
        ("skipvsr_nano_calm", "skipvsr:nano"),
        ("skipvsr_nano", "skipvsr:nano"),
        ("skipvsr_nano_crf28", "skipvsr:nano"),
        ("seedvr2_nano", "seedvr2:nano"),
    ],
)
def test_times_are_as_recorded(recorded: str, model: str):
    rows = json.loads((RESULTS / f"regions_{recorded}.json").read_text())["rows"]
    cost = COSTS[model]
    off: list[float] = []
    for row in rows:
        if row["skipped"]:
            found = cost.of_frames(math.prod(row["size"]) // 16)
            law = found.fixed + found.slope * (1 - row["skipped"])
            off.append(min(1.0, law) - row["time"])  # frames are run whole where it comes to 1
    assert len(off) > 5
    assert abs(statistics.mean(off)) < 0.03
    assert statistics.mean(abs(each) for each in off) < 0.05


def test_cells_above_tau_are_needed():
    change = torch.full((3, 4, 6), 1e-7)
    change[:, 2, 3] = 1e-2
    keep = needed(need_of(change), HEAD, Dial(tau=1e-4), strip=1)
    assert keep.sum() == 3
    assert keep[:, 2, 3].all()


def test_a_strip_is_decided_by_its_mean():
    change = torch.full((1, 5, 2), 1e-7)
    change[0, 0, 0], change[0, 4, 1] = 3e-4, 3e-4
    keep = needed(need_of(change), HEAD, Dial(tau=1e-4), strip=2)[0]
    assert keep.tolist() == [[True, False]] * 2 + [[False] * 2] * 2 + [[False, True]]
    assert not needed(need_of(change), HEAD, Dial(tau=2e-4), strip=2)[0, :4].any()


def test_the_last_strip_may_be_lower():
    """Its mean is that of the cells it has."""
    change = torch.full((1, 5, 1), 1e-7)
    change[0, 3:] = 2e-4
    keep = needed(need_of(change), HEAD, Dial(tau=1.5e-4), strip=3)
    assert keep.flatten().tolist() == [False] * 3 + [True] * 2


def test_masks_are_steady():
    """A cell that flickers is decided by its mean over three frames."""
    change = torch.full((9, 1, 1), 1e-6)
    change[::2] = 1e-3
    assert len(set(needed(need_of(change), HEAD, Dial(tau=1e-6), strip=1).flatten().tolist())) == 1


def test_a_threshold_of_probability():
    change = torch.full((1, 1, 1), 2e-4)
    need = need_of(change, spread=1.0)  # P(error > 1e-4) = 2/3
    assert needed(need, HEAD, Dial(tau=1e-4, threshold=0.6), strip=1).all()
    assert not needed(need, HEAD, Dial(tau=1e-4, threshold=0.7), strip=1).any()


def test_what_is_left_out_stays_a_share_of_the_error_there_is():
    change = torch.logspace(-8, -4, 100).reshape(1, 10, 10)
    for loss in (1e-3, 1e-2, 0.1):
        keep = needed(need_of(change, lost=1e-3), HEAD, Dial(tau=1.0, loss=loss), strip=1)
        left_out = change[~keep].sum() / change.numel()
        allowed = loss * (1e-3 - change).mean()
        assert left_out <= allowed
        if keep.any():
            assert left_out > 0.8 * allowed
    assert needed(need_of(change, lost=1e-3), HEAD, Dial(tau=1.0, loss=0.0), strip=1).all()


@pytest.mark.parametrize("lost", [4e-4, 2e-4, 1e-4])
def test_of_equal_cells_no_more_is_left_out_than_may_be(lost: float):
    need = need_of(torch.full((1, 10, 10), 1e-4), lost)
    left = max(lost - 1e-4, 0.25 * lost)  # no model restores all that is lost
    for share in (0.3, 0.6, 0.99):
        keep = needed(need, HEAD, Dial(tau=1.0, loss=share * 1e-4 / left), strip=1)
        assert (~keep).float().mean() <= share
    assert not needed(need, HEAD, Dial(tau=1.0, loss=1.01e-4 / left), strip=1).any()


def test_a_share_takes_what_needs_most():
    change = torch.logspace(-8, -4, 100).reshape(1, 10, 10)
    keep = needed(need_of(change), HEAD, Dial(tau=1.0, share=0.3), strip=1)
    assert keep.sum() == 30
    assert change[keep].min() > change[~keep].max()
    assert not needed(need_of(change), HEAD, Dial(tau=1.0, share=0.0), strip=1).any()


def test_a_share_is_not_spent_on_what_costs_nothing():
    change = torch.logspace(-8, -4, 100).reshape(1, 10, 10)
    costs = torch.ones(1, 10, 10)
    costs[:, 8:] = 0  # where most is needed

    def spent(keep: Tensor) -> float:
        return (keep * costs).mean().item()

    keep = needed(need_of(change), HEAD, Dial(tau=1.0, share=0.3), strip=1, spent=spent)
    assert keep.sum() == 50
    assert needed(need_of(change), HEAD, Dial(tau=1.0, share=0.9), strip=1, spent=spent).all()


def test_a_share_is_not_overspent_on_equal_cells():
    change = torch.full((1, 10, 10), 1e-8)
    change[:, :2] = 1e-4
    keep = needed(need_of(change), HEAD, Dial(tau=1.0, share=0.4), strip=1)
    assert keep.sum() == 30  # with the row beside them, which is raised


def test_beside_what_needs_much_a_cell_needs_more():
    change = torch.full((1, 7, 7), 1e-8)
    change[0, 3, 3] = 1e-2
    keep = needed(need_of(change), HEAD, Dial(tau=1e-6), strip=1)[0]
    assert keep.sum() == 9
    assert keep[2:5, 2:5].all()
    assert needed(need_of(change), HEAD, Dial(tau=1e-5), strip=1).sum() == 1


def test_the_head_of_what_is_lost_has_no_relative_limit():
    change = torch.full((1, 2, 2), 1e-4)
    need = need_of(change, lost=3e-4)
    assert needed(need, LOST, Dial(tau=2e-4), strip=1).all()
    assert not needed(need, LOST, Dial(tau=4e-4), strip=1).any()


def frames(count: int = 4) -> Tensor:
    return torch.rand(1, 3, 14, 42, generator=torch.Generator().manual_seed(0)).repeat(
        count, 1, 1, 1
    )


def test_models_without_a_head_go_by_the_papers_tau():
    assert default_dial("seedvr2:3b") == Dial(tau=TAU)
    own = [default_dial(name) for name in HEADS if name != HEADS[LOST]]
    assert all(dial.loss is not None and dial.tau < TAU for dial in own)


@pytest.mark.parametrize("model", ["skipvsr:nano", "skipvsr:nano-x2", "seedvr2:nano", "seedvr2:3b"])
def test_a_fade_of_one_colour_needs_nothing(model: str):
    levels = torch.linspace(0, 1, 48)[:, None, None, None]
    need = load_need()(levels.expand(-1, 3, 24, 40))
    assert not needed(need, head_of(model), default_dial(model)).any()


def test_what_has_not_changed_is_still():
    clip = frames()
    clip[2, 1, 12, 32] += 0.1  # one colour, the first pixel of its cell
    found = still_cells(clip)
    assert found[0] is None
    assert found[1] is not None
    assert found[1].shape == (4, 11)
    assert found[1].all()
    moved = found[2]
    assert moved is not None
    expected = torch.ones(4, 11, dtype=torch.bool)
    expected[:, 5:] = False  # the cell of the pixel, and three on each side
    assert torch.equal(moved, expected)
    assert torch.equal(found[3], expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [Fraction(4, 3), Fraction(16, 3), Fraction(64, 9), 16])
def test_a_change_is_that_of_the_cell_it_lies_in(side: Fraction):
    length = math.ceil(12 * side)
    cells = math.ceil(length / side)
    for place in range(length):
        clip = torch.zeros(2, 3, length, length)
        clip[1, :, place, length // 2] = 0.1
        (_, still) = still_cells(clip, (side, side))
        assert still is not None
        changed = [math.floor((at + 0.5) / side) for at in (place, length // 2)]
        expected = torch.ones(cells, cells, dtype=torch.bool)
        down, across = (slice(max(0, at - 3), at + 4) for at in changed)
        expected[down, across] = False
        assert (still <= expected).all()
        assert not (expected & ~still).sum() > 7 * 2  # a pixel may lie in two


def test_cells_may_be_oblong():
    clip = torch.zeros(2, 3, 24, 80)
    clip[1, :, 23, 76] = 0.1  # the last row and column of their cells
    (_, still) = still_cells(clip, (2, 7))
    expected = torch.ones(12, 12, dtype=torch.bool)
    expected[8:, 7:] = False
    assert still is not None
    assert torch.equal(still, expected)


def test_a_cut_leaves_nothing_still():
    clip = torch.cat((frames(2), 1 - frames(2)))
    assert still_cells(clip)[2] is None


def test_slow_changes_add_up():
    clip = frames(6)
    clip += 0.4 * torch.arange(6.0).reshape(-1, 1, 1, 1) / 255
    still = [each is not None for each in still_cells(clip)]
    assert still == [False, True, False, True, False, True]


def test_noise_is_no_standstill():
    clip = frames() + torch.randn(4, 3, 14, 42, generator=torch.Generator().manual_seed(1)) / 100
    assert all(each is None for each in still_cells(clip))


def test_frames_that_repeat_are_counted_once():
    clip = frames(5)
    clip[2:] += 0.1
    clip[4] += 0.1
    assert repeats(clip).tolist() == [0, 0, 1, 1, 2]
    assert firsts(repeats(clip)).tolist() == [0, 2, 4]
    assert repeats(clip[:1]).tolist() == [0]


def test_refined_is_what_is_run_or_has_stood_still_since():
    """Of three cells the first changes once it was run, the second is then run and stands still."""
    run = [torch.tensor([row], dtype=torch.bool) for row in ([1, 0, 0], [0, 1, 0], [0, 0, 0])]
    still = [None, torch.tensor([[False, False, True]]), torch.ones(1, 3, dtype=torch.bool), None]
    found = refined_cells([*run, run[0]], still)
    assert [each.int().tolist() for each in found] == [[[1, 0, 0]], *[[[0, 1, 0]]] * 2, [[1, 0, 0]]]
    everything = [torch.ones(1, 3, dtype=torch.bool)] * 4
    left = [each.int().tolist() for each in without_still(everything, still)]
    assert left == [[[1, 1, 1]], [[1, 1, 0]], [[0, 0, 0]], [[1, 1, 1]]]


def test_feathers_fade_inside_what_is_refined():
    refined = torch.ones(4, 6, dtype=torch.bool)
    assert (feather(refined, (14, 22), 4) == 1).all()
    refined[:, 3:] = False
    weight = feather(refined, (14, 22), 4)
    assert weight.shape == (14, 22)
    assert (weight[:, 12:] == 0).all()
    assert (weight[:, :10] == 1).all()
    torch.testing.assert_close(weight[:, 10:12], torch.tensor([2 / 3, 1 / 3]).expand(14, 2))
    whole = feather(refined, (16, 24), 4)
    turned = feather(refined.T.flip(0), (24, 16), 4)  # above what is refined, not beside it
    assert torch.equal(turned, whole.T.flip(0))
    assert torch.equal(feather(refined.flip(1), (16, 24), 4), whole.flip(1))
