"""What the objectives compute, against the same worked out slowly."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_models import MANY_WINDOWS, TINY, make_model, perturb, random, random_mask
from torch import Tensor, nn

from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.errors import TrainingError
from skipsr.skipping.route import Route, from_cells, to_cells
from skipsr.train.batches import generators_of
from skipsr.train.discriminator import Discriminator, TokenPoolingHead
from skipsr.train.loop import optimizer_of, take_turn, train
from skipsr.train.masks import MaskShares
from skipsr.train.objective import Batch, LatentBatch, Losses, Objective, Phase
from skipsr.train.objectives.adversarial import AdversarialObjective
from skipsr.train.objectives.distill import DistillObjective
from skipsr.train.objectives.finetune import VelocityObjective
from skipsr.train.objectives.samples import LatentSample, draw_samples, one_step
from skipsr.train.parallel import Parallel
from skipsr.train.settings import TrainSettings
from skipsr.train.transformers import copy_transformer, find_transformers

SETTINGS = TrainSettings(
    model="seedvr2:tiny", steps=2, batch=1, warmup=1, learning_rate=1e-3, checkpoint_every=1
)
WINDOWED = dataclasses.replace(TINY, dit=dataclasses.replace(TINY.dit, windows=MANY_WINDOWS))
SIZE = (2, 8, 12, 4)  # of a latent
HALF = MaskShares(oracle=0.0, blobs=1.0)


def make_latents(places: Sequence[int] = (0,), step: int = 0) -> LatentBatch:
    """Latents that differ, and the same draws each time."""
    high, base = (torch.stack([random(*SIZE, seed=10 * i + k) for i in places]) for k in (0, 1))
    return LatentBatch(
        high, base, torch.full((len(places), 2, 4, 6), 1e-3), generators_of(SETTINGS, step, places)
    )


def samples_of(model: SeedVR2, batch: Batch, masks: MaskShares) -> list[LatentSample]:
    found = draw_samples(model, batch, masks)
    assert all(0 < s.route.kept < s.route.keep.numel() for s in found)
    return found


def kept(latent: Tensor, route: Route) -> Tensor:
    """The kept cells of `t h w c` as `k 4 c`, one after another."""
    return torch.stack([
        torch.stack([latent[t, 2 * y + a, 2 * x + b] for a in (0, 1) for b in (0, 1)])
        for t, y, x in route.keep.nonzero().tolist()
    ])  # fmt: skip


def slow_velocity(
    dit: DiT, text: Tensor, x: Tensor, base: Tensor, now: float, route: Route
) -> Tensor:
    """The transformer itself on kept cells `k 4 c`."""
    seen = kept(base, route)
    cells = torch.cat((x, seen, torch.ones_like(seen[..., :1])), -1)
    return dit(cells, text, torch.tensor(now), dit.geometry(route, len(text)))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


# what is drawn


def shift(time: Tensor) -> Tensor:
    """Shift of a time for 5 frames of 64x96; 1 at 37 of 256x256, 5 at 145 of 1280x720."""
    low, high = 37 * 256 * 256, 145 * 1280 * 720
    factor = 1 + 4 * (5 * 64 * 96 - low) / (high - low)
    u = time / 1000
    return 1000 * factor * u / (1 + (factor - 1) * u)


def test_times_move_with_the_size_of_a_clip():
    plain, shifted = (
        draw_samples(make_model(), make_latents((0, 1)), HALF, shifted=shifted)
        for shifted in (False, True)
    )
    for a, b in zip(plain, shifted, strict=True):
        torch.testing.assert_close(b.time, shift(a.time))
        assert abs(b.time - a.time) > 1
        assert torch.equal(a.noise, b.noise)
        assert torch.equal(a.route.keep, b.route.keep)


def test_noise_joins_what_the_transformer_is_told_and_nothing_else():
    plain, noisy = (
        draw_samples(make_model(), make_latents((0, 1)), HALF, condition_noise=share)
        for share in (0.0, 0.25)
    )
    for a, b in zip(plain, noisy, strict=True):
        assert torch.equal(a.condition, a.base)
        for name in ("latent", "base", "noise", "time"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert torch.equal(a.route.keep, b.route.keep)
        level = shift(250 * torch.rand((), generator=a.generator)) / 1000
        assert 0.001 < level < 0.25
        noise = torch.randn(SIZE, generator=a.generator)
        torch.testing.assert_close(b.condition, a.base + (noise - a.base) * level)


@pytest.mark.parametrize(
    "objective",
    [
        VelocityObjective(masks=HALF, condition_noise=0.25),
        DistillObjective(steps=4, masks=HALF, condition_noise=0.25),
        AdversarialObjective(depths=(0.5, 1.0), masks=HALF, condition_noise=0.25),
    ],
    ids=lambda o: type(o).__name__,
)
def test_every_transformer_is_told_the_same(objective: Objective):
    """Model, teacher and discriminator, in each of their passes."""
    model, seen = make_model(WINDOWED), list[Tensor]()
    phases = objective.phases(model)
    for transformer in find_transformers([model, *(m for p in phases for m in p.auxiliary)]):
        transformer.register_forward_pre_hook(lambda _m, given: seen.append(given[0][..., 4:8]))
    for phase in phases:
        phase.losses(make_latents())
    (sample,) = draw_samples(make_model(WINDOWED), make_latents(), HALF, condition_noise=0.25)
    assert seen
    for told in seen:
        torch.testing.assert_close(told, kept(sample.condition, sample.route))


def test_a_dropped_text_leaves_the_negative_one():
    model = make_model(WINDOWED)
    (phase,) = VelocityObjective(masks=HALF, dropped=1.0).phases(model)
    phase.trained.requires_grad_(True)
    found = phase.losses(make_latents()).total
    (sample,) = samples_of(model, make_latents(), HALF)
    negative = model.text.negative
    assert negative is not None
    time = float(sample.time)
    noisy = kept(sample.latent + (sample.noise - sample.latent) * time / 1000, sample.route)
    velocity = slow_velocity(model.dit, negative, noisy, sample.base, time, sample.route)
    target = kept(sample.noise - sample.latent, sample.route)
    torch.testing.assert_close(found, F.mse_loss(velocity, target), rtol=1e-5, atol=1e-6)
    found.backward()
    assert model.text.positive.grad is None
    assert negative.grad is not None
    assert negative.grad.abs().max() > 0


def test_a_share_of_the_texts_is_dropped_in_one_pass_each():
    model, texts = make_model(), list[int]()
    model.dit.register_forward_pre_hook(lambda _m, given: texts.append(len(given[1])))
    (phase,) = VelocityObjective(masks=HALF, dropped=0.25).phases(model)
    phase.losses(make_latents(range(24)))
    assert len(texts) == 24
    assert set(texts) == {TINY.text_tokens, TINY.negative_tokens}
    assert 2 <= texts.count(TINY.negative_tokens) <= 11


# distillation


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_distillation_by_hand(guidance: float):
    """The target (x_t - x_t'') T / (t - t'') after two Euler steps is the mean of the teacher's two
    velocities; the teacher is what the model was before it moved."""
    model = make_model(WINDOWED)
    (phase,) = DistillObjective(steps=4, guidance=guidance, masks=HALF).phases(model)
    teacher = make_model(WINDOWED)
    perturb(model.dit, seed=7, spread=0.02)
    found = phase.losses(make_latents((0, 1)))

    def guided(x: Tensor, now: float, sample: LatentSample) -> Tensor:
        assert teacher.text.negative is not None
        positive, negative = (
            slow_velocity(teacher.dit, text, x, sample.base, now, sample.route)
            for text in (teacher.text.positive, teacher.text.negative)
        )
        return negative + guidance * (positive - negative)

    expected: list[Tensor] = []
    for sample in samples_of(model, make_latents((0, 1)), HALF):
        now = 500.0 * int(torch.randint(1, 3, (), generator=sample.generator))
        start = kept(sample.latent + (sample.noise - sample.latent) * now / 1000, sample.route)
        first = guided(start, now, sample)
        middle = start - first * 250 / 1000
        end = middle - guided(middle, now - 250, sample) * 250 / 1000
        target = (start - end) * 1000 / 500
        student = slow_velocity(
            model.dit, model.text.positive, start, sample.base, now, sample.route
        )
        expected.append((student - target).square().mean())
    torch.testing.assert_close(found.total, torch.stack(expected).mean(), rtol=1e-5, atol=1e-7)
    assert found.total > 1e-4


def test_a_student_with_the_teachers_mean_velocity_has_nothing_to_learn():
    model = make_model(WINDOWED)
    with torch.no_grad():  # the same velocity everywhere, so that two steps are one
        model.dit.vid_out.proj.weight.zero_()
        model.dit.vid_out.proj.bias.copy_(random(16))
    (phase,) = DistillObjective(steps=8, masks=HALF).phases(model)
    assert phase.losses(make_latents()).total.item() == pytest.approx(0, abs=1e-10)
    with torch.no_grad():
        model.dit.vid_out.proj.bias.add_(0.5)
    assert phase.losses(make_latents()).total.item() == pytest.approx(0.25, rel=1e-4)


def test_the_teacher_stays_while_the_student_trains(tmp_path: Path):
    model = make_model(WINDOWED)
    before = snapshot(model.part("transformer"))
    train(
        model,
        DistillObjective(steps=2),
        SETTINGS,
        lambda step, _: make_latents(step=step),
        tmp_path,
    )
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    (teacher,) = state["beside"]
    assert teacher.keys() == before.keys()
    assert all(torch.equal(teacher[name], before[name]) for name in before)
    assert moved(model.part("transformer"), before)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_an_odd_number_of_steps_cannot_be_halved(steps: int):
    with pytest.raises(ValueError, match=f"even number of steps, not {steps}"):
        DistillObjective(steps=steps)


# teachers and discriminators


def test_a_copy_shares_all_but_the_transformer():
    model = make_model()
    double = copy_transformer(model)
    assert isinstance(double, SeedVR2)
    theirs = dict(double.named_parameters())
    for name, value in model.named_parameters():
        shared = not name.startswith(("dit.", "text."))
        assert (theirs[name] is value) == shared, name
        assert (theirs[name].data_ptr() == value.data_ptr()) == shared, name
        assert torch.equal(theirs[name], value)
    before = snapshot(model)
    perturb(double.part("transformer"))
    assert not moved(model, before)
    assert copy_transformer(double).config == model.config


def test_a_pooling_head_is_attention_of_one_query_in_any_order():
    torch.manual_seed(0)
    read = TokenPoolingHead(128)
    perturb(read)
    tokens = random(9, 128)
    key, value = read.key_value(F.layer_norm(tokens, (128,), read.norm.weight, read.norm.bias)
                                ).split(128, 1)  # fmt: skip
    seen: list[Tensor] = []
    for head in (slice(0, 64), slice(64, 128)):
        weights = (key[:, head] @ read.query[0, head] / 8).softmax(0)
        seen.append(weights @ value[:, head])
    torch.testing.assert_close(read(tokens), read.answer(torch.cat(seen))[0])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(read(tokens[order]), read(tokens))


def test_a_pooling_head_tells_small_changes_in_half_precision():
    """The penalties square the change of a logit: rounded to bfloat16 it would be mostly error."""
    torch.manual_seed(0)
    head, tokens = TokenPoolingHead(48), torch.randn(60, 48)
    near = tokens + 0.01 * torch.randn(60, 48)
    change = head(near) - head(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(near) - head(tokens) == change
    assert 0 < change.abs() < 0.01


def test_a_discriminator_reads_the_layers_it_names():
    model = make_model(WINDOWED)
    discriminator = Discriminator(model, depths=(0.3, 1.0))  # of three layers
    batch, time = make_latents(), torch.tensor(400.0)
    route = Route(random_mask((2, 4, 6), 0.5))
    cells = kept(batch.high[0], route)
    output = discriminator(cells, batch.base[0], time, route)

    outputs: dict[int, Tensor] = {}
    for layer in (0, 2):
        model.dit.blocks[layer].register_forward_hook(
            lambda _m, _given, result, i=layer: outputs.update({i: result[0]})
        )
    slow_velocity(model.dit, model.text.positive, cells, batch.base[0], 400.0, route)
    assert [tuple(x.shape) for x in output.features] == [(route.kept, 48)] * 2
    for feature, layer in zip(output.features, (0, 2), strict=True):
        torch.testing.assert_close(feature, outputs[layer], rtol=1e-5, atol=1e-5)
    logits = [read(outputs[i]) for read, i in zip(discriminator.read_outs, (0, 2), strict=True)]
    torch.testing.assert_close(output.logit, sum(logits) / 2)


def test_a_discriminator_owns_a_transformer_and_no_more():
    model = make_model(WINDOWED)
    discriminator = Discriminator(model, depths=(0.5, 1.0))
    of_model = {p.data_ptr() for p in model.parameters()}
    assert not of_model & {p.data_ptr() for p in discriminator.parameters()}
    modules = (discriminator, model.part("transformer"), discriminator.read_outs)
    sizes = [sum(p.numel() for p in m.parameters()) for m in modules]
    assert sizes[0] == sizes[1] + sizes[2]

    batch, route = make_latents(), Route(random_mask((2, 4, 6), 0.5))
    cells = kept(batch.high[0], route).requires_grad_()
    discriminator(cells, batch.base[0], torch.tensor(400.0), route).logit.backward()
    named = dict(discriminator.transformer.named_parameters())
    first = ("0.vid_in.proj.weight", "0.blocks.0.ada.vid.attn_shift", "0.txt_in.weight")
    for gradient in (cells.grad, *(named[name].grad for name in first)):
        assert gradient is not None
        assert gradient.abs().max() > 0
    assert all(p.grad is None for p in model.parameters())


def test_skipped_cells_have_no_say_in_a_logit():
    discriminator = Discriminator(make_model(WINDOWED), depths=(0.5, 1.0))
    batch, route = make_latents(), Route(random_mask((2, 4, 6), 0.5))
    time, cells = torch.tensor(400.0), kept(batch.high[0], route)
    everywhere = torch.full_like(to_cells(batch.base[0]), 3.0)
    skipped = Route(~route.keep)
    other = from_cells(skipped.scatter(skipped.pack(everywhere), to_cells(batch.base[0])))
    logits = [
        discriminator(cells, base, time, route).logit for base in (batch.base[0], other, other + 1)
    ]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


# adversarial


def adversarial(**changes: float) -> AdversarialObjective:
    return dataclasses.replace(AdversarialObjective(depths=(0.5, 1.0), masks=HALF), **changes)


def discriminator_of(phases: Sequence[Phase]) -> Discriminator:
    (discriminator,) = phases[1].auxiliary
    assert isinstance(discriminator, Discriminator)
    return discriminator


def test_adversarial_losses_by_hand():
    torch.manual_seed(0)
    model = make_model(WINDOWED)
    objective = adversarial(latent=2.0, matching=3.0, pairing=5.0, penalty=7.0, sigma=0.1)
    phases = objective.phases(model)
    discriminator = discriminator_of(phases)
    by_model, by_discriminator = (phase.losses(make_latents()) for phase in phases)

    (sample,) = samples_of(model, make_latents(), HALF)
    state = sample.generator.get_state()
    time = torch.rand((), generator=sample.generator) * 1000
    fake = one_step(model, sample)
    real = kept(sample.latent, sample.route)
    expected = kept(sample.noise, sample.route) - slow_velocity(
        model.dit, model.text.positive, kept(sample.noise, sample.route), sample.base, 1000.0,
        sample.route,
    )  # fmt: skip
    torch.testing.assert_close(fake, expected, rtol=1e-5, atol=1e-5)
    found = {name: discriminator(x, sample.base, time, sample.route)
             for name, x in (("real", real), ("fake", fake))}  # fmt: skip
    margin = found["real"].logit - found["fake"].logit
    matching = torch.stack([
        (F.layer_norm(a, (48,)) - F.layer_norm(b, (48,))).abs().mean()
        for a, b in zip(found["real"].features, found["fake"].features, strict=True)
    ]).mean()  # fmt: skip
    total = 2 * (fake - real).abs().mean() + 3 * matching + 5 * torch.log1p(margin.exp())
    torch.testing.assert_close(by_model.total, total, rtol=1e-5, atol=1e-5)

    sample.generator.set_state(state)
    assert torch.rand((), generator=sample.generator) * 1000 == time
    penalty = torch.zeros(())
    for name, x in (("real", real), ("fake", fake)):
        near = x + 0.1 * torch.randn(x.shape, generator=sample.generator)
        change = discriminator(near, sample.base, time, sample.route).logit - found[name].logit
        penalty = penalty + change**2
    assert penalty > 0
    total = torch.log1p((-margin).exp()) + 7 * penalty
    torch.testing.assert_close(by_discriminator.total, total, rtol=1e-5, atol=1e-5)


def test_no_noise_no_penalty():
    torch.manual_seed(0)
    still = adversarial(sigma=0.0).phases(make_model(WINDOWED))[1].losses(make_latents())
    assert still.figures["penalty"] == 0
    assert still.total.item() == pytest.approx(
        F.softplus(-torch.tensor(still.figures["margin"])).item()
    )


def setup(seed: int = 0) -> tuple[SeedVR2, Sequence[Phase], list[torch.optim.Optimizer]]:
    torch.manual_seed(seed)
    model = make_model(WINDOWED)
    phases = adversarial(penalty=0.0).phases(model)
    for phase in phases:
        phase.trained.requires_grad_(True)
    return model, phases, [optimizer_of(phase, SETTINGS) for phase in phases]


ALONE = Parallel(torch.device("cpu"))


def test_a_discriminator_learns_to_tell_and_the_model_pays():
    model, phases, optimizers = setup()
    before = snapshot(model)
    for _ in range(12):
        take_turn(phases[1], optimizers[1], make_latents(), SETTINGS, 0, ALONE)
    assert not moved(model, before)
    losses = phases[1].losses(make_latents())
    assert losses.figures["margin"] > 1
    assert losses.total < F.softplus(torch.tensor(-1.0))
    assert phases[0].losses(make_latents()).figures["pairing"] > 1


def test_every_phase_moves_its_own_alone():
    model, phases, optimizers = setup()
    discriminator = discriminator_of(phases)
    start, first = snapshot(model), snapshot(discriminator)
    take_turn(phases[0], optimizers[0], make_latents(), SETTINGS, 0, ALONE)
    assert moved(model, start)
    assert all(name.startswith(("dit.", "text.")) for name in moved(model, start))
    assert not moved(discriminator, first)
    middle = snapshot(model)
    take_turn(phases[1], optimizers[1], make_latents(), SETTINGS, 0, ALONE)
    assert not moved(model, middle)
    assert moved(discriminator, first)


def test_what_the_models_loss_leaves_in_the_discriminator_is_not_its_gradient():
    results: list[dict[str, Tensor]] = []
    for with_model in (False, True):
        _, phases, optimizers = setup()
        if with_model:
            phases[0].losses(make_latents()).total.backward()
            assert any(p.grad is not None for p in discriminator_of(phases).parameters())
        take_turn(phases[1], optimizers[1], make_latents(), SETTINGS, 0, ALONE)
        results.append(snapshot(discriminator_of(phases)))
    assert all(torch.equal(results[0][name], value) for name, value in results[1].items())


# the loop


def test_a_gradient_that_is_not_finite_moves_nothing():
    layer = nn.Linear(2, 1)
    phase = Phase("x", layer, lambda _: Losses((0 * layer.weight).abs().sqrt().sum(), {}))
    before = snapshot(layer)
    with pytest.raises(TrainingError, match="gradient is not finite at step 3"):
        take_turn(phase, optimizer_of(phase, SETTINGS), make_latents(), SETTINGS, 3, ALONE)
    assert not moved(layer, before)
