"""One step of a diffusion transformer, whole and with tokens skipped in several ways."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from skipsr.backbones.seedvr2.config import DiTConfig, SeedVR2Config
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.bench.measure import Measured, matmul_ceiling, measure_in_turn
from skipsr.bench.mechanisms import Step
from skipsr.bench.networks import Loaded, fill_zeros, place
from skipsr.bench.report import BenchReport, Row
from skipsr.bench.settings import BenchSettings, Mechanism
from skipsr.errors import SettingsError
from skipsr.timeline import TOKEN_SIDE, token_layer
from skipsr.train.masks import smooth_mask

_SHARES = (0.277, 0.396, 0.6)
PAPER = {0.0: (2001, 6.41), 0.277: (1343, 4.47), 0.396: (1135, 3.85)}
"""By share skipped: TFLOPs and seconds a step of SkipSR 3B, Tables 2 and 3 of arXiv 2510.08799."""


@torch.inference_mode()
def bench_transformer(loaded: Loaded, settings: BenchSettings) -> BenchReport:
    """Dense, and for every share and mechanism, in turn.

    Tokens are skipped by smooth random masks; noise and condition are random.

    Raises:
        SettingsError: for a model without a diffusion transformer, or another shape of files.
    """
    dit, source, config = _transformer(loaded, settings)
    device, dtype = loaded.device, loaded.dtype
    grid = _grid(settings)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    text = random(config.text_tokens, dit.config.text_width)
    cells = random(grid[0] * grid[1] * grid[2], 4, dit.config.in_channels)
    time = torch.tensor(1000.0, device=device)
    asked: Sequence[tuple[float, Mechanism | None]] = [
        (0.0, None),
        *((share, way) for share in settings.skip_share or _SHARES for way in settings.mechanism),
    ]
    masks = {share: _mask(grid, share, generator).to(device) for share, _ in asked}
    steps = {share: Step.of(dit, keep, config.text_tokens) for share, keep in masks.items()}
    runs = [
        partial(steps[share].run, mechanism or "route", cells, text, time)
        for share, mechanism in asked
    ]
    found = measure_in_turn(runs, device, settings.rounds)
    skipped = [1 - steps[share].route.fraction for share, _ in asked]
    rows = [
        Row(
            name=mechanism or "dense",
            skipped=share,
            measured=measured,
            more=_beside(paper, measured, found[0]),
        )
        for (paper, mechanism), share, measured in zip(asked, skipped, found, strict=True)
    ]
    shape = {"layers": dit.config.layers, "features": dit.config.width}
    return BenchReport.of(
        loaded,
        rows,
        weights=source,
        ceiling=matmul_ceiling(device, dtype),
        rounds=settings.rounds,
        shape={"tokens": list(grid), "text_tokens": config.text_tokens, **shape},
    )


def _beside(share: float, measured: Measured, dense: Measured) -> dict[str, Any]:
    """Ratios to the dense step, and the paper's own where it has that share."""
    if share not in PAPER or not share:
        return {}
    work, seconds = (a / b for a, b in zip(PAPER[share], PAPER[0.0], strict=True))
    return {
        "paper_flop_ratio": work,
        "paper_time_ratio": seconds,
        "flop_ratio": measured.tflop / dense.tflop,
        "time_ratio": measured.seconds / dense.seconds,
    }


def _mask(grid: tuple[int, int, int], share: float, generator: torch.Generator) -> Tensor:
    if not share:
        return torch.ones(grid, dtype=torch.bool)
    return smooth_mask(grid, 1 - share, generator)


def _grid(settings: BenchSettings) -> tuple[int, int, int]:
    """Tokens `(t, h, w)` of the clip, padded as the model pads."""
    rows, columns = (-(-side // TOKEN_SIDE) for side in settings.size)
    return token_layer(settings.frames - 1) + 1, rows, columns


def _transformer(loaded: Loaded, settings: BenchSettings) -> tuple[DiT, str, SeedVR2Config]:
    """The model's own, or one of another shape; where its weights are from; its configuration."""
    config = loaded.config
    if not isinstance(config, SeedVR2Config):
        raise SettingsError(
            f"`mechanism` is for models with a diffusion transformer, and {loaded.name} has none: "
            "give `model` seedvr2:3b"
        )
    if not loaded.files or settings.layers or settings.features:
        with loaded.device:
            dit = DiT(_shaped(config.dit, settings))
        fill_zeros(dit)
        return place(dit, loaded), "random", config
    networks: nn.Module = loaded.networks()
    assert isinstance(networks, SeedVR2)
    return networks.dit, loaded.weights, config


def _shaped(config: DiTConfig, settings: BenchSettings) -> DiTConfig:
    """With other layers and features, as many of them apart and as wide heads in proportion."""
    layers = settings.layers or config.layers
    features = settings.features or config.width
    if features % config.head_dim:
        raise SettingsError(
            f"`features` {features} is no multiple of {config.head_dim}, the width of a head"
        )
    return replace(
        config,
        layers=layers,
        width=features,
        heads=features // config.head_dim,
        separate_layers=min(layers, round(config.separate_layers * layers / config.layers)),
    )
