"""What models make of degraded clips, collected once and kept in files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from skipsr.train.need import draw_sample, held_out, scale_of, shards_of
from skipsr.train.settings import TrainSettings
from skipsr.weights.save import save_tensors

Measure = Callable[[Upscaler, Tensor, Tensor], Mapping[str, Tensor]]
"""From a model and a clip `t 3 h w`, high resolution and degraded, to what is kept of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Samples of some models, which are run faithfully on clips that are drawn by number.

    Attributes:
        first: number of the first clip; what others are fitted to has other numbers.
        shard: clips in a file.
    """

    models: Sequence[str]
    measure: Measure
    first: int
    shard: int

    def collect(
        self,
        data: ClipDataset,
        settings: TrainSettings,
        folder: Path,
        *,
        device: str = "cpu",
        report: ReportProgress = lambda _stage, _progress: None,
    ) -> None:
        """Write the files that are not there yet, of every model."""
        folder.mkdir(parents=True, exist_ok=True)
        began = perf_counter()
        for model in self.models:
            upscaler: Upscaler | None = None
            scale = scale_of(model)
            for numbers in self._shards(settings):
                path = _path(folder, model, numbers)
                if path.exists():
                    continue
                if upscaler is None:
                    runtime = RuntimeSettings(device=device, dtype="float32")
                    faithful = {"detail": 0.0}
                    upscaler = load_upscaler(model, SkipSettings(dense=True), runtime, faithful)
                drawn = (draw_sample(data, settings, i, scale) for i in numbers)
                found = [self.measure(upscaler, *pair) for pair in drawn]
                save_tensors(
                    path, {key: torch.stack([each[key] for each in found]) for key in found[0]}
                )
                done = numbers.stop - self.first
                report(model, TrainProgress(done, settings.latents, perf_counter() - began, {}))

    def read(self, settings: TrainSettings, folder: Path, model: str) -> dict[str, Tensor]:
        """All that was collected of a model: what `measure` gave, `clips ...`."""
        paths = (_path(folder, model, numbers) for numbers in self._shards(settings))
        parts = [safetensors.torch.load_file(path) for path in paths]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def read_apart(
        self, settings: TrainSettings, folder: Path, model: str
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The same of the clips that are fitted to, and of those that are held out."""
        found, held = self.read(settings, folder, model), held_out(settings.latents)
        known, others = (
            {key: value[which] for key, value in found.items()} for which in (~held, held)
        )
        return known, others

    def _shards(self, settings: TrainSettings) -> list[range]:
        return shards_of(range(self.first, self.first + settings.latents), self.shard)


def _path(folder: Path, model: str, numbers: range) -> Path:
    return folder / f"{model.replace(':', '-')}-{numbers.start:06}.safetensors"
