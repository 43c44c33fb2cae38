"""Both engines and a training step on a pretended card: devices and dtypes fit, attention is the
fast kernel's, results are the processor's, and the host waits no more often than said here."""

from collections.abc import Callable, Iterator

import pytest
import torch
from made_models import make_clip, make_model, perturb, random
from pretended_card import CARD, Card, on_card, pretended_card
from torch import Tensor, nn

from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.regional import decode_regions
from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.nn import attention
from skipsr.nn.attention import Lengths, packed_attention
from skipsr.nn.causal import Bounds
from skipsr.settings import SkipSettings
from skipsr.tracing import Trace
from skipsr.train.batches import generators_of
from skipsr.train.loop import optimizer_of, prepare, take_turn
from skipsr.train.objective import ClipBatch
from skipsr.train.objectives.finetune import OneStepObjective, VelocityObjective
from skipsr.train.parallel import Parallel
from skipsr.train.settings import TrainSettings

CLIP, SIZE = make_clip(5, 12, 20), (48, 80)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    with pretended_card(monkeypatch) as made:
        yield made


def half(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():  # as `load`: buffers stay exact
        parameter.data = parameter.data.bfloat16()
    return model


def recurrent() -> BasicVSR:
    torch.manual_seed(0)
    model = BasicVSR(PRESETS["tiny"])
    perturb(model)
    return model.eval().requires_grad_(False)


def diffusion(kind: type[SeedVR2Upscaler], skip: SkipSettings) -> Callable[[nn.Module], object]:
    return lambda model: kind("seedvr2:tiny", model, skip)  # type: ignore[arg-type]


def flows(skip: SkipSettings) -> Callable[[nn.Module], object]:
    return lambda model: BasicVSRUpscaler("basicvsr:tiny", model, skip)  # type: ignore[arg-type]


WAYS = {
    # network, upscaler, and of a window of five frames: waits for results, and uploads
    "seedvr2, dense": (make_model, diffusion(SeedVR2Upscaler, SkipSettings(dense=True)), 5, 13),
    "seedvr2, tokens": (
        make_model,
        diffusion(TokenSkippingUpscaler, SkipSettings(budget=0.4)),
        5,
        13,
    ),
    "seedvr2, regions": (make_model, diffusion(SeedVR2Upscaler, SkipSettings(budget=0.4)), 12, 60),
    "basicvsr, dense": (recurrent, flows(SkipSettings(dense=True)), 5, 6),
    "basicvsr, regions": (recurrent, flows(SkipSettings(budget=0.4)), 27, 30),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_window_gives_what_the_processor_gives(way: str, card: Card):
    make, upscaler_of, _, _ = WAYS[way]
    expected = upscaler_of(make()).upscale(CLIP, SIZE, seed=3)  # type: ignore[attr-defined]
    upscaler = upscaler_of(make().to(CARD))
    assert upscaler.device == "cuda:0"  # type: ignore[attr-defined]
    found = upscaler.upscale(CLIP, SIZE, seed=3)  # type: ignore[attr-defined]
    assert found.clip.frames.is_cpu
    torch.testing.assert_close(found.clip.frames, expected.clip.frames, atol=2e-4, rtol=0)
    assert found.compute_map.units_run == expected.compute_map.units_run
    assert (expected.compute_map.units_run == expected.compute_map.units_total) == way.endswith(
        "dense"
    )


@pytest.mark.parametrize("way", WAYS)
def test_in_half_precision_the_host_waits_this_often(way: str, card: Card):
    make, upscaler_of, waits, uploads = WAYS[way]
    upscaler = upscaler_of(half(make()).to(CARD))
    assert upscaler.dtype == "bfloat16"  # type: ignore[attr-defined]
    card.waits.clear()
    card.uploads = 0
    with Trace() as trace:  # how far it is costs nothing
        upscaler.upscale(CLIP, SIZE, seed=3)  # type: ignore[attr-defined]
    assert trace.share > 0.9
    assert card.waits.total() <= waits, card.waits
    assert card.uploads <= uploads
    assert card.flash_only == way.startswith("seedvr2")


@pytest.mark.parametrize("groups", [0, 4])
@pytest.mark.parametrize("bounds", [None, Bounds(band=2**14, frames=2, tails=2**14)], ids=str)
def test_an_autoencoder_never_waits_but_for_what_is_away(
    groups: int, bounds: Bounds | None, card: Card
):
    torch.manual_seed(0)
    vae = VideoAutoencoder(VAEConfig(channels=(8, 8, 8, 8), groups=groups, latent_channels=4))
    frames = random(1, 3, 9, 16, 24).clamp(-1, 1)
    with torch.inference_mode():
        latent = vae.encode(frames, bounds=bounds).mean
        expected = vae.decode(latent, bounds=bounds)
        vae.to(CARD)
        frames, latent = on_card(frames), on_card(latent)
        card.waits.clear()
        card.uploads = 0
        torch.testing.assert_close(vae.encode(frames, bounds=bounds).mean.cpu(), latent.cpu())
        assert card.waits.pop("download") == 2 or bounds is not None
        found = vae.decode(latent, bounds=bounds)
        assert card.waits.total() == card.waits["download"]
        assert (card.waits["download"] > 0) == (card.uploads > 0) == (bounds is not None)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("groups", [0, 4])
def test_canvases_are_the_same_where_what_layers_remember_is_away(groups: int, card: Card):
    torch.manual_seed(0)
    vae = VideoAutoencoder(VAEConfig(channels=(8, 8, 8, 8), groups=groups, latent_channels=4))
    latent = random(1, 4, 4, 6, 10)
    keeps = torch.ones(4, 3, 5, dtype=torch.bool)
    keeps[:, :, 3:] = False
    keeps[2:, 2] = False
    with torch.inference_mode():
        expected = decode_regions(vae, latent, None, keeps, 1)
        vae.to(CARD)
        found, downloads = list[Tensor](), list[int]()
        for tails in (2**40, 2**15, 0):
            card.waits.clear()
            bounds = Bounds(band=2**14, frames=2, tails=tails)
            found.append(decode_regions(vae, on_card(latent), None, keeps, 1, bounds=bounds).cpu())
            downloads.append(card.waits["download"])
    for each in found:
        torch.testing.assert_close(each, expected, atol=1e-5, rtol=1e-5)
    assert downloads[0] == 1 < downloads[1] < downloads[2]


def settings(**changes: object) -> TrainSettings:
    given = {"model": "seedvr2:tiny", "steps": 2, "batch": 1, "warmup": 1, "learning_rate": 1e-3}
    return TrainSettings(**(given | changes))  # type: ignore[arg-type]


def step(model: nn.Module, objective: object, device: torch.device, **changes: object) -> float:
    """One step of training; the gradient's norm."""
    told = settings(**changes)
    parallel = Parallel(device)
    (phase,) = objective.phases(model)  # type: ignore[attr-defined]
    phase.trained.requires_grad_(True)
    high = random(1, 3, 5, 32, 32).clamp(-2, 2) / 4 + 0.5
    batch = ClipBatch(high, high.roll(1, -1), generators_of(told, 0, [0]))
    batch = prepare(batch, model, objective, told, parallel)  # type: ignore[arg-type]
    return take_turn(phase, optimizer_of(phase, told), batch, told, 0, parallel)["gradient"]


@pytest.mark.parametrize("objective", [VelocityObjective(), OneStepObjective()], ids=type)
def test_a_training_step_is_the_processors(objective: object, card: Card):
    ours, theirs = make_model().to(CARD), make_model()
    found = step(ours, objective, CARD, bfloat16=False)
    expected = step(theirs, objective, torch.device("cpu"), bfloat16=False)
    assert found == pytest.approx(expected, rel=1e-3)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.detach().cpu(), b.detach(), atol=2e-3, rtol=0, msg=name)
    assert not card.attention  # float32 is for the portable path


@pytest.mark.parametrize("objective", [VelocityObjective(), OneStepObjective()], ids=type)
def test_training_in_half_precision_reaches_the_fast_kernel(objective: object, card: Card):
    """And all layers see what `train --plan` counts: a stream of bfloat16."""
    model = make_model().to(CARD)
    assert isinstance(model, SeedVR2)
    entered: set[torch.dtype] = set()

    def note(_block: nn.Module, given: tuple[Tensor, ...], left: tuple[Tensor, ...]) -> None:
        entered.update(x.dtype for x in (*given[:2], *left))

    for block in model.dit.blocks:
        block.register_forward_hook(note)
    before = model.dit.vid_in.proj.weight.detach().cpu()
    assert 0 < step(model, objective, CARD, bfloat16=True) < 1e4
    assert card.flash_only
    assert entered == {torch.bfloat16}
    assert not torch.equal(model.dit.vid_in.proj.weight.detach().cpu(), before)


def attend(lengths: Lengths) -> Tensor:
    q, k, v = (on_card(random(lengths.total, 2, 8, seed=i).bfloat16()) for i in range(3))
    return packed_attention(q, k, v, lengths)


def test_cards_without_the_flash_kernel_take_the_portable_path(
    card: Card, monkeypatch: pytest.MonkeyPatch
):
    tried: list[int] = []

    def refuse(*_: object) -> Tensor:
        tried.append(1)
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    fast = attend(Lengths.of([5, 17, 5], CARD)).cpu()
    monkeypatch.setattr(attention, "varlen_attn", refuse)
    attention.flash_runs.cache_clear()
    for _ in range(3):
        portable = attend(Lengths.of([5, 17, 5], CARD)).cpu()
    assert len(tried) == 1  # once per device
    torch.testing.assert_close(portable, fast, atol=0.02, rtol=0)


def test_the_portable_path_never_waits_for_how_many_rows_are_no_padding(card: Card):
    q, k, v = (on_card(random(29, 2, 8, seed=i)) for i in range(3))
    lengths = Lengths.of([5, 17, 7], CARD)
    found = packed_attention(q, k, v, lengths)
    assert any(batch.filled for batch in lengths.batched.batches)
    card.waits.clear()
    packed_attention(q, k, v, lengths)
    assert not card.waits
    expected = packed_attention(q.cpu(), k.cpu(), v.cpu(), Lengths.of([5, 17, 7]))
    torch.testing.assert_close(found.cpu(), expected)


def test_memory_that_has_run_out_is_no_verdict_on_a_card(
    card: Card, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    attention.flash_runs.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(attention, "varlen_attn", refuse)
        with pytest.raises(torch.OutOfMemoryError):
            attention.flash_runs(CARD)
    assert attention.flash_runs(CARD)


def test_the_fast_kernel_needs_no_batches(card: Card):
    lengths = Lengths.of([5, 17, 40, 5], CARD)
    assert card.uploads == 1
    attend(lengths)
    assert "batched" not in vars(lengths)
    assert card.waits.total() == 0


def test_mixed_precisions_are_refused():
    q = random(5, 2, 8)
    with pytest.raises(ValueError, match=r"attention of torch\.bfloat16, torch\.float32 and"):
        packed_attention(q.bfloat16(), q, q, Lengths.of([5]))


def test_the_pretended_card_refuses_what_cuda_refuses(card: Card):
    here, there = random(4, 3), on_card(random(4, 3))
    assert (there + 1.0).device == CARD
    assert torch.equal((there * torch.tensor(2.0)).cpu(), there.cpu() * 2)
    for mix in (
        lambda: there + here,
        lambda: torch.cat((there, here)),
        lambda: here.add_(there),
        lambda: torch.where(there > 0, there, here),
        lambda: there.index_put_((torch.tensor([0]),), here[:1]),
    ):
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            mix()


def test_the_pretended_card_counts_waits(card: Card):
    there = on_card(random(4, 3))
    for wait, kind in (
        (lambda: bool((there > 0).all()), "item"),
        (lambda: there[0, 0].item(), "item"),
        (lambda: there.tolist(), "download"),
        (lambda: there.cpu(), "download"),
        (lambda: torch.zeros(4, 3).copy_(there), "download"),
        (lambda: (there > 0).nonzero(), "nonzero"),
        (lambda: there[there > 0], "nonzero"),
    ):
        card.waits.clear()
        wait()
        assert card.waits == {kind: 1}
    assert card.uploads == 0
    assert random(3).to("cuda").is_cuda
    assert there[torch.tensor([1])].is_cuda
    assert card.uploads == 2
    there[1:] = 0.5
    assert card.uploads == 2
    there[1, 2] = 0.5
    assert card.uploads == 3
