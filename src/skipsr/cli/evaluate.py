"""The verb `eval`: its evaluations, what each is told, and what it prints."""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from skipsr.cli.flags import FamilyOptions
from skipsr.errors import MediaError, SettingsError
from skipsr.settings import AUTO, ClipSettings, EvalSettings, RuntimeSettings, SkipSettings

if TYPE_CHECKING:
    from skipsr.backbones.contract import Upscaler
    from skipsr.evaluation.clips import ClipFolder
    from skipsr.evaluation.report import EvaluationReport

FolderPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
VotesPaths = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VOTES")]
_DENSE = "dense"
_WITH_MASKS = "seedvr2:nano"  # bundled, and has an autoencoder


@dataclass(frozen=True, kw_only=True)
class _OnClips:
    """What runs a model on a folder of clips."""

    folder: FolderPath
    """Clips to measure on: videos, images, or the folders of a known benchmark."""
    model: str = AUTO
    """Model name, see `skipsr models list`; auto is the one in --weights, or skipvsr:nano."""
    out: Path = Path("skipsr-eval")
    """Folder for the results; results of an earlier run in it are replaced."""
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def _find_clips(self, settings: ClipSettings, *, truths: bool = False) -> "ClipFolder":
        """What is measured on; a bad job ends before a model is loaded."""
        from skipsr.evaluation.clips import find_clips
        from skipsr.evaluation.record import check_folder

        check_folder(self.out)
        return find_clips(self.folder, settings, _tell, truths=truths)

    def _record(
        self,
        upscalers: "dict[str, Upscaler]",
        eval: ClipSettings,
        **parts: SkipSettings | Mapping[str, object],
    ) -> dict[str, Any]:
        from skipsr.evaluation.record import describe_networks, describe_run

        told = {"eval": eval, **parts, "runtime": self.runtime}
        settings = {
            name: dict(part) if isinstance(part, Mapping) else dataclasses.asdict(part)
            for name, part in told.items()
        }
        first = next(iter(upscalers.values()))
        record = describe_run(self.folder, list(upscalers), first, settings)
        return {**record, **describe_networks(upscalers, eval.scale)}

    def _publish(self, report: "EvaluationReport") -> None:
        print(report.line(report.save(self.out)))

    def _refuse_faults(self, faults: Mapping[str, str], measured: int) -> None:
        """After the results: they are not those of the whole folder."""
        if faults:
            count = len(faults)
            raise MediaError(f"{count} of {count + measured} clips left out: {', '.join(faults)}")


@dataclass(frozen=True, kw_only=True)
class _OfTwo(_OnClips):
    """What can run a second model beside the first."""

    against: str | None = None
    """Also compare with this model, or with "dense": the same model with everything computed."""
    against_weights: Path | None = None
    """Files of the model in --against, if it is not bundled."""
    skip: SkipSettings = field(default_factory=SkipSettings)
    family: FamilyOptions = field(default_factory=FamilyOptions)

    def _find_clips(self, settings: ClipSettings, *, truths: bool = False) -> "ClipFolder":
        if self.against_weights is not None and self.against in (None, _DENSE):
            raise SettingsError("--against-weights needs another model as --against")
        if self.skip.dense and self.against == _DENSE:
            raise SettingsError("--dense leaves nothing to compare: leave it out here")
        return super()._find_clips(settings, truths=truths)

    def _record(
        self,
        upscalers: "dict[str, Upscaler]",
        eval: ClipSettings,
        **parts: SkipSettings | Mapping[str, object],
    ) -> dict[str, Any]:
        return super()._record(
            upscalers, eval=eval, **parts, skip=self.skip, options=self.family.given
        )

    def _load(self) -> "dict[str, Upscaler]":
        """The models by their names in the tables; the first is the one in question."""
        from skipsr.loading import find_model, load_upscaler

        model = find_model(self.model, self.runtime, self.family.given)
        first = model.load(self.skip)
        name = f"{first.name}, dense" if self.skip.dense else first.name
        if self.against is None:
            return {name: first}
        if self.against == _DENSE:
            skip = SkipSettings(dense=True)
            return {name: first, f"{name}, dense": model.load(skip)}
        runtime = dataclasses.replace(self.runtime, weights=self.against_weights)
        second = load_upscaler(self.against, self.skip, runtime, self.family.given)
        label = f"{second.name}, dense" if self.skip.dense else second.name
        if label == name:
            if self.against_weights == self.runtime.weights:
                raise SettingsError(
                    f"--against {self.against} is the model itself: give another, or dense"
                )
            label += f", {self.against_weights.name if self.against_weights else 'bundled'}"
        return {name: first, label: second}


@dataclass(frozen=True, kw_only=True)
class Run(_OfTwo):
    """Measure a model on a folder of clips (also plain `skipsr eval DIR`): writes tables and a web
    page; the last line printed is JSON."""

    results: tuple[Path, ...] = ()
    """Also measure results of other programs: folders with a file, or a folder of frames, per clip,
    of the same name."""
    reconstruct: bool = False
    """Also measure the autoencoder alone: the ground truth, encoded and decoded."""
    evaluation: EvalSettings = field(default_factory=EvalSettings)

    def run(self) -> None:
        from skipsr.evaluation.metric_suite import choose_metrics
        from skipsr.evaluation.page import quality_report
        from skipsr.evaluation.quality import Methods, measure_quality

        names = [folder.name for folder in self.results]
        if len(set(names)) < len(names):
            raise SettingsError(f"--results has two folders of one name: {' '.join(names)}")
        choose_metrics(self.evaluation.metrics)
        clips = self._find_clips(self.evaluation)
        upscalers = self._load()
        methods = Methods(upscalers=upscalers, reconstruct=self.reconstruct, results=self.results)
        record = self._record(upscalers, eval=self.evaluation)
        quality, gallery = measure_quality(clips, methods, self.evaluation, record)
        self._publish(quality_report(quality, gallery))
        self._refuse_faults(quality.faults, len(quality.clips))


@dataclass(frozen=True, kw_only=True)
class Masks(_OnClips):
    """Analyse a diffusion model's masks: what replacing cells costs, how good the predictor is."""

    model: str = AUTO
    """Diffusion model, see `skipsr models list`; auto is the one in --weights, or seedvr2:nano."""
    tau: float | None = None
    """Largest mean squared error, pixels in 0 to 1, of a skippable token; 0.0002 by default."""
    threshold: float | None = None
    """Probability at or above which the predictor keeps a token, 0 to 1; 0.5 by default."""
    evaluation: EvalSettings = field(default_factory=EvalSettings)

    def run(self) -> None:
        from skipsr.evaluation.mask_results import mask_report
        from skipsr.evaluation.masks import analyse_masks
        from skipsr.evaluation.metric_suite import choose_full_reference
        from skipsr.loading import load_upscaler

        skip = SkipSettings(tau=self.tau, threshold=self.threshold)
        choose_full_reference(self.evaluation.metrics)
        clips = self._find_clips(self.evaluation, truths=True)
        unnamed = self.model == AUTO and self.runtime.weights is None
        upscaler = load_upscaler(_WITH_MASKS if unnamed else self.model, skip, self.runtime)
        record = self._record({upscaler.name: upscaler}, eval=self.evaluation, skip=skip)
        study = analyse_masks(clips, upscaler, skip, self.evaluation, record)
        self._publish(mask_report(study))
        self._refuse_faults(study.faults, len(study.clips))


@dataclass(frozen=True, kw_only=True)
class Study(_OfTwo):
    """Make a page for a blind side-by-side comparison of two models that collects votes."""

    evaluation: ClipSettings = field(default_factory=ClipSettings)

    def run(self) -> None:
        from skipsr.research.study import make_study

        if self.against is None:
            raise SettingsError("a study compares two: give the other model as --against")
        clips = self._find_clips(self.evaluation)
        upscalers = self._load()
        record = self._record(upscalers, eval=self.evaluation)
        study = make_study(clips, upscalers, self.evaluation, self.out, record)
        print(study.page)
        self._refuse_faults(study.faults, len(study.clips))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Count the votes of a study."""

    votes: VotesPaths
    """The votes.json of each rater."""
    key: Path
    """The study-key.json of the study."""

    def run(self) -> None:
        from skipsr.evaluation.record import to_line
        from skipsr.research.votes import score_votes

        if not self.votes:
            raise SettingsError("there is nothing to count: give the votes.json of each rater")
        print(to_line(score_votes(self.votes, self.key).as_dict()))


@dataclass(frozen=True, kw_only=True)
class Ablation(_OnClips):
    """Compare policies for what a recurrent model computes, at equal cost."""

    budgets: tuple[float, ...] = (0.9, 0.75, 0.6, 0.45)
    """Shares of the dense FLOPs at which they are compared."""
    variants: tuple[Path, ...] = ()
    """Other trained versions of the model, each a weight file or a folder with one: they run with
    their own policy, tuned to the same cost."""
    evaluation: EvalSettings = field(default_factory=EvalSettings)

    def run(self) -> None:
        from skipsr.loading import find_model
        from skipsr.research.ablation import check_ablation, run_ablation
        from skipsr.research.ablation_report import ablation_report

        name = find_model(self.model, self.runtime).name
        check_ablation(name, self.budgets, self.evaluation)
        clips = self._find_clips(self.evaluation, truths=True)
        upscalers = self._load()
        record = self._record(upscalers, eval=self.evaluation)
        record["settings"]["ablation"] = {"budgets": self.budgets}
        study = run_ablation(clips, upscalers, self.budgets, self.evaluation, record)
        self._publish(ablation_report(study))
        self._refuse_faults(study.faults, len(study.clips))

    def _load(self) -> "dict[str, Upscaler]":
        """The model and its variants, dense, by name; a variant's is that of its file or folder."""
        from skipsr.loading import load_upscaler

        dense = SkipSettings(dense=True)
        first = load_upscaler(self.model, dense, self.runtime)
        found = {first.name: first}
        for path in self.variants:
            name = path.stem if path.is_file() else path.name
            if name in found:
                raise SettingsError(f"--variants {path}: another one is named {name}; rename it")
            runtime = dataclasses.replace(self.runtime, weights=path)
            found[name] = load_upscaler(AUTO, dense, runtime)  # its tensors say which preset it is
        return found


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure models on a folder of clips; `skipsr eval DIR` is short for `skipsr eval run DIR`."""

    action: (
        Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Masks, tyro.conf.subcommand("masks")]
        | Annotated[Study, tyro.conf.subcommand("study")]
        | Annotated[Score, tyro.conf.subcommand("score")]
        | Annotated[Ablation, tyro.conf.subcommand("ablation")]
    )

    def run(self) -> None:
        self.action.run()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
