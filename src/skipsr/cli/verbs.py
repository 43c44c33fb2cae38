"""The verbs: their arguments, taken from the settings, and what they print. The work is elsewhere.

Heavy modules are imported inside `run`, so that help and bad arguments answer at once.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Protocol

import tyro

from skipsr.cli.batch import Batch
from skipsr.cli.bench import Bench
from skipsr.cli.evaluate import Eval
from skipsr.cli.flags import InputPath, ModelJob, OutputPath, check_ends
from skipsr.cli.jobs import Jobs
from skipsr.cli.pipe import Pipe
from skipsr.cli.preview import Mask, Preview
from skipsr.cli.shots import Shots
from skipsr.errors import SettingsError, WeightsError
from skipsr.files import check_there
from skipsr.settings import AUTO, DType, JobSettings, RuntimeSettings
from skipsr.web.settings import WebSettings

FilePath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
WeightsPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="WEIGHTS")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]


class Verb(Protocol):
    """Something the command line can do."""

    def run(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Upscale(ModelJob):
    """Upscale a video, an image or a folder of images. The last line printed is a JSON report."""

    input: InputPath
    """Video, image, or folder of images."""
    output: OutputPath
    """Video (.mp4 .mkv .mov .webm ...), image, or folder to write."""

    def run(self) -> None:
        check_ends(self.input, self.output, self.job)
        from skipsr.cli.progress import show_progress
        from skipsr.pipeline.job import run_job
        from skipsr.pipeline.plan import plan_job

        model = self.find()
        plan = plan_job(self.input, self.output, model.limits, self.job)
        with show_progress() as watch:
            report = run_job(plan, model.load(self.skip, plan.memory), watch)
        print(report.to_json(input=str(self.input), output=str(self.output)))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Show how a job would be run, how much memory it would take, and why. Needs no weights and no
    GPU; of weights that are given, only the headers are read. The last line printed is JSON."""

    input: InputPath
    """Video, image, or folder of images."""
    model: str = AUTO
    """Model name, see `skipsr models list`; auto is the one in --weights, or skipvsr:nano."""
    weights: Path | None = None
    """Weights to plan for: a folder, or the file with the network. Without them, the model is
    planned as published, not quantised."""
    job: JobSettings = field(default_factory=JobSettings)
    device: str = "auto"
    """Device to plan for, cuda or cpu; by default that of this machine. A GPU need not be present
    if --max-memory says how much memory it has."""
    dtype: DType = "auto"
    """Precision of the networks; auto is bfloat16 on cuda and float32 on cpu."""

    def run(self) -> None:
        check_there(self.input)  # before the seconds that torch takes to import
        from skipsr.devices import resolve
        from skipsr.loading import planned_limits
        from skipsr.pipeline.outlook import foresee

        device = self.device
        if device == AUTO:  # memory of other devices than cards is the host's
            device = "cuda" if resolve(RuntimeSettings())[0].type == "cuda" else "cpu"
        name, limits = planned_limits(self.model, device, self.dtype, self.weights)
        outlook = foresee(self.input, name, device, limits, self.job)
        print("\n".join(outlook.lines()))
        print(outlook.to_json())


@dataclass(frozen=True, kw_only=True)
class ModelsList:
    """List the available models."""

    def run(self) -> None:
        from skipsr.catalog import list_models
        from skipsr.loading import BUNDLED

        for model in list_models():
            if model.bundled:
                source = "bundled"
            elif model.fetched:
                source = f"fetched: {model.fetched}"
            elif model.download:
                size = f"{model.download / 1e9:.1f} GB"
                source = f"needs its files: skipsr models fetch {model.name} ({size}), or --weights"
            else:
                source = "needs files of yours: --weights FOLDER or FILE"
            if model.name == BUNDLED:
                source += "; runs when no model is named"
            print(f"{model.name:16} {source}")


@dataclass(frozen=True, kw_only=True)
class ModelsFetch:
    """Download a model's published files from the Hugging Face Hub, verified by SHA-256; run it
    again to resume a failed download, or to verify what is there."""

    model: Model
    """Model name, such as seedvr2:3b."""
    to: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder to put them into; by default skipsr's own, where models are found by name."""

    def run(self) -> None:
        from skipsr.catalog import fetch_model
        from skipsr.cli.progress import show_bytes

        with show_bytes() as watch:
            print(fetch_model(self.model, self.to, watch))


@dataclass(frozen=True, kw_only=True)
class ModelsIdentify:
    """Identify a weight file, from its header alone."""

    file: FilePath
    """A .safetensors, .gguf, .pth or .pt file."""

    def run(self) -> None:
        from skipsr.loading import identify_file

        match = identify_file(self.file)
        if match is None:
            raise WeightsError(f"{self.file}: none of its tensors belongs to a model we know")
        if not match.exact:
            raise WeightsError(f"{self.file}: nearest to {match.title}, but {match.describe()}")
        print(f"{self.file}: {match.title}")


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the models (also plain `skipsr models`), download the files of one, or identify a weight
    file."""

    action: (
        Annotated[ModelsList, tyro.conf.subcommand("list")]
        | Annotated[ModelsFetch, tyro.conf.subcommand("fetch")]
        | Annotated[ModelsIdentify, tyro.conf.subcommand("identify")]
    )

    def run(self) -> None:
        self.action.run()


@dataclass(frozen=True, kw_only=True)
class Train:
    """Run a training recipe; the choices are in the recipe, not in flags."""

    recipe: Name
    """Name of the recipe, or FILE.py:NAME for one of yours; an unknown name lists them all."""
    data: Path | None = None
    """Folder of clips and images; a MANIFEST.csv in it restricts what may be used."""
    out: Path | None = None
    """Folder for the training state, the log and the weights."""
    resume: bool = False
    """Resume from the state in --out."""
    start: Path | None = None
    """Weights to start from: a folder of published files, or the file with the network."""
    cache: Path | None = None
    """Folder for the decoded data; by default inside --out."""
    latents: Path | None = None
    """Folder in which to keep the frozen encoder's latents, for recipes that need no pixels."""
    plan: bool = False
    """Only print what each device will have to store and compute; needs no data."""
    devices: int = 1
    """Number of devices to plan for. To train on several: torchrun --nproc-per-node N -m skipsr
    train ..."""
    device: str = "auto"
    """Device to compute on."""

    def run(self) -> None:
        from skipsr.devices import resolve
        from skipsr.train.loop import TrainProgress
        from skipsr.train.plan import plan_stage
        from skipsr.train.run import RunPaths, check_recipe, find_recipe, run_recipe

        if self.devices < 1:
            raise SettingsError(f"--devices {self.devices} is less than one")
        if self.plan:
            for stage in find_recipe(self.recipe).stages:
                plan = plan_stage(stage, self.devices, latents=self.latents is not None)
                print("\n".join(plan.lines()))
            return
        check_recipe(self.recipe)
        if self.devices > 1:
            raise SettingsError(
                f"--devices {self.devices} is for --plan: to train on as many, start it with "
                f"torchrun --nproc-per-node {self.devices} -m skipsr train"
            )
        if self.data is None or self.out is None:
            raise SettingsError("training needs --data and --out; --plan alone needs neither")
        cache = self.cache or self.out / "cache"
        paths = RunPaths(
            data=self.data, out=self.out, start=self.start, cache=cache, latents=self.latents
        )
        device, _ = resolve(RuntimeSettings(device=self.device))

        def report(stage: str, progress: TrainProgress) -> None:
            print(stage, progress.line(), file=sys.stderr, flush=True)

        print(run_recipe(self.recipe, paths, resume=self.resume, device=str(device), report=report))


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Find the thresholds at which a trained model meets its budgets, on a folder of clips; needed
    once, after training routers."""

    model: Model
    """Model name, see `skipsr models list`."""
    weights: WeightsPath
    """File with the whole network and its routers, or a folder with one."""
    data: Path
    """Folder of high-resolution videos, or of folders of frames."""
    out: Path
    """File to write, .safetensors: the same weights with the thresholds."""
    clips: int = 12
    """Largest number of clips to use; if there are more, a selection from the whole list."""
    frames: int = 12
    """Largest number of frames to use of each."""
    fit: bool = False
    """Also fit the routers, in closed form, for weights that have none or to replace theirs."""
    device: str = "auto"
    """Device to compute on."""

    def run(self) -> None:
        from skipsr.devices import resolve
        from skipsr.train.calibrate import CalibrationClips, calibrate_model

        clips = CalibrationClips(data=self.data, clips=self.clips, frames=self.frames)
        device, _ = resolve(RuntimeSettings(device=self.device))
        found = calibrate_model(
            self.model, self.weights, clips, self.out, device=device, fit=self.fit
        )
        print("budget  threshold")
        for budget, threshold in found.tolist():
            print(f"{budget:6.3f}  {threshold:.5f}")
        print(self.out)


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve the web interface: drop a file, watch progress, compare input and result, download."""

    web: WebSettings = field(default_factory=WebSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def run(self) -> None:
        try:
            from skipsr.web.serve import serve
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
                raise
            raise SettingsError('the page needs more: pip install "skipsr[web]"') from None
        if self.runtime.weights is not None:
            from skipsr.loading import find_model

            find_model(runtime=self.runtime)  # bad weights end it here
        serve(self.web, self.runtime, lambda link: print(f"skipsr is at {link}", flush=True))


_EVERY = (
    Upscale, Preview, Plan, Batch, Pipe, Mask, Shots, Models, Train, Calibrate, Eval, Bench, Jobs,
    Serve,
)  # fmt: skip
VERBS: Mapping[str, Callable[..., Verb]] = MappingProxyType(
    {verb.__name__.lower(): verb for verb in _EVERY}
)
