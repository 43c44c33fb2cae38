"""A whole model on a clip, dense and skipped."""

import dataclasses
from functools import partial

import torch
import torch.nn.functional as F

from skipsr.backbones.contract import Upscaler
from skipsr.bench.measure import Measured, matmul_ceiling, measure_in_turn
from skipsr.bench.networks import Loaded
from skipsr.bench.report import BenchReport, Row
from skipsr.bench.settings import BenchSettings
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.compute_map import ComputeMap

_PROBE = 0.5  # a budget that all models can keep


def bench_model(loaded: Loaded, settings: BenchSettings, skip: SkipSettings) -> BenchReport:
    """Dense, and as `skip` says or at every share of `settings`, in turn.

    Standing places are computed anew, so that a share is what its name says.

    Raises:
        SettingsError: for a clip that the model cannot take, or a share that it cannot skip.
    """
    smallest = loaded.backbone.limits(loaded.config).smallest
    if min(settings.height, settings.width) < smallest:
        raise SettingsError(f"{loaded.name} takes frames of at least {smallest} pixels a side")
    size = settings.size
    clip = make_clip(settings.frames, settings.height, settings.width)
    networks = loaded.networks()

    def made(way: SkipSettings) -> Upscaler:
        way = dataclasses.replace(way, reuse="off")
        return loaded.backbone.upscaler(loaded.name, way, loaded.options)(networks)

    ways = {"dense": made(SkipSettings(dense=True))}
    if settings.skip_share:
        if skip.asked:
            raise SettingsError(f"give `skip_share` or `{next(iter(skip.asked))}`, not both")
        probe = made(SkipSettings(budget=_PROBE)).compute_map(clip, size)
        if probe.fraction >= 1:
            raise SettingsError(f"{loaded.name} skips nothing of this clip: give a larger one")
        for share in settings.skip_share:
            budget = probe.always + (1 - probe.always) * (1 - share)
            ways[f"{share:g} skipped"] = made(SkipSettings(budget=budget))
    elif not skip.dense:
        upscaler = made(skip)
        told = ", ".join(f"{name} {value:g}" for name, value in upscaler.asked.items())
        ways[told] = upscaler
    runs = [partial(upscaler.upscale, clip, size) for upscaler in ways.values()]
    found = measure_in_turn(runs, loaded.device, settings.rounds)
    rows = [
        _row(name, upscaler.compute_map(clip, size), measured)
        for (name, upscaler), measured in zip(ways.items(), found, strict=True)
    ]
    return BenchReport.of(
        loaded,
        rows,
        weights=loaded.weights,
        ceiling=matmul_ceiling(loaded.device, loaded.dtype),
        rounds=settings.rounds,
        shape={
            "frames": settings.frames,
            "from": [settings.height, settings.width],
            "to": list(size),
        },
    )


def _row(name: str, computed: ComputeMap, measured: Measured) -> Row:
    """What is skipped of all units, what runs of each stage, and how fast."""
    rate = len(computed.fractions) / measured.seconds
    more = {"shares": dict(computed.stages), "frames_per_second": rate}
    return Row(name=name, skipped=1 - computed.fraction, measured=measured, more=more)


def make_clip(frames: int, height: int, width: int) -> Clip:
    """Texture that drifts by a pixel a frame, from nothing in some places to strong in others."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((3, height + frames, width + frames), generator=generator) - 0.5
    coarse = torch.rand((1, 1, 5, 7), generator=generator)
    field = F.interpolate(coarse, noise.shape[1:], mode="bicubic", align_corners=True)[0]
    picture = (0.3 + 0.4 * field + noise * field.clamp(0, 1).square()).clamp(0, 1)
    shown = [picture[:, i : i + height, i : i + width] for i in range(frames)]
    return Clip(torch.stack(shown))
