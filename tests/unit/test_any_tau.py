"""A predictor of the error itself: any threshold from the same weights, and calibrated."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from made_models import TINY, make_clip, make_model, perturb, random
from torch import Tensor

from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.oracle import TAU
from skipsr.skipping.predictor import MaskPredictor
from skipsr.train.batches import generators_of
from skipsr.train.loop import train
from skipsr.train.objective import LatentBatch
from skipsr.train.objectives.predictor import PredictorObjective
from skipsr.train.settings import TrainSettings

TAUS = (1e-6, 5e-5, TAU, 1e-3, 0.1)
PLAIN = dataclasses.replace(TINY, predictor=dataclasses.replace(TINY.predictor, any_tau=False))


def make_predictor(*, any_tau: bool) -> MaskPredictor:
    torch.manual_seed(0)
    predictor = MaskPredictor(4, 8, 3, any_tau=any_tau)
    perturb(predictor, spread=0.2)
    return predictor.requires_grad_(False)


def log_error(predictor: MaskPredictor, latent: Tensor) -> Tensor:
    """ln(error / TAU) as the convolutions say it."""
    x = rearrange(latent, "b t h w c -> b c t h w")
    for i, layer in enumerate(predictor.layers):
        x = F.conv3d(
            F.relu(x) if i else x, layer.weight, layer.bias, (1, 1, 1) if i else (1, 2, 2), 1
        )
    return x[:, 0]


def test_the_probability_is_that_of_an_error_above_tau():
    predictor, latent = make_predictor(any_tau=True), random(1, 3, 8, 10, 4)
    location = log_error(predictor, latent)
    assert predictor.log_spread is not None
    assert predictor.log_spread != 0
    spread = predictor.log_spread.exp()
    for tau in TAUS:
        expected = 1 / (1 + torch.exp(-(location - math.log(tau / TAU)) / spread))
        logits = predictor(latent, tau)
        assert logits.shape == (1, 3, 4, 5)
        torch.testing.assert_close(logits.sigmoid(), expected)
        sure = (location - math.log(tau / TAU)).abs() > 1e-5
        assert torch.equal((logits > 0)[sure], (TAU * location.exp() > tau)[sure])
    assert torch.equal(predictor(latent), predictor(latent, TAU))


def test_a_larger_tau_is_exceeded_less_often():
    predictor, latent = make_predictor(any_tau=True), random(1, 3, 8, 10, 4)
    logits = torch.stack([predictor(latent, tau) for tau in TAUS])
    assert (logits.diff(dim=0) < 0).all()


def test_a_plain_predictor_knows_one_tau():
    predictor, latent = make_predictor(any_tau=False), random(1, 3, 8, 10, 4)
    torch.testing.assert_close(predictor(latent, TAU), log_error(predictor, latent))
    with pytest.raises(SettingsError, match=r"trained for tau 0\.0002 alone: leave out `tau`"):
        predictor(latent, 1e-3)


# the upscaler


def upscaler_of(model: SeedVR2, **skip: float) -> SeedVR2Upscaler:
    return TokenSkippingUpscaler("seedvr2:tiny", model, SkipSettings(**skip))  # type: ignore[arg-type]


def test_tau_moves_the_route_of_an_upscaler():
    model, clip = make_model(), make_clip(5, 24, 32)
    usual = upscaler_of(model).compute_map(clip, (96, 128)).keep
    assert torch.equal(upscaler_of(model, tau=TAU).compute_map(clip, (96, 128)).keep, usual)
    frames = rearrange(upscaler_of(model).upsample(clip, (96, 128)).frames, "t c h w -> 1 c t h w")
    assert model.predictor is not None
    errors = TAU * log_error(model.predictor, model.encode(frames))[0].exp()
    taus = errors.double().quantile(torch.tensor([0.02, 0.31, 0.52, 0.77, 0.98]).double()).tolist()
    maps = [upscaler_of(model, tau=tau).compute_map(clip, (96, 128)) for tau in (1e-12, *taus, 1.0)]
    for more, fewer in itertools.pairwise(maps):
        assert not (fewer.keep & ~more.keep).any()
    shares = [each.fraction for each in maps]
    assert shares == pytest.approx([1, 0.98, 0.69, 0.48, 0.23, 0.02, 0], abs=0.03)
    done = upscaler_of(model, tau=1e-12).upscale(clip, (96, 128))
    assert done.computed == 1


def test_an_upscaler_that_knows_one_tau_refuses_others():
    model, clip = make_model(PLAIN), make_clip(1, 24, 32)
    usual = upscaler_of(model).compute_map(clip, (48, 64))
    assert torch.equal(upscaler_of(model, tau=TAU).compute_map(clip, (48, 64)).keep, usual.keep)
    with pytest.raises(SettingsError, match="leave out `tau`"):
        upscaler_of(model, tau=1e-3).upscale(clip, (48, 64))


@pytest.mark.parametrize("tau", [0.0, -1e-4, 1.5, math.nan])
def test_taus_that_mean_nothing(tau: float):
    with pytest.raises(SettingsError, match=r"`tau` .* is not above 0 and up to 1"):
        SkipSettings(tau=tau)


# training


def noisy_errors(base: Tensor, generator: torch.Generator) -> Tensor:
    """Errors whose logarithm is a function of the latent, plus logistic noise of spread 0.5."""
    signal = reduce(base[..., 0], "b t (h p) (w q) -> b t h w", "mean", p=2, q=2)
    u = torch.rand(signal.shape, generator=generator).clamp(1e-4, 1 - 1e-4)
    return TAU * torch.exp(2 * signal + 0.3 + 0.5 * torch.log(u / (1 - u)))


def synthetic(settings: TrainSettings, step: int, places: Sequence[int]) -> LatentBatch:
    generator = torch.Generator().manual_seed(1000 + step)
    base = torch.randn((len(places), 2, 16, 16, 4), generator=generator)
    errors = noisy_errors(base, generator)
    return LatentBatch(base, base, errors, generators_of(settings, step, places))


def test_a_trained_predictor_is_calibrated_for_every_tau(tmp_path: Path):
    settings = TrainSettings(
        model="seedvr2:tiny", steps=150, batch=8, learning_rate=1e-2, warmup=5, ema=0.9,
        weight_decay=0.0, checkpoint_every=1000,
    )  # fmt: skip
    predictor = dataclasses.replace(TINY.predictor, width=24, layers=2)
    torch.manual_seed(0)
    model = train(
        SeedVR2(dataclasses.replace(TINY, predictor=predictor)),
        PredictorObjective(usual=0.0),
        settings,
        lambda step, places: synthetic(settings, step, places),
        tmp_path,
    )
    assert isinstance(model, SeedVR2)
    unseen = synthetic(settings, 10_000, range(64))
    assert model.predictor is not None
    assert model.predictor.log_spread is not None
    assert model.predictor.log_spread.exp().item() == pytest.approx(0.5, abs=0.1)
    shares: list[float] = []
    for tau in (5e-5, TAU, 1e-3):
        with torch.no_grad():
            said = model.scores(unseen.base, tau).sigmoid()
        true = (unseen.errors > tau).float()
        assert said.mean().item() == pytest.approx(true.mean().item(), abs=0.03)
        for low in (0.0, 0.25, 0.5, 0.75):  # among the tokens of which it says about as much
            alike = (said >= low) & (said < low + 0.25)
            assert alike.sum() > 50
            assert true[alike].mean().item() == pytest.approx(said[alike].mean().item(), abs=0.08)
        shares.append(true.mean().item())
    assert shares[0] > 0.7
    assert shares[2] < 0.3
