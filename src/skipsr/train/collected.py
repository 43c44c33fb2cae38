"""What models make of degraded clips, collected once and kept in files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import safetensors.torch
import torch
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.data.clips import ClipDataset
from skipsr.loading import load_upscaler
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.train.loop import ReportProgress, TrainProgress
from skipsr.train.need import draw_sample, scale_of
from skipsr.train.settings import TrainSettings
from skipsr.weights.save import save_tensors

Measure = Callable[[Upscaler, Tensor, Tensor], Mapping[str, Tensor]]
"""From a model and a clip `t 3 h w`, high resolution and degraded, to what is kept of it."""


def collect_faithful(
    models: Sequence[str],
    shards: Sequence[range],
    measure: Measure,
    data: ClipDataset,
    settings: TrainSettings,
    folder: Path,
    *,
    device: str,
    report: ReportProgress,
) -> None:
    """Write the shards of samples that are not there yet, of every model, drawn faithfully.

    Args:
        shards: numbers of the samples in each file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = perf_counter()
    for model in models:
        upscaler: Upscaler | None = None
        scale = scale_of(model)
        for numbers in shards:
            path = _path(folder, model, numbers)
            if path.exists():
                continue
            if upscaler is None:
                runtime = RuntimeSettings(device=device, dtype="float32")
                faithful = {"detail": 0.0}
                upscaler = load_upscaler(model, SkipSettings(dense=True), runtime, faithful)
            found = [measure(upscaler, *draw_sample(data, settings, i, scale)) for i in numbers]
            save_tensors(
                path, {key: torch.stack([each[key] for each in found]) for key in found[0]}
            )
            done = numbers.stop - shards[0].start
            report(model, TrainProgress(done, settings.latents, perf_counter() - began, {}))


def read_collected(model: str, shards: Sequence[range], folder: Path) -> dict[str, Tensor]:
    """All that was collected of a model: what `measure` gave, `n ...`."""
    parts = [safetensors.torch.load_file(_path(folder, model, numbers)) for numbers in shards]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _path(folder: Path, model: str, numbers: range) -> Path:
    return folder / f"{model.replace(':', '-')}-{numbers.start:06}.safetensors"
