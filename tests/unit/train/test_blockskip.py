"""Learning to skip blocks: targets, errors and gradients against the same worked out by hand."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from made_models import perturb
from torch import Tensor, nn

from skipsr.backbones.basicvsr.config import PRESETS, RoutingConfig
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.trainable import RoutingTrace
from skipsr.train.batches import generators_of
from skipsr.train.loop import optimizer_of, take_turn, train
from skipsr.train.objective import ClipBatch, Phase
from skipsr.train.objectives.blockskip import BlockSkipObjective, feature_error
from skipsr.train.parallel import Parallel
from skipsr.train.pixels import charbonnier
from skipsr.train.settings import TrainSettings

SETTINGS = TrainSettings(
    model="basicvsr:tiny", steps=2, batch=2, warmup=1, learning_rate=1e-3, checkpoint_every=1
)
TINY = PRESETS["tiny"]
ALONE = Parallel(torch.device("cpu"))


def make_network(align: int = 2, **changes: object) -> BasicVSR:
    torch.manual_seed(0)
    routing = RoutingConfig(align=align)
    config = dataclasses.replace(TINY, routing=routing, **changes)  # type: ignore[arg-type]
    model = BasicVSR(config)
    perturb(model)
    return model.requires_grad_(False)


def make_batch(step: int = 0, count: int = 2, frames: int = 3) -> ClipBatch:
    generator = torch.Generator().manual_seed(step)
    high = torch.rand(count, 3, frames, 32, 48, generator=generator)
    low = torch.rand(count, 3, frames, 8, 12, generator=generator)
    return ClipBatch(high, low, generators_of(SETTINGS, step, range(count)))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


def routing_phase(model: BasicVSR, **changes: object) -> Phase:
    (phase,) = BlockSkipObjective(**changes).phases(model)  # type: ignore[arg-type]
    return phase


def teacher_of(phase: Phase) -> BasicVSR:
    (teacher,) = phase.auxiliary
    assert isinstance(teacher, BasicVSR)
    return teacher


def both(phase: Phase, model: BasicVSR, batch: ClipBatch, threshold: Tensor):
    """What the teacher does with a batch, every block run, and the model with a threshold."""
    low = batch.base.transpose(1, 2)
    dense = teacher_of(phase).forward_traced(low, torch.zeros(len(low)), model.routers())
    return dense, model.forward_traced(low, threshold)


def targets(
    routed: RoutingTrace, dense: RoutingTrace, goals: Sequence[int], gain: float
) -> list[float]:
    """Number by number: direction, frame, block, clip; `goals` by block."""
    found: list[float] = []
    for direction in range(2):
        for frame in range(1, len(routed.features[direction])):
            for block, goal in enumerate(goals):
                ours = routed.features[direction][frame][block]
                theirs = dense.features[direction][frame][goal]
                for a, b in zip(ours, theirs, strict=True):
                    found.append((gain * (a - b).abs().mean()).tanh().item())
    return found


GOALS = {2: (2, 2, 3), 1: (1, 2, 3), 3: (3, 3, 3)}  # by alignment: the layers of three blocks


@pytest.mark.parametrize("align", GOALS)
def test_targets_by_hand(align: int):
    model = make_network(align)
    phase = routing_phase(model, gain=3.0, dense=1.0, mask=1.0, error=0.0)
    perturb(model, seed=5, spread=0.02)  # as training moves it away from its teacher
    batch = make_batch()
    found = phase.losses(batch)
    dense, routed = both(phase, model, batch, torch.zeros(2))
    hand = torch.tensor(targets(routed, dense, GOALS[align], 3.0))
    assert found.figures["level"] == pytest.approx(hand.mean().item(), rel=1e-4)
    assert found.figures["spread"] == pytest.approx(hand.std().item(), rel=1e-3)
    sure = routed.confidences[:, 1:].flatten()
    mask = (sure - hand).square().mean().item()
    assert found.figures["mask"] == pytest.approx(mask, rel=1e-4)
    assert found.figures["executed"] == 1
    plain = charbonnier(routed.frames.transpose(1, 2), batch.high).item()
    assert found.total.item() == pytest.approx(plain + mask, rel=1e-5)
    assert 0.02 < hand.std() < 0.5


@pytest.mark.parametrize(("align", "layers"), [(2, (2, 3)), (1, (1, 2, 3)), (3, (3,))])
def test_the_error_of_features_by_hand(align: int, layers: tuple[int, ...]):
    """Mean over pixels and frames of the squared difference of energies, each a mean over channels;
    summed over the aligned layers and both directions."""
    model = make_network(align)
    phase = routing_phase(model, dense=1.0, mask=0.0, error=2.0)
    perturb(model, seed=5, spread=0.02)
    batch = make_batch()
    found = phase.losses(batch)
    dense, routed = both(phase, model, batch, torch.zeros(2))
    error = 0.0
    for direction in range(2):
        for layer in layers:
            for ours, theirs in zip(
                routed.features[direction], dense.features[direction], strict=True
            ):
                a, b = ours[layer], theirs[layer]
                energy = sum((a[:, c] ** 2 - b[:, c] ** 2) / 8 for c in range(8))
                assert isinstance(energy, Tensor)
                error += (energy**2).mean().item() / 3
    assert error > 1e-6
    assert found.figures["error"] == pytest.approx(error, rel=1e-4)
    plain = charbonnier(routed.frames.transpose(1, 2), batch.high).item()
    assert found.total.item() == pytest.approx(plain + 2 * error, rel=1e-5)


def test_equal_networks_have_equal_features():
    model = make_network()
    phase = routing_phase(model, dense=1.0)
    dense, routed = both(phase, model, make_batch(), torch.zeros(2))
    assert feature_error(routed, dense, model.aligned_layers).item() == 0
    assert phase.losses(make_batch()).figures["error"] == 0


def spread_routers(model: BasicVSR) -> None:
    perturb(model.routers(), seed=3, spread=2.0)


def test_thresholds_skip_the_drawn_share():
    """Each clip's own: of four kept in full about one, the rest up to three quarters skipped."""
    model = make_network()
    spread_routers(model)
    count = 24
    low = make_batch(count=count, frames=6).base.transpose(1, 2)
    sure = model.forward_traced(low, torch.zeros(count)).confidences
    objective = BlockSkipObjective()
    limits = objective._thresholds(sure, generators_of(SETTINGS, 0, range(count)))  # pyright: ignore[reportPrivateUsage]
    wanted = [
        (torch.rand((), generator=generator).item(), torch.rand((), generator=generator).item())
        for generator in generators_of(SETTINGS, 0, range(count))
    ]
    for i, (chance, share) in enumerate(wanted):
        skipped = (sure[:, 1:, :, i] <= limits[i]).float().mean().item()
        expected = 0.0 if chance < 0.25 else 0.75 * share
        assert skipped == pytest.approx(expected, abs=1.5 / sure[:, 1:, :, i].numel())
    assert 1 <= sum(limit == 0 for limit in limits) <= 12


def test_clips_of_one_frame_have_nothing_to_skip():
    single = torch.ones(2, 1, 3, 2)  # confidences of first frames
    limits = BlockSkipObjective(dense=0.0)._thresholds(  # pyright: ignore[reportPrivateUsage]
        single, generators_of(SETTINGS, 0, range(2))
    )
    assert limits.tolist() == [0, 0]


def test_blocks_are_skipped_while_training():
    model = make_network()
    spread_routers(model)
    found = routing_phase(model, dense=0.0, most=1.0).losses(make_batch(count=6))
    assert 0.1 < found.figures["executed"] < 0.9
    assert found.figures["error"] > 0


def gradients(phase: Phase, batch: ClipBatch) -> dict[str, float]:
    phase.trained.requires_grad_(True)
    phase.trained.zero_grad()
    phase.losses(batch).total.backward()
    named = phase.trained.named_parameters()
    return {name: p.grad.abs().max().item() for name, p in named if p.grad is not None}


def test_routers_learn_from_the_masks_alone():
    """And features do not: what the mask's loss weighs changes the routers' gradient only."""
    plain, weighed = (
        gradients(routing_phase(make_network(), mask=weight, dense=1.0), make_batch())
        for weight in (0.0, 5.0)
    )
    routers = {name for name in weighed if name.startswith("router_")}
    assert len(routers) == 4
    assert all(weighed[name] > 0 for name in routers)
    assert not any(plain.get(name, 0.0) for name in routers)
    for name in plain.keys() - routers:
        assert weighed[name] == pytest.approx(plain[name], rel=1e-5, abs=1e-9), name


def test_the_teacher_gets_no_gradient_and_stays(tmp_path: Path):
    model = make_network().requires_grad_(True)
    phase = routing_phase(model)
    teacher = teacher_of(phase)
    perturb(model, seed=5, spread=0.02)
    phase.losses(make_batch()).total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert {p.data_ptr() for p in teacher.parameters()}.isdisjoint(
        p.data_ptr() for p in model.parameters()
    )
    model = make_network()
    before = snapshot(model)
    train(model, BlockSkipObjective(), SETTINGS, lambda s, _: make_batch(s), tmp_path)
    (kept,) = torch.load(tmp_path / "state.pt", weights_only=True)["beside"]
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[name], before[name]) for name in before)
    assert moved(model, before)


def test_what_routing_moves():
    model = make_network()
    phase = routing_phase(model)
    phase.trained.requires_grad_(True)
    before = snapshot(model)
    take_turn(phase, optimizer_of(phase, SETTINGS), make_batch(), SETTINGS, 0, ALONE)
    parts = {name.split(".")[0] for name in moved(model, before)}
    routers = {"router_backward", "router_forward"}
    rest = {"backward_trunk", "forward_trunk", "fusion", "conv_last"}  # never the flow network
    assert parts == routers | rest


def test_routers_come_to_know_what_is_needed():
    """Alone, with everything else as it is; what they are to say does not change then."""
    model = make_network()
    phase = routing_phase(model, mask=1.0, dense=1.0, gain=5.0)
    phase = dataclasses.replace(phase, trained=model.routers(), rates={})
    phase.trained.requires_grad_(True)
    settings = dataclasses.replace(SETTINGS, steps=30, learning_rate=5e-2, weight_decay=0.0)
    optimizer = optimizer_of(phase, settings)
    found = [take_turn(phase, optimizer, make_batch(), settings, i, ALONE) for i in range(30)]
    assert found[-1]["level"] == pytest.approx(found[0]["level"])
    assert found[-1]["mask"] < 0.5 * found[0]["mask"]


def test_patches_within_a_crop():
    """Tiles of a crop are places of their own: targets are their means, and some alone run."""
    model = make_network()
    spread_routers(model)
    phase = routing_phase(model, dense=0.0, most=1.0, tile=4)
    batch = make_batch(count=3)
    low = batch.base.transpose(1, 2)
    dense = teacher_of(phase).forward_traced(low, torch.zeros(3), model.routers(), tile=4)
    assert dense.confidences.shape == (2, 3, 3, 3 * 2 * 3)
    limits = dense.confidences[0, 1, 0].unflatten(0, (3, 6)).median(1).values
    routed = model.forward_traced(low, limits, tile=4)
    shares = routed.executed[:, 1:].unflatten(3, (3, 6)).float().mean(4)
    assert ((shares > 0) & (shares < 1)).any()
    a, b = routed.features[0][1][0], dense.features[0][1][2]
    tile = (a - b).abs()[1, :, 4:8, 8:12].mean().item()  # second clip, second row, third column
    assert dense.means((a - b).abs()).mean(1)[6 + 5].item() == pytest.approx(tile, rel=1e-5)
    assert phase.losses(batch).figures["executed"] < 1
