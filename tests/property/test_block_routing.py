"""What holds for every routed run of BasicVSR: eleven properties, by number.

The first, that the dense network equals the published one, is tests/parity/test_basicvsr.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_models import perturb, random
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from skipsr.backbones.basicvsr.blocks import ResidualBlock
from skipsr.backbones.basicvsr.calibrate import routed_steps
from skipsr.backbones.basicvsr.config import PRESETS, BasicVSRConfig, FlowConfig, RoutingConfig
from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR
from skipsr.backbones.basicvsr.patches import Patches
from skipsr.backbones.basicvsr.routing import RoutedTrunk
from skipsr.backbones.basicvsr.tiles import (
    BatchExecutor,
    BlockExecutor,
    MaskedExecutor,
    RegionExecutor,
    TileGrid,
)
from skipsr.nn.warp import warp
from skipsr.research.policies import Uniform

CHANNELS, BLOCKS = 4, 3
SMALL = BasicVSRConfig(
    num_feat=CHANNELS,
    num_block=BLOCKS,
    hr_feat=None,
    flow=FlowConfig(channels=(4,), kernel=3, levels=2),
)
ROUTINGS = [
    RoutingConfig(tile=tile, reference=reference, stride=stride)
    for reference in ("depth", "state")
    for tile, stride in ((6, 1), (8, 2))
]
Make = Callable[[Tensor, TileGrid], BlockExecutor]

routings = pytest.mark.parametrize(
    "routing", ROUTINGS, ids=lambda r: f"{r.reference}, stride {r.stride}"
)
sides = st.integers(8, 37)


def make_model(routing: RoutingConfig) -> BasicVSR:
    torch.manual_seed(0)
    model = BasicVSR(replace(SMALL, routing=routing))
    perturb(model)
    return model.eval().requires_grad_(False)


def clip(count: int, size: tuple[int, int], batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, count, 3, *size, generator=generator)


def routed(model: BasicVSR, threshold: float) -> Sequence[RoutedTrunk]:
    with torch.no_grad():
        return routed_steps(model, threshold)


def by_chance(model: BasicVSR, make: Make, keep: float = 0.5) -> list[RoutedTrunk]:
    """Steps that run each block of each tile by the same chance, whatever executes them."""
    config = model.config.routing
    return [
        RoutedTrunk(
            model.trunk(direction),
            Uniform((keep,) * BLOCKS, torch.Generator().manual_seed(seed)),
            torch.tensor(0.5),
            config,
            make,
        )
        for seed, direction in enumerate(DIRECTIONS)
    ]


def result(model: BasicVSR, frames: Tensor, steps: Sequence[RoutedTrunk]) -> Tensor:
    return torch.stack(list(model.run(frames, *steps)), 1)


# 2


@routings
@settings(max_examples=5)
@given(size=st.tuples(sides, sides), count=st.integers(1, 3))
def test_threshold_zero_is_the_dense_network(
    routing: RoutingConfig, size: tuple[int, int], count: int
):
    model, frames = make_model(routing), clip(count, size)
    steps = routed(model, 0.0)
    torch.testing.assert_close(result(model, frames, steps), model(frames), atol=1e-5, rtol=0)
    assert all(torch.stack(step.executed).all() for step in steps)


@routings
def test_threshold_zero_is_dense_however_sure_routers_are(routing: RoutingConfig):
    model, frames = make_model(routing), clip(2, (19, 26))
    for router in model.routers().children():
        router.fc.bias.fill_(-200.0)  # type: ignore[operator,union-attr]
    steps = routed(model, 0.0)
    torch.testing.assert_close(result(model, frames, steps), model(frames), atol=1e-5, rtol=0)


# 3


def border(rows: int, columns: int) -> Tensor:
    mask = torch.ones(rows, columns, dtype=torch.bool)
    mask[1:-1, 1:-1] = False
    return mask


def single(rows: int, columns: int, at: int) -> Tensor:
    mask = torch.zeros(rows * columns, dtype=torch.bool)
    mask[at % len(mask)] = True
    return mask.view(rows, columns)


MASKS: dict[str, Callable[[int, int, int], Tensor]] = {
    "none": lambda r, c, _: torch.zeros(r, c, dtype=torch.bool),
    "all": lambda r, c, _: torch.ones(r, c, dtype=torch.bool),
    "one": single,
    "first": lambda r, c, _: single(r, c, 0),
    "last": lambda r, c, _: single(r, c, r * c - 1),  # partial, where any tile is
    "border": lambda r, c, _: border(r, c),
    "inside": lambda r, c, _: ~border(r, c),
    "random": lambda r, c, seed: random(r, c, seed=seed) > 0,
}


def blocks(count: int) -> list[ResidualBlock]:
    """With biases: a padding of zeros does not stay zero through a convolution."""
    torch.manual_seed(1)
    made = [ResidualBlock(CHANNELS).requires_grad_(False) for _ in range(count)]
    for i, block in enumerate(made):
        perturb(block, seed=i, spread=0.1)
    return made


def run(make: Make, entered: Tensor, grid: TileGrid, masks: Sequence[Tensor]) -> Tensor:
    running = make(entered.clone(), grid)
    with torch.inference_mode():
        for block, mask in zip(blocks(len(masks)), masks, strict=True):
            running.run(block, mask)
    return running.features.clone()


@pytest.mark.parametrize("kind", MASKS)
@settings(max_examples=12)
@given(
    size=st.tuples(sides, sides),
    tile=st.integers(2, 20),
    stride=st.sampled_from((1, 2)),
    samples=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_tiles_alone_equal_the_dense_block_and_a_choice(
    kind: str, size: tuple[int, int], tile: int, stride: int, samples: int, seed: int
):
    grid = TileGrid.of(*size, tile * stride, stride)
    masks = [
        torch.stack(
            [MASKS[kind](grid.rows, grid.columns, seed + 7 * b + n) for n in range(samples)]
        )
        for b in range(BLOCKS)
    ]
    entered = random(samples, CHANNELS, *size, seed=seed)
    expected = run(MaskedExecutor, entered, grid, masks)
    assert torch.equal(expected, entered) == (not torch.stack(masks).any())
    torch.testing.assert_close(
        run(RegionExecutor, entered, grid, masks), expected, atol=1e-5, rtol=1e-5
    )


@settings(max_examples=10)
@given(size=st.tuples(sides, sides), chosen=st.lists(st.booleans(), min_size=1, max_size=4))
def test_whole_samples_are_tiles_as_large_as_the_frame(size: tuple[int, int], chosen: list[bool]):
    grid = TileGrid.of(*size, max(size))
    mask = torch.tensor(chosen)[:, None, None]
    masks = [mask, ~mask, mask]
    entered = random(len(chosen), CHANNELS, *size)
    expected = run(MaskedExecutor, entered, grid, masks)
    for make in (BatchExecutor, RegionExecutor):
        torch.testing.assert_close(run(make, entered, grid, masks), expected, atol=1e-5, rtol=1e-5)


@routings
@pytest.mark.parametrize("size", [(8, 8), (19, 26)])
def test_a_routed_clip_is_the_same_by_tiles_and_by_choice(
    routing: RoutingConfig, size: tuple[int, int]
):
    model, frames = make_model(routing), clip(4, size, batch=2)
    chosen, gathered = (by_chance(model, make) for make in (MaskedExecutor, RegionExecutor))
    expected = result(model, frames, chosen)
    with torch.inference_mode():
        found = result(model, frames, gathered)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(chosen, gathered, strict=True):
        masks = torch.stack(one.executed)
        assert torch.equal(masks, torch.stack(other.executed))
        assert 0.2 < masks[1:].float().mean() < 0.8
    assert (expected - model(frames)).abs().max() > 1e-3


# 4


@routings
def test_without_any_block_the_input_convolution_is_left(routing: RoutingConfig):
    model = make_model(routing)
    for step in routed(model, 1.0):
        first, second = clip(2, (19, 26)).unbind(1)
        state = step(first, torch.zeros(1, CHANNELS, 19, 26), None)
        flow = random(1, 19, 26, 2)
        moved = warp(state, flow)
        assert torch.equal(step(second, moved, flow), step.trunk.enter(second, moved))
        assert not step.executed[1].any()


# 5


@routings
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_one_frame_is_dense_at_any_threshold(routing: RoutingConfig, threshold: float):
    model, frames = make_model(routing), clip(1, (19, 26))
    found = result(model, frames, routed(model, threshold))
    torch.testing.assert_close(found, model(frames), atol=1e-5, rtol=0)


@routings
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_first_frames_of_both_directions_are_dense(routing: RoutingConfig, threshold: float):
    model, frames = make_model(routing), clip(3, (19, 26))
    _, flows = model.flows(frames)
    for direction, step in zip(DIRECTIONS, routed(model, threshold), strict=True):
        dense = model.dense_step(direction)
        found, expected = (
            next(iter(model.propagate(frames, flows, kind))).clone() for kind in (step, dense)
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert step.executed[0].all()
        assert (step.confidences[0] == 1).all()


# 6


def test_the_cost_of_the_published_network():
    """Multiply-adds of 320x180 frames by term; the paper counts biases too, and no flow."""
    cost, pixels = cost_of(PRESETS["x4"]), 180 * 320
    assert cost.blocks == 4_423_680
    assert cost.rest == 77_184 + 8_192 + 147_456 * 5 + 16 * (36_864 + 1_728)
    assert (cost.blocks + cost.rest) * pixels == pytest.approx(337.76e9, rel=1e-3)
    assert (cost.blocks + cost.rest) * pixels == pytest.approx(338.5e9, rel=3e-3)
    assert cost.flow * 192 * 320 == pytest.approx(2 * 19.65e9, rel=1e-3)
    assert cost.share(1.0) == 1
    skipped = (1 - cost.share(0.708)) * cost.dense * pixels
    assert skipped == pytest.approx((1 - 0.708) * 254.80e9, rel=1e-3)


@pytest.mark.parametrize(("preset", "device"), [("x4", "meta"), ("nano", "cpu")])
def test_the_cost_is_what_a_dense_run_does(preset: str, device: str):
    """Counted by torch, convolutions alone; flows are between frames, one pair less than frames."""
    config, count, size = PRESETS[preset], 3, (32, 64)
    assert not any(side % config.flow.multiple for side in size)
    with torch.device(device):  # with gradients, or what oneDNN fuses is not counted
        model, frames = BasicVSR(config), torch.zeros(1, count, 3, *size)
        with FlopCounterMode(display=False) as counter:
            model(frames)
    counted = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    cost = cost_of(config)
    expected = count * (cost.blocks + cost.rest) + (count - 1) * cost.flow
    assert counted / 2 == pytest.approx(expected * size[0] * size[1], rel=0.01)


@routings
def test_the_cost_of_a_routed_run_is_that_of_its_blocks(routing: RoutingConfig):
    """What torch counts falls by the skipped share, on tiles that have no halo to recompute."""
    model = make_model(replace(routing, tile=32))
    frames, cost = clip(4, (32, 32)), cost_of(model.config)
    counted: list[int] = []
    shares: list[float] = []
    for keep in (1.0, 0.5):
        steps = by_chance(model, BatchExecutor, keep)
        with FlopCounterMode(display=False) as counter:
            result(model, frames, steps)
        counted.append(counter.get_flop_counts()["Global"][torch.ops.aten.convolution])
        ran = torch.stack([torch.stack(step.executed) for step in steps])
        shares.append(ran.float().mean().item())
    assert shares[0] == 1
    assert 0.25 < shares[1] < 0.9
    saved = (cost.share(shares[0]) - cost.share(shares[1])) * cost.dense * 4 * 32 * 32
    assert (counted[0] - counted[1]) / 2 == pytest.approx(saved, rel=1e-6)


# 7


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    side=st.integers(4, 48),
    overlap=st.integers(1, 2),
    scale=st.sampled_from((1, 4)),
)
def test_split_and_merged_frames_are_as_before(
    size: tuple[int, int], side: int, overlap: int, scale: int
):
    patches = Patches(*size, side=side, overlap=overlap)
    frames = random(2, 3, *size)
    cut = patches.split(frames)
    assert cut.shape == (len(patches.corners), 2, 3, side, side)
    grown = cut.repeat_interleave(scale, 3).repeat_interleave(scale, 4)
    whole = frames.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    torch.testing.assert_close(patches.merge(grown, scale), whole, atol=1e-6, rtol=1e-6)


# 8


@routings
def test_a_cache_on_the_host_changes_nothing(routing: RoutingConfig):
    model, frames = make_model(routing), clip(3, (19, 26))
    for make in (lambda: routed(model, 0.5), lambda: [model.dense_step(d) for d in DIRECTIONS]):
        there, here = (
            torch.stack(list(model.run(frames, *make(), host=host))) for host in (False, True)
        )
        assert torch.equal(there, here)
