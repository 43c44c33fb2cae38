"""From a recipe's name to trained weights in a folder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from skipsr.backbones import family
from skipsr.backbones.trainable import Denoiser
from skipsr.data.clips import ClipDataset
from skipsr.errors import Interrupted, SettingsError, WeightsError
from skipsr.files import atomic_write
from skipsr.loading import load_networks
from skipsr.train import doubt, light, need, surroundings
from skipsr.train.batches import BatchSource, ClipSource, LatentSource, data_digest, latents_name
from skipsr.train.kept import KeptSource, larger, samples_name, shard_count
from skipsr.train.loop import ReportProgress, TrainProgress, train
from skipsr.train.own import load_own
from skipsr.train.parallel import Parallel, leave, processes, whole
from skipsr.train.recipes import RECIPES, Recipe, Stage
from skipsr.train.settings import TrainSettings
from skipsr.train.state import read_state
from skipsr.weights.save import save_tensors

WEIGHTS = "model.safetensors"
_NOTE = "data.txt"  # among samples: what they are of
# small networks without stages
_FITTED = {part.RECIPE: part for part in (light, surroundings, need, doubt)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPaths:
    """Paths of a run: its data, and where it leaves its results."""

    data: Path  # clips and images
    out: Path  # state, log and weights
    start: Path | None = None  # weights to begin from: a folder, or the file with the network
    cache: Path | None = None  # the decoded data; in memory if there is none
    latents: Path | None = None  # latents of the frozen encoder; computed anew each time if None

    def dataset(self, settings: TrainSettings) -> ClipDataset:
        """The crops that the settings ask for; larger ones where they are cut again."""
        crop, frames = settings.crop, settings.frames
        if settings.samples:
            crop, frames = larger(settings)
        return ClipDataset(
            self.data, crop=crop, frames=frames, seed=settings.seed, cache=self.cache
        )


def run_recipe(
    name: str,
    paths: RunPaths,
    *,
    resume: bool = False,
    device: str = "cpu",
    report: ReportProgress = lambda _stage, _progress: None,
) -> Path:
    """Train a recipe; returns the file of averaged weights, `out/model.safetensors`.

    Under `torchrun` every process calls this, and together they do the one run.

    Args:
        name: that of a recipe, or `FILE.py:NAME`, see `load_own`.

    Raises:
        SettingsError: for an unknown recipe, one that goes on from weights without a `start`, or a
            folder that already holds a run when not resuming.
        MediaError: when `data` holds nothing usable.
        WeightsError: when `start` does not fit, or there is nothing to resume.
        Interrupted: after Ctrl-C or TERM; what was done is kept, to be resumed.
    """
    try:
        found = _find(name)
        if isinstance(found, TrainSettings):
            return _run_fit(found, paths, resume=resume, device=device, report=report)
        return _run_stages(name, found, paths, resume=resume, device=device, report=report)
    except Interrupted:
        raise
    except KeyboardInterrupt:  # before the first step, or between two stages
        begun = any(paths.out.glob("*/state.pt")) or (paths.out / "samples").exists()
        raise Interrupted(
            f"interrupted; what {paths.out} holds is kept: go on with `resume`"
            if begun
            else "interrupted; no step was saved yet: run it again"
        ) from None


def _run_stages(
    name: str,
    recipe: Recipe,
    paths: RunPaths,
    *,
    resume: bool,
    device: str,
    report: ReportProgress,
) -> Path:
    begun = any((paths.out / stage.name / "state.pt").exists() for stage in recipe.stages)
    _check_begun(paths.out, begun=begun, resume=resume)
    if paths.latents is not None:
        for stage in recipe.stages:
            if stage.objective.reads == "clips":
                raise SettingsError(f"stage {stage.name} trains on pixels: leave out `latents`")
    needed = paths.latents is not None or not begun  # the start's autoencoder, or all of it
    if recipe.start is not None and paths.start is None and needed:
        raise SettingsError(f"{name} goes on from {recipe.start}: give these weights as `start`")
    try:
        return run(recipe, paths, device=device, report=report)
    finally:
        leave()


def _check_begun(out: Path, *, begun: bool, resume: bool) -> None:
    if begun and not resume:
        raise SettingsError(f"{out} already holds a run; give `resume`, or another `out`")
    if resume and not begun:
        raise WeightsError(f"{out} holds no run to resume; run without `resume` first")


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or by `FILE.py:NAME`.

    Raises:
        SettingsError: for an unknown one, with the names there are, or one that has no stages.
    """
    found = _find(name)
    if isinstance(found, TrainSettings):
        raise SettingsError(f"{name} has no stages to plan: it fits a small network on one device")
    return found


def check_recipe(name: str) -> None:
    """Raises SettingsError for an unknown recipe, with the names there are."""
    _find(name)


def _find(name: str) -> Recipe | TrainSettings:
    """A recipe, or the settings of what is fitted without stages."""
    found = load_own(name) if ".py" in name else RECIPES.get(name)
    if found is None and name in _FITTED:
        return _FITTED[name].SETTINGS
    if found is None:
        known = ", ".join([*RECIPES, *_FITTED])
        raise SettingsError(
            f"unknown recipe {name!r}; there are {known}, or FILE.py:NAME for one of yours"
        )
    if isinstance(found, TrainSettings) and found.model not in _FITTED:
        *others, last = _FITTED
        known = f"{', '.join(others)} and {last}"
        raise SettingsError(
            f"{name}: settings without stages are for {known}; make a Recipe of these"
        )
    return found


def _run_fit(
    settings: TrainSettings,
    paths: RunPaths,
    *,
    resume: bool,
    device: str,
    report: ReportProgress,
) -> Path:
    """Train small networks that belong to no one model, on samples collected once.

    Writes how well they do on samples that they were not fitted to, too: `out/{name}.json`.
    Resuming keeps the samples that were collected, and fits anew.
    """
    name, out = settings.model, paths.out
    if processes() > 1:
        raise SettingsError(f"{name} is fitted by one process: start it without torchrun")
    if paths.start is not None or paths.latents is not None:
        raise SettingsError(f"{name} begins from nothing: leave out `start` and `latents`")
    collected = (out / "samples").glob("*")
    _check_begun(out, begun=any(file.name != _NOTE for file in collected), resume=resume)
    data = paths.dataset(settings)
    _check_samples(out / "samples", data, settings)
    predictor, found = _FITTED[name].train(data, settings, out, device=device, report=report)
    (out / f"{name}.json").write_text(json.dumps(found, default=asdict, indent=1))
    _note_data(data, out)
    metadata = {"model": name, "heads": json.dumps([*found]), "settings": repr(settings)}
    return export(predictor, out / WEIGHTS, metadata)


def _check_samples(folder: Path, data: ClipDataset, settings: TrainSettings) -> None:
    """Refuse to go on with samples of other data or settings; note what new ones are of."""
    told = settings.crop, settings.frames, settings.degradation, settings.seed, settings.latents
    digest, note = data_digest(data, told), folder / _NOTE
    if not note.exists():  # samples of before are taken as they are
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(note) as part:
            part.write_text(digest)
    if note.read_text() != digest:
        raise SettingsError(f"{folder} holds samples of other data or settings; use another `out`")


def run(
    recipe: Recipe,
    paths: RunPaths,
    *,
    device: str = "cpu",
    report: ReportProgress = lambda _stage, _progress: None,
) -> Path:
    """Train the stages one after another, each from where the last one ended.

    Each has a folder of its own; what is done is not done again.
    """
    start, folder = paths.start, paths.out
    for stage in recipe.stages:
        folder = paths.out / stage.name
        if not _finished(stage, folder):
            parallel = Parallel.start(device, stage.settings.sequence)
            _train_stage(stage, paths, start, parallel, lambda p, n=stage.name: report(n, p))
        start = folder / WEIGHTS
    result = paths.out / WEIGHTS
    everyone = Parallel.start(device, 1)
    if everyone.leads:
        with atomic_write(result) as part:
            shutil.copyfile(folder / WEIGHTS, part)
    everyone.wait()
    return result


def _finished(stage: Stage, folder: Path) -> bool:
    state = folder / "state.pt"
    if not (state.exists() and (folder / WEIGHTS).exists()):
        return False
    return read_state(state, mmap=True)["step"] >= stage.settings.steps


def _train_stage(
    stage: Stage,
    paths: RunPaths,
    start: Path | None,
    parallel: Parallel,
    report: Callable[[TrainProgress], None],
) -> None:
    settings, folder = stage.settings, paths.out / stage.name
    backbone, _ = family(settings.model)
    torch.manual_seed(settings.seed)
    model = load_networks(settings.model, start).to(parallel.device)
    dataset = paths.dataset(settings)
    clips = ClipSource(dataset, settings, backbone.training_input)
    source: BatchSource = clips
    if settings.samples:
        kept = (paths.cache or paths.out) / samples_name(dataset, settings)
        source = KeptSource(kept, settings, backbone.training_input)
        source.fill(dataset, parallel.shares(shard_count(settings)))
        parallel.wait()
    if paths.latents is not None:
        assert isinstance(model, Denoiser)
        latents = LatentSource(paths.latents / latents_name(model, dataset, settings), settings)
        latents.fill(model, clips, parallel)
        source = latents
    resume = (folder / "state.pt").exists()
    model = train(
        model, stage.objective, settings, source, folder,
        parallel=parallel, data=data_digest(dataset, None), resume=resume, report=report,
    )  # fmt: skip
    metadata = {"model": settings.model, "settings": repr(asdict(settings))}
    exported = model
    if stage.exports is not None:
        assert isinstance(model, Denoiser)
        exported = model.part(stage.exports)
    export(exported, folder / WEIGHTS, metadata, write=parallel.leads)
    if parallel.leads:
        _note_data(dataset, folder)
    parallel.wait()


def _note_data(dataset: ClipDataset, folder: Path) -> None:
    used = {"used": dataset.sources, "left out": dataset.excluded}
    (folder / "data.json").write_text(json.dumps(used, indent=1))


def export(model: nn.Module, path: Path, metadata: dict[str, str], *, write: bool = True) -> Path:
    """Write all weights as float16 and buffers as they are, aside first and then in place.

    Sharded weights are put together by all processes; the one that should `write` does.
    """
    weights = {k for k, _ in model.named_parameters()}
    tensors = {
        k: whole(v.half() if k in weights else v).detach().cpu().contiguous()
        for k, v in model.state_dict().items()
    }
    if write:
        save_tensors(path, tensors, metadata)
    return path
