"""From a recipe's name to trained weights in a folder."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch

from skipsr.backbones import family
from skipsr.data.clips import ClipDataset
from skipsr.errors import SettingsError, WeightsError
from skipsr.train.loop import Progress, train
from skipsr.train.recipes import RECIPES, Recipe
from skipsr.weights.load import load_strictly, read_tensors


def run_recipe(
    name: str,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    cache: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    report: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Train a named recipe; returns the file of averaged weights, `out/model.safetensors`.

    Raises:
        SettingsError: for an unknown recipe, or a folder that already holds a run when not
        resuming.
        MediaError: when `data` holds nothing usable.
        WeightsError: when `start` does not fit, or there is nothing to resume.
    """
    if name not in RECIPES:
        raise SettingsError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    if (out / "state.pt").exists() and not resume:
        raise SettingsError(f"{out} already holds a run; give --resume, or another --out")
    if resume and not (out / "state.pt").exists():
        raise WeightsError(f"{out} holds no run to resume; run without --resume first")
    return run(
        RECIPES[name](),
        data,
        out,
        start=start,
        cache=cache,
        resume=resume,
        device=device,
        report=report,
    )


def run(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    cache: Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    report: Callable[[Progress], None] = lambda _: None,
    stop_at: int | None = None,
) -> Path:
    """Train a recipe; see `run_recipe`. `stop_at` leaves off early, as an interruption would."""
    settings = recipe.settings
    backbone, preset = family(settings.model)
    torch.manual_seed(settings.seed)
    model = backbone.build(backbone.presets[preset])
    if start is not None:
        load_strictly(model, {k: v.float() for k, v in read_tensors(start).items()}, settings.model)
    dataset = ClipDataset(
        data, crop=settings.crop, frames=settings.frames, seed=settings.seed, cache=cache
    )
    model = train(
        model.to(device), recipe.objective, settings, dataset, out,
        resume=resume, upsample=backbone.resize, report=report, stop_at=stop_at,
    )  # fmt: skip
    (out / "data.json").write_text(
        json.dumps({"used": dataset.sources, "left out": dataset.excluded}, indent=1)
    )
    return export(
        model,
        out / "model.safetensors",
        {"model": settings.model, "settings": repr(asdict(settings))},
    )


def export(model: torch.nn.Module, path: Path, metadata: dict[str, str]) -> Path:
    """Write all weights as float16 and buffers as they are, aside first and then in place."""
    weights = {k for k, _ in model.named_parameters()}
    tensors = {
        k: (v.half() if k in weights else v).detach().cpu().contiguous()
        for k, v in model.state_dict().items()
    }
    aside = path.with_suffix(".part.safetensors")
    safetensors.torch.save_file(tensors, aside, metadata=metadata)
    aside.replace(path)
    return path
