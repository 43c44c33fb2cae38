"""The verb `eval`: which of the evaluations is asked for, and what it prints."""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from skipsr.errors import SettingsError
from skipsr.evaluation.settings import EvalSettings
from skipsr.settings import AUTO, RuntimeSettings, SkipSettings

if TYPE_CHECKING:
    from skipsr.backbones.contract import Upscaler

FolderPath = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
_DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure a model on a folder of clips: tables, a page to look at, and a last line as JSON.

    Instead of that, --masks analyses what skipping costs, --study makes a blind comparison with
    --against, --score counts its votes, and --ablation compares ways to skip at equal cost.
    """

    folder: FolderPath = None
    """Clips to measure on: videos, images, or a known benchmark's folders; left out with
    --score."""
    model: str = AUTO
    """Model name, see `skipsr models list`; auto takes what --weights holds, or skipvsr:nano."""
    against: str | None = None
    """Compare with this model too, or with `dense`: the same model with everything computed."""
    against_weights: Path | None = None
    """Files of the model in --against, if it is not bundled."""
    results: tuple[Path, ...] = ()
    """Also measure what other programs made: folders with a video or image per clip, named as the
    clips."""
    out: Path = Path("skipsr-eval")
    """Folder for the results; those of an earlier run in it are replaced."""
    reconstruct: bool = False
    """Also measure the autoencoder alone: the truth, encoded and decoded."""
    masks: bool = False
    """Analyse the masks: what swapping skipped cells costs, and how good the predictor is."""
    study: bool = False
    """Make a page that shows the model and --against side by side, blind, and collects votes."""
    score: tuple[Path, ...] = ()
    """Count these votes.json of a study; takes --key and no DIR."""
    key: Path | None = None
    """The study-key.json of the study."""
    ablation: str | None = None
    """Compare ways to choose what is computed, at equal cost: those of this family, skipvsr, with
    the model of --model."""
    budgets: tuple[float, ...] = ()
    """Shares of the dense FLOPs at which --ablation compares; by default 0.9 0.75 0.6 0.45."""
    variants: tuple[Path, ...] = ()
    """Other trainings for --ablation, a file of weights or a folder with one each: they run with
    their own choice, tuned to the same cost."""
    evaluation: EvalSettings = field(default_factory=EvalSettings)
    skip: SkipSettings = field(default_factory=SkipSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def run(self) -> None:
        self._check()
        if self.score:
            self._score()
            return
        from skipsr.evaluation.record import check_folder

        assert self.folder is not None
        check_folder(self.out)
        if self.masks:
            self._masks(self.folder)
        elif self.study:
            self._study(self.folder)
        elif self.ablation is not None:
            self._ablation(self.folder, self.ablation)
        else:
            self._quality(self.folder)

    def _check(self) -> None:
        """Refuse what does not go together."""
        modes = {
            "--masks": self.masks,
            "--study": self.study,
            "--score": bool(self.score),
            "--ablation": self.ablation is not None,
        }
        chosen = [name for name, given in modes.items() if given]
        if len(chosen) > 1:
            raise SettingsError(f"{' and '.join(chosen)} are different jobs: give one of them")
        if bool(self.score) != (self.key is not None):
            raise SettingsError("--score VOTES.json and --key STUDY-KEY.json go together")
        if self.score and self.folder is not None:
            raise SettingsError(f"--score takes no DIR: leave out {self.folder}")
        if not self.score and self.folder is None:
            raise SettingsError("give DIR, the folder of clips to measure on, or --score and --key")
        if self.study and self.against is None:
            raise SettingsError("--study compares two: give the other model as --against")
        if self.masks and self.against is not None:
            raise SettingsError("--masks analyses one model: leave out --against")
        if self.reconstruct and chosen:
            raise SettingsError(f"--reconstruct adds to the tables, and {chosen[0]} makes none")
        if self.results and chosen:
            raise SettingsError(f"--results adds to the tables, and {chosen[0]} makes none")
        names = [folder.name for folder in self.results]
        if len(set(names)) < len(names):
            raise SettingsError(f"--results has two folders of one name: {' '.join(names)}")
        if self.study and self.evaluation.metrics:
            raise SettingsError("--study measures nothing: leave out --metrics")
        if self.against_weights is not None and self.against in (None, _DENSE):
            raise SettingsError("--against-weights needs another model as --against")
        for name in ("budget", "quality", "speed"):
            if self.masks and getattr(self.skip, name) is not None:
                raise SettingsError(f"--masks compares thresholds: leave out --{name}")
        if self.skip.dense and (self.masks or self.against == _DENSE):
            raise SettingsError("--dense leaves nothing to skip: leave it out here")

        if self.ablation is None:
            if self.budgets or self.variants:
                raise SettingsError("--budgets and --variants go with --ablation")
        elif self.against is not None:
            raise SettingsError("--ablation compares policies: leave out --against")
        elif self.skip != SkipSettings():
            raise SettingsError(
                "--ablation sets what is skipped and how: leave out --quality, --speed, --budget, "
                "--threshold, --tau, --skip, --reuse, --patches and --dense"
            )

    def _quality(self, folder: Path) -> None:
        from skipsr.evaluation.page import save_page
        from skipsr.evaluation.quality import Contest, measure_quality
        from skipsr.evaluation.results import print_line, save_quality
        from skipsr.evaluation.ruler import choose_metrics
        from skipsr.evaluation.samples import choose_items

        choose_metrics(self.evaluation.metrics)
        choose_items(folder, self.evaluation)  # a bad job ends before a model is loaded
        upscalers = self._load()
        quality, album = measure_quality(
            folder,
            Contest(upscalers=upscalers, reconstruct=self.reconstruct, results=self.results),
            self.evaluation,
            self._record(folder, upscalers),
            _tell,
        )
        save_quality(quality, self.out)
        page = save_page(quality, album, self.out)
        print(print_line(quality, page))

    def _masks(self, folder: Path) -> None:
        from skipsr.evaluation.mask_page import save_masks_page
        from skipsr.evaluation.mask_results import print_line, save_masks
        from skipsr.evaluation.masks import analyse_masks
        from skipsr.evaluation.ruler import choose_full_reference
        from skipsr.evaluation.samples import choose_items

        choose_full_reference(self.evaluation.metrics)
        choose_items(folder, self.evaluation)
        upscalers = self._load()
        (upscaler,) = upscalers.values()
        record = self._record(folder, upscalers)
        study = analyse_masks(folder, upscaler, self.skip, self.evaluation, record, _tell)
        save_masks(study, self.out)
        page = save_masks_page(study, self.out)
        print(print_line(study, page))

    def _study(self, folder: Path) -> None:
        from skipsr.evaluation.samples import choose_items
        from skipsr.evaluation.study import make_study

        choose_items(folder, self.evaluation)
        upscalers = self._load()
        record = self._record(folder, upscalers)
        print(make_study(folder, upscalers, self.evaluation, self.out, record, _tell))

    def _ablation(self, folder: Path, family: str) -> None:
        from skipsr.evaluation.ablation import (
            BUDGETS,
            Comparison,
            check_budgets,
            choose_ablation_metrics,
            find_ablation,
            run_ablation,
        )
        from skipsr.evaluation.ablation_page import save_ablation_page
        from skipsr.evaluation.ablation_results import print_line, save_ablation
        from skipsr.evaluation.samples import choose_items

        budgets = self.budgets or BUDGETS
        check_budgets(budgets)
        find_ablation(family)
        choose_ablation_metrics(self.evaluation)
        choose_items(folder, self.evaluation)
        upscalers = self._load_variants()
        comparison = Comparison(family=family, upscalers=upscalers, budgets=budgets)
        record = self._record(folder, upscalers)
        record["settings"]["ablation"] = {"family": family, "budgets": budgets}
        study = run_ablation(folder, comparison, self.evaluation, record, _tell)
        save_ablation(study, self.out)
        page = save_ablation_page(study, self.out)
        print(print_line(study, page))

    def _score(self) -> None:
        from skipsr.evaluation.record import to_line
        from skipsr.evaluation.votes import score_votes

        assert self.key is not None
        print(to_line(score_votes(self.score, self.key).as_dict()))

    def _load(self) -> "Mapping[str, Upscaler]":
        """The models by their names in the tables; the first is the one in question."""
        from skipsr.cli.allocator import map_blocks_from
        from skipsr.loading import find_model, load_upscaler

        model = find_model(self.model, self.runtime)
        map_blocks_from(model.backbone.mapped_from)
        first = model.load(self.skip)
        name = f"{first.name}, dense" if self.skip.dense else first.name
        if self.against is None:
            return {name: first}
        if self.against == _DENSE:
            skip = SkipSettings(dense=True)
            return {name: first, f"{name}, dense": model.load(skip)}
        runtime = dataclasses.replace(self.runtime, weights=self.against_weights)
        second = load_upscaler(self.against, self.skip, runtime)
        label = f"{second.name}, dense" if self.skip.dense else second.name
        if label == name:
            label = self._second_label(label)
        return {name: first, label: second}

    def _load_variants(self) -> "Mapping[str, Upscaler]":
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

    def _second_label(self, name: str) -> str:
        """A name for the same model with other weights."""
        if self.against_weights == self.runtime.weights:
            raise SettingsError(
                f"--against {self.against} is the model itself: give another, or `dense`"
            )
        return f"{name}, {self.against_weights.name if self.against_weights else 'bundled'}"

    def _record(self, folder: Path, upscalers: "Mapping[str, Upscaler]") -> dict[str, Any]:
        from skipsr.evaluation.record import describe_run

        settings = {
            "eval": dataclasses.asdict(self.evaluation),
            "skip": dataclasses.asdict(self.skip),
            "runtime": dataclasses.asdict(self.runtime),
        }
        first = next(iter(upscalers.values()))
        return describe_run(folder, list(upscalers), first, settings)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
