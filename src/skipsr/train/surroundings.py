"""Fit what is guessed of a network beyond what is run of it, to what it holds there run densely.

It is a linear map of few dimensions (reduced-rank regression), which is found at once from sums
over samples: nothing is descended, and of the settings only those that say what is drawn count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr import backbones
from skipsr.backbones.by_scale import ByScale
from skipsr.backbones.contract import Upscaler
from skipsr.data.clips import ClipDataset
from skipsr.data.degrade import Degradation
from skipsr.skipping.decide import STRIP, needed
from skipsr.skipping.dial import Dial
from skipsr.skipping.light import FOLDS, PLACE, LightUpsampler, load_light, preset_of, rows_at
from skipsr.skipping.need import CELL, Need, NeedPredictor, head_of, load_need
from skipsr.skipping.route import over_pixels
from skipsr.skipping.surroundings import (
    CHANNELS,
    CODE,
    LAYERS,
    Surroundings,
    SurroundingsByModel,
)
from skipsr.train.collected import Collection
from skipsr.train.loop import ReportProgress
from skipsr.train.settings import TrainSettings

RECIPE = "surroundings"
SETTINGS = TrainSettings(
    model=RECIPE,
    steps=1,
    crop=320,
    frames=5,
    degradation=Degradation(clean=0.55, strength=0.6),
    latents=240,  # clips
)
_FIRST = 300_000  # number of the first clip: none that another network learns from
_SHARD = 20  # clips in a file
_SHARES = (0.3, 0.5, 0.7)  # of the cells that are run
_PLACES = 400  # of a frame, at most
_RIDGE = 1e-4  # of the mean square of what is read


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over places of what is read (and 1) and what is to be guessed, float64."""

    read: Tensor  # 81 81
    both: Tensor  # 81 1296
    squares: Tensor  # 1296


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The share of the squares of what networks hold that is left when the guess is subtracted, on
    clips that it was not fitted to, of the same files."""

    left: float


def train(
    data: ClipDataset,
    settings: TrainSettings,
    out: Path,
    *,
    device: str = "cpu",
    report: ReportProgress = lambda _stage, _progress: None,
) -> tuple[SurroundingsByModel, Mapping[str, Fit]]:
    """Collect what is not yet in `out/samples`, and fit.

    Returns:
        The maps on the CPU, and how good each is, by model.
    """
    folder, lights = out / "samples", {model: load_light(model) for model in FOLDS}
    by = partial(measure, load_need(), lights)
    collection = Collection(models=tuple(FOLDS), measure=by, first=_FIRST, shard=_SHARD)
    collection.collect(data, settings, folder, device=device, report=report)
    found, fits = SurroundingsByModel(), dict[str, Fit]()
    for model in FOLDS:
        parts = collection.read_apart(settings, folder, model)
        networks = [part.pop("network") for part in parts]
        known, others = (Sums(**{key: each.sum(0) for key, each in part.items()}) for part in parts)
        found[preset_of(model)] = fitted = fit(known)
        fitted.network.copy_(networks[0][0])
        fits[model] = Fit(left=left_by(fitted, others))
    return found.eval().requires_grad_(False), fits


@torch.no_grad()
def measure(
    predictor: NeedPredictor,
    lights: Mapping[str, LightUpsampler | None],
    upscaler: Upscaler,
    _high: Tensor,
    low: Tensor,
) -> dict[str, Tensor]:
    """`Sums` over places of an LR clip `t 3 h w` just beyond what could be run of it, and what the
    network is known by."""
    name, (backbone, _) = upscaler.name, backbones.family(upscaler.name)
    if isinstance(upscaler, ByScale):
        upscaler = upscaler.at(PLACE // FOLDS[name])
    assert backbone.trace is not None
    traced, light = backbone.trace(upscaler, low), lights[name]
    assert light is not None
    need = predictor(F.avg_pool2d(low, FOLDS[name]))
    read: list[Tensor] = []
    held: list[Tensor] = []
    folded, places = F.pixel_unshuffle(low, FOLDS[name]), _beyond(need, head_of(name))
    for frame, layers, where in zip(folded, traced.layers, places, strict=True):
        read.append(F.pad(rows_at(light.hidden(frame[None]), where), (0, 1), value=1.0))
        held.append(layers.flatten(1).index_select(1, where.to(layers.device)).T.cpu())
    x, y = (torch.cat(each).double() for each in (read, held))
    return {
        "read": x.T @ x,
        "both": x.T @ y,
        "squares": y.square().sum(0),
        "network": traced.known_by.cpu(),
    }


def _beyond(need: Need, head: int) -> list[Tensor]:
    """Of every frame places next to what is run of it, by any of some shares."""
    rows, columns = need.mean.shape[2:]
    beside = torch.zeros(len(need.mean), 1, CELL * rows, CELL * columns)
    for share in _SHARES:
        keep = needed(need, head, Dial(tau=0.0, share=share), STRIP).float()[:, None]
        run = over_pixels(keep, CELL, beside.shape[2:])
        beside += F.max_pool2d(run, 3, 1, 1) - run
    found = (frame.flatten().nonzero()[:, 0] for frame in beside)
    return [places[:: max(1, len(places) // _PLACES)] for places in found]


def fit(sums: Sums) -> Surroundings:
    """The map that leaves least of the squares, each layer's by its mean square; float32."""
    count, mean = sums.read[-1, -1], sums.read[-1, :-1] / sums.read[-1, -1]
    ridge = _RIDGE * sums.read.diagonal().mean() * torch.eye(len(sums.read)).double()
    full = torch.linalg.solve(sums.read + ridge, sums.both)
    scale = sums.squares.unflatten(0, (LAYERS, CHANNELS)).mean(1).div(count).sqrt().clamp_min(1e-9)
    scale = scale.repeat_interleave(CHANNELS)
    slope = full[:-1] / scale
    spread = sums.read[:-1, :-1] - count * torch.outer(mean, mean)  # by the mean of places
    root = torch.linalg.cholesky(spread + 1e-2 * ridge[:-1, :-1])
    axes = torch.linalg.svd(root.T @ slope, full_matrices=False)[2][: CODE - 1]
    code = slope @ axes.T
    size = (code * (spread @ code)).sum(0).div(count).sqrt().clamp_min(1e-9)
    found, code = Surroundings(), code / size
    layers = torch.cat((axes * size[:, None] * scale, (full[-1] + mean @ full[:-1])[None]))
    with torch.no_grad():
        found.code.weight.copy_(F.pad(code.T, (0, 0, 0, 1)))
        found.code.bias.copy_(F.pad(-mean @ code, (0, 1), value=1.0))
        found.layers.copy_(layers.unflatten(1, (LAYERS, CHANNELS)).transpose(0, 1))
    return found


@torch.no_grad()
def left_by(found: Surroundings, sums: Sums) -> float:
    """See `Fit`; the mean over layers."""
    weight = torch.cat((found.code.weight.T, found.code.bias[None])).double()  # 81 32
    full = (weight @ found.layers.double()).transpose(0, 1).flatten(1)  # 81 1296
    rest = sums.squares - 2 * (full * sums.both).sum(0) + (full * (sums.read @ full)).sum(0)
    left, there = (each.unflatten(0, (LAYERS, CHANNELS)).sum(1) for each in (rest, sums.squares))
    return (left / there.clamp_min(1e-9)).mean().item()
