"""Train the need predictor, which tells from an LR frame what skipping each cell would cost.

Errors of cells are collected once, on degraded clips, and the network is fitted to them.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from skipsr import backbones
from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.data.clips import ClipDataset
from skipsr.data.degrade import Degradation
from skipsr.loading import load_upscaler
from skipsr.nn.resize import resize_bicubic
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.skipping.need import CELL, HEADS, Need, NeedPredictor
from skipsr.skipping.oracle import down_then_up
from skipsr.train.batches import generator_of
from skipsr.train.fitting import fit_network, random_turn
from skipsr.train.loop import Log, ReportProgress, TrainProgress
from skipsr.train.settings import TrainSettings
from skipsr.weights.save import save_tensors

RECIPE = "need"
SETTINGS = TrainSettings(
    model=RECIPE,
    steps=4000,
    batch=16,  # frames
    crop=320,  # more would leave out most of the sources
    frames=5,
    degradation=Degradation(clean=0.55, strength=0.6),
    learning_rate=2e-3,
    warmup=100,
    ema=0.998,
    latents=344,  # samples
    log_every=200,
)
SMALLEST = 1e-8  # errors below are as good as none
_LOST, *_MODELS = HEADS
_SCALE = 4  # from the frames that the predictor sees to the result
_SHARD = 40  # samples in a file
_HELD_OUT = 8  # every eighth sample is not fitted to
_TAUS = (1e-6, 1e-2)  # thresholds of the loss are drawn between these
_QUESTIONS = 6  # taus in each step
_SHOWN = (3e-5, 1e-4, 3e-4)  # taus of the report


@dataclass(frozen=True, slots=True)
class Samples:
    """Degraded clips at a quarter of the result's size, and ln errors of their cells."""

    frames: Tensor  # n t 3 h w, uint8
    errors: Tensor  # n t k h/4 w/4, one for each of `HEADS`; NaN: not of these frames

    def __len__(self) -> int:
        return self.frames.shape[0]

    def select(self, index: Tensor) -> "Samples":
        return Samples(self.frames[index], self.errors[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Shares of cells that can be skipped at one mean loss, by their true and predicted order."""

    oracle: float
    predicted: float


def train(
    data: ClipDataset,
    settings: TrainSettings,
    out: Path,
    *,
    device: str = "cpu",
    report: ReportProgress = lambda _stage, _progress: None,
) -> tuple[NeedPredictor, Mapping[str, Mapping[str, Share]]]:
    """Collect what is not yet in `out/samples`, and fit.

    Writes `out/log.jsonl`, too.

    Returns:
        The predictor on the CPU, and shares by head and tau, of samples that it was not fitted to:
        other crops, though of the same files.
    """
    out.mkdir(parents=True, exist_ok=True)
    collect(data, settings, out / "samples", device=device, report=report)
    samples = read_samples(out / "samples", settings)
    held = held_out(settings.latents).repeat(len(samples) // settings.latents)  # at every scale
    log = Log(out / "log.jsonl", settings, lambda progress: report("fit", progress))
    predictor = fit(samples.select(~held), settings, device=device, log=log)
    return predictor, measure(predictor, samples.select(held))


# samples


def collect(
    data: ClipDataset,
    settings: TrainSettings,
    folder: Path,
    *,
    device: str = "cpu",
    report: ReportProgress = lambda _stage, _progress: None,
) -> None:
    """Write the shards of samples that are not there yet.

    They hold frames, what plain upsampling loses of them, and what every model of `HEADS` changes.
    Models that enlarge by four can as well be run elsewhere, on the frames, and their shards put
    beside these. For others the same clips are degraded anew, and what is kept of their frames is
    what the predictor sees.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards, began = _shards(settings), time.perf_counter()

    def done(what: str, shard: int) -> None:
        report(what, TrainProgress(shard + 1, len(shards), time.perf_counter() - began, {}))

    for i, numbers in enumerate(shards):
        if _path(folder, _LOST, i).exists() and _path(folder, "frames", i).exists():
            continue
        drawn = [draw_sample(data, settings, number) for number in numbers]
        frames = torch.stack([low for _, low in drawn]).mul(255).round().byte()
        _write(_path(folder, "frames", i), frames)
        _write(_path(folder, _LOST, i), torch.stack([lost(*pair) for pair in drawn]).half())
        done(_LOST, i)
    for head in _MODELS:
        scale = scale_of(head)
        for i, upscaler in _missing(folder, head, len(shards), device):
            if scale == _SCALE:
                clips = _read(_path(folder, "frames", i)).float() / 255
            else:
                drawn = (draw_sample(data, settings, number, scale) for number in shards[i])
                clips = torch.stack([low for _, low in drawn])
                _write(_path(folder, _frames_of(scale), i), _seen(clips, scale))
            changes = torch.stack([change(upscaler, low, scale) for low in clips])
            _write(_path(folder, head, i), changes.half())
            done(head, i)


def _missing(folder: Path, head: str, shards: int, device: str) -> Iterator[tuple[int, Upscaler]]:
    """Shards of a model that are not there yet, and the model, loaded if there are any."""
    both = head, _frames_of(scale_of(head))
    there = [all(_path(folder, what, i).exists() for what in both) for i in range(shards)]
    if missing := [i for i in range(shards) if not there[i]]:
        runtime = RuntimeSettings(device=device, dtype="float32")
        upscaler = load_upscaler(head, SkipSettings(dense=True), runtime)
        yield from ((i, upscaler) for i in missing)


def scale_of(head: str) -> int:
    """By how much the frames of a head's samples are enlarged: by four, or as its model does."""
    if head == _LOST:
        return _SCALE
    backbone, preset = backbones.family(head)
    return backbone.limits(backbone.presets[preset]).scale or _SCALE


def _frames_of(scale: int) -> str:
    """The name of the shards of LR frames of a scale."""
    return "frames" if scale == _SCALE else f"frames-x{scale}"


def _seen(clips: Tensor, scale: int) -> Tensor:
    """Of LR clips `n t 3 h w` what the predictor sees, at a quarter of the result; uint8."""
    means = F.avg_pool2d(clips.flatten(0, 1), _SCALE // scale)
    return means.unflatten(0, clips.shape[:2]).mul(255).round().byte()


def draw_sample(
    data: ClipDataset, settings: TrainSettings, number: int, scale: int = _SCALE
) -> tuple[Tensor, Tensor]:
    """A training clip, `t 3 h w` each: high resolution, and degraded, on the 8-bit grid."""
    high = data.sample(number, 0)
    degradation = replace(settings.degradation, scale=scale)
    low = degradation(high[None], generator_of(settings, number, 0, use=0))[0]
    return rearrange(high, "c t h w -> t c h w"), rearrange(low, "c t h w -> t c h w")


def lost(high: Tensor, low: Tensor) -> Tensor:
    """ln of what plain upsampling loses, `t h w` of LR cells.

    That is the error of the upsampled `low`, or the oracle's of `high` where it is more: on clean
    footage about the paper's, and on damaged footage the base is not good enough where the damage
    is.
    """
    shown = resize_bicubic(low, (high.shape[2], high.shape[3]))
    plain = down_then_up(rearrange(high, "t c h w -> 1 c t h w"))
    plain = rearrange(plain, "1 c t h w -> t c h w")
    return torch.maximum(cell_errors(high, shown), cell_errors(high, plain))


def change(upscaler: Upscaler, low: Tensor, scale: int = _SCALE) -> Tensor:
    """ln of what a model changes about the upsampled `low` (`t 3 h w`), `t h w` of cells."""
    clip, size = Clip(low), (scale * low.shape[2], scale * low.shape[3])
    shown = upscaler.upsample(clip, size).frames
    return cell_errors(upscaler.upscale(clip, size).clip.frames, shown)


def cell_errors(one: Tensor, other: Tensor) -> Tensor:
    """ln of the mean squared difference of two clips `t 3 h w` in every cell, or of `SMALLEST`."""
    side = _SCALE * CELL
    gap = (one - other).square()
    error = reduce(gap, "t c (h p) (w q) -> t h w", "mean", p=side, q=side)
    return error.clamp(min=SMALLEST).log()


def read_samples(folder: Path, settings: TrainSettings) -> Samples:
    """All that was collected: the clips at scale 4, then again at every other."""
    parts = [_read_part(folder, settings, scale) for scale in dict.fromkeys(map(scale_of, HEADS))]
    frames, errors = zip(*parts, strict=True)
    return Samples(torch.cat(frames), torch.cat(errors))


def _read_part(folder: Path, settings: TrainSettings, scale: int) -> tuple[Tensor, Tensor]:
    """Frames and errors of the samples of one scale."""

    def read(what: str) -> Tensor:
        return torch.cat([_read(_path(folder, what, i)) for i in range(len(_shards(settings)))])

    frames = read(_frames_of(scale))
    n, t, _, h, w = frames.shape
    errors = torch.full((n, t, len(HEADS), h // CELL, w // CELL), torch.nan)
    for k, head in enumerate(HEADS):
        if scale_of(head) == scale:
            errors[:, :, k] = read(head).float()
    return frames, errors


def shards_of(numbers: range, size: int) -> list[range]:
    """Numbers of the samples in each file, of at most `size`."""
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def held_out(count: int) -> Tensor:
    """Which of so many samples are not fitted to: bool `count`."""
    return torch.arange(count) % _HELD_OUT == _HELD_OUT - 1


def _shards(settings: TrainSettings) -> list[range]:
    return shards_of(range(settings.latents), _SHARD)


def _path(folder: Path, what: str, shard: int) -> Path:
    return folder / f"{what.replace(':', '-')}-{shard:05}.safetensors"


def _write(path: Path, tensor: Tensor) -> None:
    save_tensors(path, {"": tensor.contiguous()})


def _read(path: Path) -> Tensor:
    return safetensors.torch.load_file(path)[""]


# fit


def fit(
    samples: Samples, settings: TrainSettings, *, device: str = "cpu", log: Log | None = None
) -> NeedPredictor:
    """A predictor with the averaged weights, on the CPU; the same seed gives the same one."""
    torch.manual_seed(settings.seed)
    predictor = NeedPredictor().to(device)

    def loss_of(generator: torch.Generator) -> Tensor:
        frames, errors = _batch(samples, settings.batch, generator)
        return cross_entropy(predictor(frames.to(device)), errors.to(device), _taus(generator))

    fit_network(predictor, settings, loss_of, log)
    return predictor.cpu().eval().requires_grad_(False)


def cross_entropy(need: Need, errors: Tensor, taus: Tensor) -> Tensor:
    """Binary cross-entropy of whether errors exceed tau, averaged over `taus` and cells not NaN.

    Over many taus a proper score of the whole distribution, which does not mind that errors pile up
    at `SMALLEST`, and spends nothing on how small an error is that no tau asks for.
    """
    there = ~errors.isnan()
    mean, spread, errors = (x[there] for x in (need.mean, need.spread, errors))
    taus = rearrange(taus.log().to(errors), "m -> m 1")
    logits = (mean - taus) / spread
    return F.binary_cross_entropy_with_logits(logits, (errors > taus).to(logits))


def _taus(generator: torch.Generator) -> Tensor:
    """Some, one in each equal part of the range of their logarithms."""
    low, high = (math.log(tau) for tau in _TAUS)
    places = (torch.arange(_QUESTIONS) + torch.rand(_QUESTIONS, generator=generator)) / _QUESTIONS
    return torch.exp(low + (high - low) * places)


def _batch(samples: Samples, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Frames `b 3 h w` in [0, 1] of as many samples, turned and flipped alike, and their errors."""
    n, t = samples.frames.shape[:2]
    which = torch.randint(n, (size,), generator=generator)
    when = torch.randint(t, (size,), generator=generator)
    turn = random_turn(generator)
    pair = samples.frames[which, when].float() / 255, samples.errors[which, when]
    frames, errors = (turn(x) for x in pair)
    return frames, errors


# figures


@torch.no_grad()
def measure(predictor: NeedPredictor, samples: Samples) -> dict[str, dict[str, Share]]:
    """Shares that can be skipped, by head and tau; errors that are NaN are left out.

    They count cells of all samples whose error is at most tau, and as many of those with the least
    predicted need as lose no more in all.
    """
    needs = [predictor(frames.float() / 255) for frames in samples.frames]  # a clip's frames each
    found: dict[str, dict[str, Share]] = {}
    for k, head in enumerate(HEADS):
        there = ~samples.errors[:, :, k].isnan()
        errors = samples.errors[:, :, k][there].exp().double()
        found[head] = {}
        for tau in _SHOWN:
            need = torch.stack([need.probability(tau)[:, k] for need in needs])[there]
            lost = errors[errors <= tau].sum()
            kept = errors[need.argsort(stable=True)].cumsum(0) <= lost * (1 + 1e-9)
            oracle = (errors <= tau).double().mean().item()
            found[head][f"{tau:g}"] = Share(oracle=oracle, predicted=kept.double().mean().item())
    return found
