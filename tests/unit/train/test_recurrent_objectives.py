"""The objectives of recurrent networks, against the same worked out by hand."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from made_models import perturb, random
from torch import Tensor, nn

from skipsr.backbones.basicvsr.config import PRESETS, RoutingConfig
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.train.batches import generators_of
from skipsr.train.loop import learning_rate, optimizer_of, take_turn
from skipsr.train.objective import ClipBatch, LatentBatch, Losses, Objective, Phase
from skipsr.train.objectives.blockskip import BlockSkipObjective
from skipsr.train.objectives.flow import FlowObjective, flow_losses
from skipsr.train.objectives.reconstruct import ReconstructObjective
from skipsr.train.objectives.regions import RegionObjective
from skipsr.train.parallel import Parallel
from skipsr.train.pixels import charbonnier
from skipsr.train.settings import TrainSettings
from skipsr.train.transformers import find_transformers

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


# flow


def texture(size: tuple[int, int], seed: int = 0) -> Tensor:
    """Smooth enough for a shift of a few pixels to be followed: `3 h w` in [0, 1]."""
    noise = torch.rand(1, 3, size[0] // 4, size[1] // 4, generator=_draw(seed))
    return F.interpolate(noise, size, mode="bicubic").clamp(0, 1)[0]


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(dy: int, dx: int, seed: int = 0) -> Tensor:
    """Two frames `1 2 3 32 40`: what is at p in the first is at p + (dy, dx) in the second."""
    wide = texture((48, 56), seed)
    first = wide[:, 8 + dy : 40 + dy, 8 + dx : 48 + dx]
    second = wide[:, 8:40, 8:48]
    return torch.stack((first, second))[None]


def uniform_flow(dy: float, dx: float) -> Tensor:
    return torch.tensor([dx, dy]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 32, 40)


@pytest.mark.parametrize(("dy", "dx"), [(0, 2), (3, 0), (-2, 1)])
def test_the_loss_is_least_at_the_true_flow(dy: int, dx: int):
    frames = shifted(dy, dx)

    def loss(y: float, x: float) -> float:
        to_next, to_previous = uniform_flow(y, x), uniform_flow(-y, -x)
        return flow_losses(frames, to_next, to_previous, smooth=0.02).total.item()

    true = loss(dy, dx)
    around = {(y, x): loss(dy + y, dx + x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x}
    assert all(value > 1.2 * true for value in around.values())
    assert loss(-dy, -dx) > 1.5 * true  # the other way round


def test_flow_losses_by_hand():
    """Both directions, Charbonnier with 0.01, roughness less where the picture has edges."""
    frames = torch.rand(1, 2, 3, 6, 8, generator=_draw(0))
    to_next, to_previous = (random(1, 1, 2, 6, 8, seed=i) * 0 for i in (1, 2))
    to_next[:, :, 0, :, 4:] = 2.0  # a step of two in x, over no warp that matters
    still = (frames[:, 1] - frames[:, 0]).square().add(1e-4).sqrt()
    found = flow_losses(frames, to_previous, to_previous, smooth=0.5)
    rough = 0.0
    for picture in (frames[0, 0], frames[0, 1]):
        for axis in (1, 2):
            edge = picture.diff(dim=axis).abs().mean(0)
            rough += (0.01 * torch.exp(-10 * edge)).mean().item() / 2
    assert found.figures["photometric"] == pytest.approx(still.mean().item(), rel=1e-5)
    assert found.figures["unwarped"] == pytest.approx(still.mean().item(), rel=1e-5)
    assert found.figures["roughness"] == pytest.approx(rough, rel=1e-4)
    assert found.total.item() == pytest.approx(still.mean().item() + 0.5 * rough, rel=1e-5)

    flat = torch.full((1, 2, 3, 6, 8), 0.5)
    step = flow_losses(flat, to_next, to_previous, smooth=1.0)
    # one of the seven columns of differences, of one of two channels, in one of two directions
    jump = ((2.0**2 + 1e-4) ** 0.5 - 0.01) / 7 / 2 / 2
    assert step.figures["roughness"] == pytest.approx(0.02 + jump, rel=1e-4)


def test_an_edge_of_the_picture_frees_the_flow():
    frames = torch.zeros(1, 2, 3, 6, 8)
    frames[..., 4:] = 1.0
    there, beside = torch.zeros(1, 1, 2, 6, 8), torch.zeros(1, 1, 2, 6, 8)
    there[..., 4:], beside[..., 5:] = 1.0, 1.0
    costs = [flow_losses(frames, x, x, smooth=1.0).figures["roughness"] for x in (there, beside)]
    assert costs[0] < 0.7 * costs[1]


def test_a_flow_network_learns_a_shift():
    torch.manual_seed(0)
    model = BasicVSR(TINY).requires_grad_(False)
    (phase,) = FlowObjective().phases(model)
    phase.trained.requires_grad_(True)
    settings = dataclasses.replace(SETTINGS, steps=30, learning_rate=1e-2)
    optimizer = optimizer_of(phase, settings)
    clips = torch.cat([shifted(0, 2, seed=i) for i in range(4)]).transpose(1, 2)  # b c t h w
    batch = ClipBatch(clips, clips, generators_of(settings, 0, range(4)))
    before = snapshot(model)
    found = [take_turn(phase, optimizer, batch, settings, i, ALONE) for i in range(30)]
    assert found[0]["photometric"] == pytest.approx(found[0]["unwarped"], rel=0.1)
    assert found[-1]["loss"] < 0.75 * found[0]["loss"]
    to_next, _ = model.flows(clips.transpose(1, 2))
    assert to_next[:, :, 0].mean() > 0.5  # to the right
    assert to_next[:, :, 1].mean().abs() < 0.5
    assert all(name.startswith("spynet.basic_module") for name in moved(model, before))


# reconstruction


def test_charbonnier_by_hand():
    result, target = torch.tensor([0.5, 0.2, 0.7]), torch.tensor([0.5, 0.5, 0.3])
    assert charbonnier(result, target).item() == pytest.approx((1e-6 + 0.3 + 0.4) / 3, rel=1e-5)
    x = torch.zeros(2, requires_grad=True)
    charbonnier(x, torch.zeros(2)).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()  # where nothing is wrong, too


def test_reconstruction_by_hand():
    model, batch = make_network(), make_batch()
    low = batch.base.transpose(1, 2)
    result = model(low).transpose(1, 2)
    plain = (result - batch.high).square().add(1e-12).sqrt().mean()
    (phase,) = ReconstructObjective().phases(model)
    found = phase.losses(batch)
    torch.testing.assert_close(found.total, plain, rtol=1e-5, atol=1e-7)
    mse = (result - batch.high).square().mean()
    assert found.figures["psnr"] == pytest.approx(-10 * mse.log10().item(), rel=1e-5)


def test_reconstruction_trains_all_but_routers():
    model, batch = make_network(), make_batch()
    (phase,) = ReconstructObjective().phases(model)
    phase.trained.requires_grad_(True)
    before = snapshot(model)
    take_turn(phase, optimizer_of(phase, SETTINGS), batch, SETTINGS, 0, ALONE)
    parts = {name.split(".")[0] for name in moved(model, before)}
    assert parts == {"spynet", "backward_trunk", "forward_trunk", "fusion", "conv_last"}


# rates of their own


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow, self.still = (nn.Linear(1, 1, bias=False) for _ in range(3))


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_parameters_train_at_a_share_of_the_rate(rate: float):
    """AdamW's first step is as large as its rate, whatever the gradient."""
    model = Two()
    phase = Phase(
        "x",
        model,
        lambda _: Losses(sum(p.sum() for p in model.parameters()), {}),  # type: ignore[arg-type]
        rate=rate,
        rates={"slow": 0.125, "still": 0.0},
    )
    settings = dataclasses.replace(SETTINGS, weight_decay=0.0, steps=10)
    optimizer = optimizer_of(phase, settings)
    assert sorted(group["share"] for group in optimizer.param_groups) == [0.0, 0.125, 1.0]
    for step in range(2):
        before = snapshot(model)
        take_turn(phase, optimizer, make_batch(), settings, step, ALONE)
        expected = learning_rate(settings, step) * rate
        for name, share in (("fast", 1.0), ("slow", 0.125), ("still", 0.0)):
            change = before[f"{name}.weight"] - model.get_parameter(f"{name}.weight")
            assert change.item() == pytest.approx(share * expected, rel=1e-3, abs=1e-9)


def test_the_flow_network_has_its_published_rate():
    model = make_network()
    for objective, shares in (
        (ReconstructObjective(flow_rate=0.125), {0.125, 1.0}),
        (ReconstructObjective(), {1.0}),
        (BlockSkipObjective(), {0.0, 1.0, 10.0}),
    ):
        (phase,) = objective.phases(model)
        groups = optimizer_of(phase, SETTINGS).param_groups
        assert {group["share"] for group in groups} == shares
        names = {id(p): name for name, p in phase.trained.named_parameters()}
        assert sum(len(group["params"]) for group in groups) == len(names)
        for group in groups:
            parts = {names[id(p)].split("_")[0].split(".")[0] for p in group["params"]}
            assert (parts == {"spynet"}) == (group["share"] < 1)
            assert (parts == {"router"}) == (group["share"] > 1)


@pytest.mark.parametrize(
    "objective", [FlowObjective(), ReconstructObjective(), BlockSkipObjective()]
)
def test_recurrent_objectives_read_pixels(
    objective: FlowObjective | ReconstructObjective | BlockSkipObjective,
):
    assert objective.reads == "clips"
    latents = LatentBatch(*(torch.zeros(1, 1, 2, 2, 4) for _ in range(2)), torch.zeros(1, 1, 1, 1),
                          generators_of(SETTINGS, 0, [0]))  # fmt: skip
    (phase,) = objective.phases(make_network())
    with pytest.raises(TypeError, match="needs clips, not latents"):
        phase.losses(latents)


@pytest.mark.parametrize(
    "objective",
    [FlowObjective(), ReconstructObjective(structure=0.1), BlockSkipObjective(), RegionObjective()],
    ids=type,
)
def test_a_batch_has_the_mean_loss_and_gradient_of_its_clips(objective: Objective):
    """However it is divided among devices: also where more is run of one clip than of another."""
    model = make_network()
    (phase,) = objective.phases(model)
    phase.trained.requires_grad_(True)

    def found(*places: int) -> tuple[Tensor, Tensor]:
        draws = (torch.Generator().manual_seed(7 + place) for place in places)
        high, low = (
            torch.stack([torch.rand(3, 3, side, side, generator=_draw(i)) for i in places])
            for side in (128, 32)
        )
        low[..., 16:] = 0.5  # something to skip
        loss = phase.losses(ClipBatch(high, low, tuple(draws))).total
        gradients = torch.autograd.grad(
            loss, list(phase.trained.parameters()), materialize_grads=True
        )
        return loss, torch.cat([gradient.flatten() for gradient in gradients])

    alone = found(0), found(1)
    for one, other, both in zip(*alone, found(0, 1), strict=True):
        assert both.norm() > 0
        torch.testing.assert_close((one + other) / 2, both, rtol=1e-4, atol=1e-5)


def test_a_recurrent_network_has_no_transformer_to_share_out():
    assert find_transformers([make_network()]) == []


@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_a_folded_network_is_trained_on_regions(dense: float):
    model = make_network(unshuffle=2)
    (phase,) = RegionObjective(dense=dense).phases(model)
    high, low = (torch.rand(2, 3, 3, side, side, generator=_draw(0)) for side in (64, 32))
    found = phase.losses(ClipBatch(high, low, generators_of(SETTINGS, 0, range(2))))
    if dense:
        expected = charbonnier(model(low.transpose(1, 2)).transpose(1, 2), high)
        torch.testing.assert_close(found.total, expected)
    else:
        assert found.total.isfinite()
        assert 0.1 < float(found.figures["kept"]) < 0.95


def test_regions_of_a_black_clip_are_no_loss():
    (phase,) = RegionObjective(dense=0.0).phases(make_network())
    black = torch.zeros(1, 3, 3, 32, 32)
    clips = ClipBatch(F.interpolate(black, (3, 128, 128)), black, (_draw(0),))
    assert phase.losses(clips).total == 0
