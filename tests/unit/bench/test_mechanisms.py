"""Four ways to skip tokens: each against a slower and plainer way to say the same."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from made_models import LIKE_3B, LIKE_7B, make_dit, random, random_mask
from torch import Tensor

from skipsr.backbones.seedvr2.dit import Block, DiT
from skipsr.bench import mechanisms
from skipsr.bench.measure import measure_in_turn
from skipsr.bench.mechanisms import Step
from skipsr.bench.settings import Mechanism
from skipsr.skipping.route import Route

GRID = (3, 8, 8)
TEXT = 70  # sequences beyond 64 tokens are not padded, so that arithmetic can be counted
WAYS: tuple[Mechanism, ...] = get_args(Mechanism)
TIME = torch.tensor(1000.0)


def inputs(dit: DiT) -> tuple[Tensor, Tensor]:
    cells = random(GRID[0] * GRID[1] * GRID[2], 4, dit.config.in_channels, seed=1)
    return cells, random(TEXT, dit.config.text_width, seed=2)


@pytest.mark.parametrize("config", [LIKE_3B, LIKE_7B], ids=["3b", "7b"])
def test_with_everything_kept_all_are_the_dense_network(config: object):
    dit = make_dit(config)
    cells, text = inputs(dit)
    step = Step.of(dit, torch.ones(GRID, dtype=torch.bool), TEXT)
    expected = dit(cells, text, TIME, dit.geometry(Route.dense(GRID), TEXT))
    for way in WAYS:
        torch.testing.assert_close(step.run(way, cells, text, TIME), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [LIKE_3B, LIKE_7B], ids=["3b", "7b"])
def test_queries_only_is_dense_attention_that_skipped_tokens_do_not_take(config: object):
    dit = make_dit(config)
    cells, text = inputs(dit)
    step = Step.of(dit, random_mask(GRID, 0.5), TEXT)

    def layer(block: Block, parity: int, video: Tensor, text: Tensor, time: mechanisms.Times):
        normed = block.normed(video, text, time)
        whole = step.whole
        attended, attended_text = block.attn(*normed, whole.layouts[parity], whole.text_rotation)
        taken = attended[step.rows], attended_text
        return mechanisms._after_attention(block, (video, text), taken, step.rows, time)

    expected = mechanisms._all_layers(step, cells, text, TIME, layer)
    found = step.run("queries-only", cells, text, TIME)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - step.run("attention-only", cells, text, TIME)).abs().max() > 1e-3


def test_routing_is_the_products_own_way():
    dit = make_dit()
    cells, text = inputs(dit)
    keep = random_mask(GRID, 0.5)
    route = Route(keep)
    expected = dit(route.pack(cells.unflatten(0, GRID)), text, TIME, dit.geometry(route, TEXT))
    found = Step.of(dit, keep, TEXT).run("route", cells, text, TIME)
    assert torch.equal(found, expected)


def test_arithmetic_is_counted_and_routing_needs_least():
    dit = make_dit()
    cells, text = inputs(dit)
    keep = random_mask(GRID, 0.5)
    dense, half = (Step.of(dit, k, TEXT) for k in (torch.ones_like(keep), keep))
    runs: list[Callable[[], object]] = [
        lambda s=step, w=way: s.run(w, cells, text, TIME)
        for step, way in ((dense, "route"), *((half, way) for way in WAYS))
    ]
    with torch.inference_mode():
        whole, *found = (one.tflop * 1e12 for one in measure_in_turn(runs, torch.device("cpu"), 1))
    route, attention_only, queries_only, interleaved = found
    assert route < min(attention_only, interleaved)
    assert max(attention_only, interleaved) < queries_only < whole
    assert whole == pytest.approx(formula(dit, dense), rel=0.02)
    assert route == pytest.approx(formula(dit, half), rel=0.02)


def formula(dit: DiT, step: Step) -> float:
    """Linear layers and attention, by hand; the modulation, of one vector, is left out."""
    config, kept = dit.config, step.route.kept
    inner, mlp = config.heads * config.head_dim, 3 * config.width * 256
    layer = 4 * config.width * inner + mlp
    total = 2 * kept * config.layers * layer + 2 * TEXT * (config.layers * layer - mlp)
    total += 2 * kept * 4 * (config.in_channels + config.out_channels) * config.width
    total += 2 * TEXT * config.text_width * config.width
    for number in range(config.layers):
        lengths = torch.tensor(step.kept.layouts[number % 2].lengths.filled).double()
        total += 4 * inner * lengths.square().sum().item()
    return total
