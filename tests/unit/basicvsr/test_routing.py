"""Which blocks run: the router, the grid whose means it reads, and decisions by hand."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from made_models import perturb, random
from torch import Tensor

from skipsr.backbones.basicvsr.config import PRESETS, RoutingConfig
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.routing import RoutedTrunk, Router
from skipsr.backbones.basicvsr.tiles import BatchExecutor, MaskedExecutor, TileGrid
from skipsr.nn.warp import warp

SIZE = (13, 22)


def routed_forward(model: BasicVSR) -> RoutedTrunk:
    """The forward step at a threshold of a half."""
    assert model.router_forward is not None
    parts = model.forward_trunk, model.router_forward, torch.tensor(0.5), model.config.routing
    return RoutedTrunk(*parts, BatchExecutor)


# the router


def test_a_fresh_router_would_rather_run_a_block():
    torch.manual_seed(0)
    router = Router(64, 1)
    found = router(torch.zeros(2, 3, 64)).flatten().tolist()
    assert found == pytest.approx([0.8808] * 6, abs=1e-4)
    assert sum(p.numel() for p in router.parameters()) == 65  # of one direction, as in the paper


def test_the_router_by_hand():
    router = Router(3, 2)
    perturb(router, spread=1.0)
    differences = random(4, 3)
    weight, bias = (p.detach() for p in router.parameters())
    for row, found in zip(differences, router(differences), strict=True):
        for output, confidence in enumerate(found):
            logit = sum(float(w * d) for w, d in zip(weight[output], row, strict=True))
            expected = 1 / (1 + math.exp(-logit - float(bias[output])))
            assert confidence.item() == pytest.approx(expected, rel=1e-5)


def test_no_gradient_reaches_the_features():
    router = Router(3, 1)
    differences = random(5, 3).requires_grad_()
    router(differences).sum().backward()
    assert differences.grad is None
    assert all(p.grad is not None for p in router.parameters())


def test_the_features_of_a_routed_clip_get_none_either():
    """With `BatchExecutor`, as in training: confidences lead to the routers alone."""
    model = BasicVSR(replace(PRESETS["tiny"], routing=RoutingConfig(tile=16)))
    steps = routed_forward(model)
    frames = torch.rand(1, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flows = torch.zeros(1, 2, 2, 16, 16)
    list(model.propagate(frames, flows, steps))
    torch.stack(steps.confidences).sum().backward()
    named = dict(model.named_parameters())
    reached = {name for name, p in named.items() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {"router_forward.fc.weight", "router_forward.fc.bias"}


def test_half_precision_weights_give_float32_confidences():
    router = Router(3, 2).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert router(random(4, 3)).dtype == torch.float32


# the grid


@pytest.mark.parametrize(
    ("length", "tile", "stride", "expected"),
    [
        (180, 48, 1, 45),  # four of 45 rather than three of 48 and one of 36
        (320, 48, 1, 46),
        (48, 48, 1, 48),
        (8, 48, 1, 8),
        (13, 6, 1, 5),
        (13, 6, 2, 6),  # with a stride tiles are of even length
    ],
)
def test_tiles_are_few_and_nearly_full(length: int, tile: int, stride: int, expected: int):
    grid = TileGrid.of(length, length, tile, stride)
    assert grid.tile == (expected, expected)
    assert grid.rows == grid.columns == math.ceil(length / tile)


@pytest.mark.parametrize(("tile", "stride"), [(0, 1), (9, 2)])
def test_tiles_that_cannot_be_are_refused(tile: int, stride: int):
    with pytest.raises(
        ValueError, match=f"tiles of {tile} pixels cannot have a stride of {stride}"
    ):
        TileGrid.of(20, 20, tile, stride)


def slow_means(a: Tensor, b: Tensor, grid: TileGrid) -> Tensor:
    """Pixel by pixel, those outside the frame left out."""
    n, c, h, w = a.shape
    tall, wide = grid.tile
    out = torch.zeros(n, grid.rows, grid.columns, c)
    for i in range(grid.rows):
        for j in range(grid.columns):
            places = [
                (y, x)
                for y in range(i * tall, min((i + 1) * tall, h))
                for x in range(j * wide, min((j + 1) * wide, w))
                if y % grid.stride == x % grid.stride == 0
            ]
            seen = [(a[:, :, y, x] - b[:, :, y, x]).abs() for y, x in places]
            out[:, i, j] = torch.stack(seen).mean(0)
    return out


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(13, 22), (8, 8), (12, 30)])
def test_differences_against_a_loop(size: tuple[int, int], stride: int):
    grid = TileGrid.of(*size, 8, stride)
    a, b = random(2, 3, *size), random(2, 3, *size, seed=1)
    kept = a.clone(), b.clone()
    found = grid.difference(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, slow_means(a, b, grid), atol=1e-6, rtol=1e-5)
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])


def test_means_of_half_precision_are_summed_in_single():
    grid = TileGrid.of(64, 64, 64)
    a = torch.full((1, 1, 64, 64), 1.0).half()
    b = torch.full((1, 1, 64, 64), 0.0).half()
    b[..., :32] = 0.5
    assert grid.difference(a, b).item() == pytest.approx(0.75, abs=1e-4)


def test_pixels_of_a_mask():
    grid = TileGrid.of(5, 7, 4)  # 3x4 pixels each, the last row and column cut short
    mask = torch.tensor([[True, False], [False, True]])[None]
    expected = torch.zeros(1, 1, 5, 7, dtype=torch.bool)
    expected[..., :3, :4] = expected[..., 3:, 4:] = True
    assert torch.equal(grid.pixels(mask), expected)


# decisions


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("reference", ["depth", "state"])
def test_decisions_worked_out_slowly(reference: Literal["depth", "state"], stride: int):
    """Block m looks at what is there before it: after as many blocks of the frame before, as that
    was computed and warped; or at the warped state, once a frame."""
    routing = RoutingConfig(tile=8, reference=reference, stride=stride)
    torch.manual_seed(0)
    model = BasicVSR(replace(PRESETS["tiny"], routing=routing)).requires_grad_(False)
    perturb(model, spread=0.2)
    trunk, router = model.forward_trunk, model.router_forward
    assert router is not None
    grid = TileGrid.of(*SIZE, 8, stride)
    frames, flows = random(3, 2, 3, *SIZE), random(3, 2, *SIZE, 2, seed=1)
    dense = RoutedTrunk(trunk, router, torch.tensor(0.0), routing, MaskedExecutor)
    dense(frames[1], dense(frames[0], torch.zeros(2, 8, *SIZE), None), flows[1])
    threshold = dense.confidences[1].median()
    step = RoutedTrunk(trunk, router, threshold, routing, MaskedExecutor)

    before: list[Tensor] = []
    state = torch.zeros(2, 8, *SIZE)
    decisions: list[Tensor] = []
    for t in range(3):
        warped = warp(state, flows[t]) if t else state
        routed = step(frames[t], warped.clone(), flows[t] if t else None)
        x = entered = trunk.enter(frames[t], warped)
        kept: list[Tensor] = []
        for depth, block in enumerate(trunk.blocks):
            kept.append(x)
            if t == 0:
                x = block(x)
                continue
            seen = slow_means(x, warp(before[depth], flows[t]), grid)
            if reference == "state":
                seen = slow_means(entered, warped, grid)
            sure = router(seen)[..., 0 if reference == "depth" else depth]
            torch.testing.assert_close(step.confidences[t][depth], sure, atol=1e-5, rtol=1e-4)
            decisions.append(sure > threshold)
            assert torch.equal(step.executed[t][depth], decisions[-1])
            x = torch.where(grid.pixels(decisions[-1]), block(x), x)
        torch.testing.assert_close(routed, x, atol=1e-5, rtol=1e-5)
        before, state = kept, x
    assert 0 < torch.stack(decisions).float().mean() < 1


@pytest.mark.parametrize("reference", ["depth", "state"])
def test_a_clip_has_a_threshold_of_its_own(reference: Literal["depth", "state"]):
    routing = RoutingConfig(tile=16, reference=reference)
    model = BasicVSR(replace(PRESETS["tiny"], routing=routing)).requires_grad_(False)
    assert model.router_backward is not None
    limits = torch.tensor([0.0, 1.0])[:, None, None]
    step = RoutedTrunk(model.backward_trunk, model.router_backward, limits, routing, BatchExecutor)
    frames, still = random(2, 2, 3, 16, 16), torch.zeros(2, 16, 16, 2)
    state = step(frames[0], torch.zeros(2, 8, 16, 16), None)
    step(frames[1], state, still)
    assert step.executed[0].all()
    assert step.executed[1][:, 0].all()
    assert not step.executed[1][:, 1].any()


def test_what_watches_is_told_of_every_depth():
    model = BasicVSR(PRESETS["tiny"]).requires_grad_(False)
    told: list[tuple[int, Tensor]] = []
    step = replace(routed_forward(model), watch=lambda depth, x: told.append((depth, x.clone())))
    frame, state = random(1, 3, 12, 12), torch.zeros(1, 8, 12, 12)
    result = step(frame, state, None)
    assert [depth for depth, _ in told] == [0, 1, 2, 3]
    x = model.forward_trunk.enter(frame, state)
    for (_, seen), block in zip(told, (*model.forward_trunk.blocks, None), strict=True):
        torch.testing.assert_close(seen, x)
        x = x if block is None else block(x)
    assert torch.equal(told[-1][1], result)


# a batch of whole patches


@pytest.mark.parametrize("reference", ["depth", "state"])
def test_a_batch_observed_is_each_clip_alone(reference: Literal["depth", "state"]):
    # tiles do not matter here
    routing = RoutingConfig(tile=6, reference=reference, stride=2)
    torch.manual_seed(0)
    model = BasicVSR(replace(PRESETS["tiny"], routing=routing)).requires_grad_(False)
    perturb(model, spread=0.1)
    frames = torch.rand(2, 3, 3, 15, 18, generator=torch.Generator().manual_seed(0))
    sure = model.forward_traced(frames, torch.zeros(2)).confidences[:, 1:]
    limits = sure.flatten(0, 2).quantile(0.5, dim=0)
    both = model.forward_traced(frames, limits)
    assert both.confidences.shape == both.executed.shape == (2, 3, 3, 2)
    assert (both.confidences[:, 0] == 1).all()
    assert torch.equal(both.executed[:, 1:], both.confidences[:, 1:] > limits)
    assert 0 < both.executed[:, 1:].float().mean() < 1
    for i in range(2):
        alone = model.forward_traced(frames[i : i + 1], limits[i : i + 1])
        torch.testing.assert_close(both.frames[i : i + 1], alone.frames, atol=1e-5, rtol=1e-5)
        assert torch.equal(both.executed[..., i], alone.executed[..., 0])
        for ours, theirs in zip(both.features, alone.features, strict=True):
            assert [len(depths) for depths in ours] == [4, 4, 4]
            torch.testing.assert_close(ours[2][3][i : i + 1], theirs[2][3], atol=1e-5, rtol=1e-5)


def test_an_observed_batch_without_a_threshold_is_dense():
    model = BasicVSR(PRESETS["tiny"]).requires_grad_(False)
    frames = torch.rand(2, 2, 3, 16, 12, generator=torch.Generator().manual_seed(0))
    observed = model.forward_traced(frames, torch.zeros(2))
    assert observed.executed.all()
    torch.testing.assert_close(observed.frames, model(frames), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("blocks", "every", "expected"),
    [(30, 6, [6, 12, 18, 24, 30]), (6, 2, [2, 4, 6]), (8, 3, [3, 6, 8]), (3, 6, [3])],
)
def test_aligned_layers_end_with_the_last(blocks: int, every: int, expected: list[int]):
    routing = RoutingConfig(align=every)
    with torch.device("meta"):
        model = BasicVSR(replace(PRESETS["tiny"], num_block=blocks, routing=routing))
    assert list(model.aligned_layers) == expected
