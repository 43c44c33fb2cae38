"""Train the light upsamplers, which guess from a few pixels what a network makes of them.

What networks add to bicubic upsampling is collected once, on degraded clips, and a small network is
fitted to that of each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.data.clips import ClipDataset
from skipsr.data.degrade import Degradation
from skipsr.nn.resize import resize_bicubic
from skipsr.skipping.dial import default_dial
from skipsr.skipping.light import FOLDS, PLACE, LightUpsampler, LightUpsamplers, preset_of
from skipsr.skipping.need import CELL
from skipsr.train.collected import Collection
from skipsr.train.fitting import fit_network, random_turn
from skipsr.train.loop import Log, ReportProgress
from skipsr.train.settings import TrainSettings

RECIPE = "light"
SETTINGS = TrainSettings(
    model=RECIPE,
    steps=4000,
    batch=12,  # frames
    crop=320,
    frames=5,
    degradation=Degradation(clean=0.55, strength=0.6),
    learning_rate=3e-3,
    warmup=100,
    ema=0.998,
    latents=400,  # clips
    log_every=200,
)
_FAINT = 0.2  # of the tau from which cells are run


@dataclass(frozen=True, slots=True)
class Samples:
    """LR frames, and what a network adds to their bicubic upsampling."""

    frames: Tensor  # n inputs h w, uint8, folded
    added: Tensor  # n 48 h w, float16


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Shares of the cells of held-out samples that differ from the network's by no more than the
    usual tau."""

    bicubic: float
    light: float


def train(
    data: ClipDataset,
    settings: TrainSettings,
    out: Path,
    *,
    device: str = "cpu",
    report: ReportProgress = lambda _stage, _progress: None,
) -> tuple[LightUpsamplers, Mapping[str, Fit]]:
    """Collect what is not yet in `out/samples`, and fit.

    Returns:
        The upsamplers on the CPU, and how good each is, by model, on crops that it was not fitted
        to, though of the same files.
    """
    folder = out / "samples"
    COLLECTION.collect(data, settings, folder, device=device, report=report)
    lights, found = LightUpsamplers(), dict[str, Fit]()
    for model in FOLDS:
        preset = preset_of(model)
        parts = COLLECTION.read_apart(settings, folder, model)
        known, others = (
            Samples(**{key: each.flatten(0, 1) for key, each in part.items()}) for part in parts
        )
        stage, tau = f"fit {model}", default_dial(model).tau
        log = Log(out / f"{preset}.jsonl", settings, lambda p, stage=stage: report(stage, p))
        lights[preset] = fit(known, settings, tau, device=device, log=log)
        found[model] = served_by(lights[preset], others, tau)
    return lights.eval().requires_grad_(False), found


def measure(upscaler: Upscaler, high: Tensor, low: Tensor) -> dict[str, Tensor]:
    """Every other frame of an LR clip `t 3 h w`, and what a model adds to it; see `Samples`."""
    size = high.shape[2], high.shape[3]
    frames, results = low[1::2], upscaler.upscale(Clip(low), size).clip.frames[1::2]
    added = F.pixel_unshuffle(results.cpu() - resize_bicubic(frames, size), PLACE)
    folded = F.pixel_unshuffle(frames, PLACE * low.shape[3] // size[1])
    return {"frames": folded.mul(255).round().byte(), "added": added.half()}


COLLECTION = Collection(models=tuple(FOLDS), measure=measure, first=200_000, shard=40)


def fit(
    samples: Samples,
    settings: TrainSettings,
    tau: float,
    *,
    device: str = "cpu",
    log: Log | None = None,
) -> LightUpsampler:
    """An upsampler with the averaged weights, on the CPU; the same seed gives the same one.

    Its loss is the mean over cells of the squared error by that of bicubic upsampling, so that a
    cell counts the same whether a network adds little to it or much; below `_FAINT` taus, which
    nobody would run, it counts less.
    """
    torch.manual_seed(settings.seed)
    light = LightUpsampler(samples.frames.shape[1]).to(device)

    def loss_of(generator: torch.Generator) -> Tensor:
        which = torch.randint(len(samples.frames), (settings.batch,), generator=generator)
        folded, added = samples.frames[which].to(device) / 255, samples.added[which].to(device)
        folded, added = _turned(folded, added.float(), generator)
        wrong, before = (_by_cells(gap) for gap in (light(folded) - added, added))
        return (wrong / (before + _FAINT * tau)).mean()

    fit_network(light, settings, loss_of, log)
    return light.cpu()


@torch.no_grad()
def served_by(light: nn.Module, samples: Samples, tau: float) -> Fit:
    """How many cells of the samples it serves."""
    added = samples.added.float()
    guessed = light(samples.frames / 255)
    served = [(_by_cells(gap) <= tau).float().mean().item() for gap in (added, guessed - added)]
    return Fit(bicubic=served[0], light=served[1])


def _turned(folded: Tensor, planes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Both turned and flipped alike, at random: folded frames `n inputs h w`, planes `n 48 h w`."""
    turn, fold = random_turn(generator), math.isqrt(folded.shape[1] // 3)
    pair = (folded, fold), (planes, PLACE)
    folded, planes = (F.pixel_unshuffle(turn(F.pixel_shuffle(x, k)), k) for x, k in pair)
    return folded, planes


def _by_cells(gap: Tensor) -> Tensor:
    """The mean square of planes `n 48 h w` in each cell: `n h/4 w/4`."""
    return reduce(gap.square(), "n c (h p) (w q) -> n h w", "mean", p=CELL, q=CELL)
