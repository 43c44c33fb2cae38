"""Train the doubt predictor, which tells from an LR clip's spectrum how wrong a result will be.

A result's doubt is its squared error by the square of what the model added to plain upsampling.
Pairs of both are collected once, by running the models on degraded clips, and a small network is
fitted to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.data.clips import ClipDataset
from skipsr.data.footage import Footage
from skipsr.nn.resize import resize_bicubic
from skipsr.strength import MODELS, DoubtPredictor, spectrum_of
from skipsr.train.collected import Collection
from skipsr.train.loop import ReportProgress
from skipsr.train.settings import TrainSettings

RECIPE = "doubt"
SETTINGS = TrainSettings(
    model=RECIPE,
    steps=2500,
    batch=0,  # all samples in every step
    crop=320,
    frames=5,
    degradation=Footage(clean=0.4),
    learning_rate=2e-3,
    weight_decay=0.1,
    latents=1400,  # samples
)
_DROPPED = 0.15  # share of inputs and of hidden values
_LEAST = 1e-8  # mean squares below are as good as none


@dataclass(frozen=True, slots=True)
class Samples:
    """Spectra of LR clips, and ln of the doubt about a model's results."""

    spectra: Tensor  # n f
    doubts: Tensor  # n


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well the doubt of held-out samples is predicted."""

    correlation: float
    error: float  # root of the mean square, of ln doubt
    spread: float  # standard deviation of ln doubt


def train(
    data: ClipDataset,
    settings: TrainSettings,
    out: Path,
    *,
    device: str = "cpu",
    report: ReportProgress = lambda _stage, _progress: None,
) -> tuple[DoubtPredictor, Mapping[str, Fit]]:
    """Collect what is not yet in `out/samples`, and fit.

    Returns:
        The predictor on the CPU, and how good it is, by model, on crops that it was not fitted to,
        though of the same files.
    """
    folder = out / "samples"
    COLLECTION.collect(data, settings, folder, device=device, report=report)
    parts = [COLLECTION.read_apart(settings, folder, model) for model in MODELS]
    known, others = ([Samples(**part) for part in each] for each in zip(*parts, strict=True))
    predictor = fit(known, settings)
    found: dict[str, Fit] = {}
    for k, (model, each) in enumerate(zip(MODELS, others, strict=True)):
        pair = torch.stack((predictor(each.spectra)[:, k], each.doubts))
        found[model] = Fit(
            correlation=torch.corrcoef(pair)[0, 1].item(),
            error=(pair[0] - pair[1]).square().mean().sqrt().item(),
            spread=pair[1].std().item(),
        )
    return predictor, found


def measure(upscaler: Upscaler, high: Tensor, low: Tensor) -> dict[str, Tensor]:
    """The spectrum of an LR clip `t 3 h w`, and ln of the doubt about what a model makes of it."""
    clip, size = Clip(low), (high.shape[2], high.shape[3])
    result = upscaler.upscale(clip, size).clip.frames
    added = (result - resize_bicubic(low, size)).square().mean()
    wrong = (result - high).square().mean()
    doubt = wrong.clamp_min(_LEAST) / added.clamp_min(_LEAST)
    return {"spectra": spectrum_of(low), "doubts": doubt.log()}


COLLECTION = Collection(models=MODELS, measure=measure, first=100_000, shard=50)


def fit(samples: list[Samples], settings: TrainSettings) -> DoubtPredictor:
    """A predictor that was shown the samples of every model; the same seed gives the same one."""
    torch.manual_seed(settings.seed)
    every = torch.cat([each.spectra for each in samples])
    mean, spread = every.mean(0), every.std(0)
    predictor = DoubtPredictor()
    first, between, last = predictor.layers
    dropping = nn.Sequential(
        nn.Dropout(_DROPPED), first, between, nn.Dropout(_DROPPED), last
    ).train()
    optimizer = torch.optim.AdamW(
        predictor.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    for _ in range(settings.steps):
        losses = [
            F.smooth_l1_loss(dropping((each.spectra - mean) / spread)[:, k], each.doubts)
            for k, each in enumerate(samples)
        ]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        optimizer.step()
    assert isinstance(first, nn.Linear)
    with torch.no_grad():  # from spectra as they are
        first.weight.div_(spread)
        first.bias.sub_(first.weight @ mean)
    return predictor.eval().requires_grad_(False)
