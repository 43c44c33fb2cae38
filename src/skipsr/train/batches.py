"""The batches of a run: clips cut and degraded as needed, or latents computed once and kept."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import safetensors
import torch
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.trainable import Denoiser
from skipsr.data.clips import ClipDataset
from skipsr.train.objective import (
    Batch,
    ClipBatch,
    Generators,
    LatentBatch,
    map_tensors,
    to_latents,
)
from skipsr.train.parallel import Parallel
from skipsr.train.settings import TrainSettings
from skipsr.weights.save import save_tensors

_SHARD = 64  # samples in a file
_PROBES = 8  # crops by which data are known


BatchSource = Callable[[int, Sequence[int]], Batch]
"""From a step and places in its batch to clips, which depend on these and the seed alone."""


@dataclass(frozen=True, slots=True)
class ClipSource:
    """Random crops, degraded, and prepared as the model reads them."""

    data: ClipDataset
    settings: TrainSettings
    training_input: Callable[[Tensor, tuple[int, int]], Tensor]  # of the model's backbone

    def __call__(self, step: int, places: Sequence[int]) -> ClipBatch:
        return batch_of(self._pair, self.settings, step, places)

    def _pair(self, step: int, place: int) -> tuple[Tensor, Tensor]:  # c t h w each
        high = self.data.sample(step, place)
        generator = generator_of(self.settings, step, place, use=0)
        low = self.settings.degradation(high[None], generator)[0]
        size = high.shape[2], high.shape[3]
        base = self.training_input(rearrange(low, "c t h w -> t c h w"), size)
        return high, rearrange(base, "t c h w -> c t h w")


def batch_of(
    pair: Callable[[int, int], tuple[Tensor, Tensor]],
    settings: TrainSettings,
    step: int,
    places: Sequence[int],
) -> ClipBatch:
    """A step's batch of what `pair` gives for the step and each place: HR and base, `c t h w`."""
    pairs = [pair(step, place) for place in places]
    high, base = (torch.stack(clips) for clips in zip(*pairs, strict=True))
    return ClipBatch(high, base, generators_of(settings, step, places))


def generators_of(settings: TrainSettings, step: int, places: Iterable[int]) -> Generators:
    """The randomness of the losses of some clips of a step."""
    return tuple(generator_of(settings, step, place, use=1) for place in places)


def generator_of(settings: TrainSettings, step: int, place: int, *, use: int) -> torch.Generator:
    """Randomness of one clip and one use of it, on the CPU."""
    state = np.random.SeedSequence([settings.seed, step, place, use]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


class LatentSource:
    """Latents and oracle errors of `settings.latents` samples, in a folder of whole shards.

    The samples are those of the first steps of a `ClipSource`; every pass over them has an order of
    its own. Float16 on disk.
    """

    def __init__(self, folder: Path, settings: TrainSettings) -> None:
        self._folder, self._settings = folder, settings
        self._shards = -(-settings.latents // _SHARD)

    def __call__(self, step: int, places: Sequence[int]) -> LatentBatch:
        count, first = self._shards * _SHARD, step * self._settings.batch
        samples: list[dict[str, Tensor]] = []
        for place in places:
            turn, rank = divmod(first + place, count)
            samples.append(self._read(visiting_order(self._settings.seed, turn, count)[rank]))
        high, base, errors = (
            torch.stack([sample[name] for sample in samples]).float()
            for name in ("high", "base", "errors")
        )
        return LatentBatch(high, base, errors, generators_of(self._settings, step, places))

    def _read(self, number: int) -> dict[str, Tensor]:
        shard, row = divmod(number, _SHARD)
        with safetensors.safe_open(self.path(shard), "pt") as file:
            return {name: file.get_slice(name)[row] for name in ("high", "base", "errors")}

    def path(self, shard: int) -> Path:
        return self._folder / f"shard-{shard:05}.safetensors"

    def fill(self, model: Denoiser, clips: ClipSource, parallel: Parallel) -> None:
        """Compute the shards that are not there yet; the processes divide them among themselves."""
        self._folder.mkdir(parents=True, exist_ok=True)
        batch = self._settings.batch
        for shard in parallel.shares(self._shards):
            if self.path(shard).exists():
                continue
            kept: dict[str, list[Tensor]] = {"high": [], "base": [], "errors": []}
            for number in range(shard * _SHARD, (shard + 1) * _SHARD):
                one = clips(number // batch, [number % batch])
                moved = map_tensors(one, lambda x: x.to(parallel.device))
                with self._settings.autocast(parallel.device):
                    latents = to_latents(model, moved)
                kept["high"].append(latents.high.half().cpu())
                kept["base"].append(latents.base.half().cpu())
                kept["errors"].append(latents.errors.cpu())
            save_tensors(self.path(shard), {k: torch.cat(v) for k, v in kept.items()})
        parallel.wait()


@lru_cache(maxsize=2)  # a batch lies in one pass over the samples, or in two
def visiting_order(seed: int, turn: int, count: int) -> list[int]:
    """In which order a pass visits the samples."""
    return np.random.default_rng([seed, turn]).permutation(count).tolist()


def latents_name(model: Denoiser, data: ClipDataset, settings: TrainSettings) -> str:
    """Name of the folder for these latents: another encoder, data or crop is another folder."""
    told = (settings.crop, settings.frames, settings.degradation, settings.seed, settings.batch)
    digest = hashlib.sha256(data_digest(data, (settings.model, settings.bfloat16, told)).encode())
    autoencoder: nn.Module = model.part("autoencoder")
    for name, value in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def data_digest(data: ClipDataset, told: object) -> str:
    """A hash of settings and of data, by their names and a few crops: names may stay where files
    have changed."""
    digest = hashlib.sha256(repr((told, data.sources)).encode())
    for place in range(_PROBES):
        digest.update(data.sample(0, place).numpy().tobytes())
    return digest.hexdigest()
