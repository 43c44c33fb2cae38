"""Ways to choose what is computed, compared at equal cost on real clips (spec/skipvsr, tables 3
to 6): those that a family offers, and other trainings of the same network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skipsr import backbones
from skipsr.backbones.contract import Ablation, Upscaler
from skipsr.errors import SettingsError
from skipsr.evaluation.ablation_results import DENSE, AblationStudy, Measured, Trial
from skipsr.evaluation.methods import run_model
from skipsr.evaluation.ruler import Ruler, choose_metrics
from skipsr.evaluation.samples import Sample, choose_items, read_sample
from skipsr.evaluation.settings import EvalSettings
from skipsr.timeline import split

BUDGETS = (0.9, 0.75, 0.6, 0.45)
_METRICS = ("fidelity", "vmaf")
_FILES = ("read", "write", "total")  # stages that are not the model's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is compared, and at what cost.

    Raises:
        SettingsError: for budgets that are no shares, or given twice.
    """

    family: str  # whose policies
    upscalers: Mapping[str, Upscaler]
    """By the names in the tables, loaded dense. All policies run with the first; the others are
    variants, and run with their own choice."""
    budgets: Sequence[float] = BUDGETS  # shares of the dense FLOPs

    def __post_init__(self) -> None:
        check_budgets(self.budgets)

    @property
    def first(self) -> Upscaler:
        return next(iter(self.upscalers.values()))

    def check(self) -> Ablation:
        """What the family offers.

        Raises:
            SettingsError: when a model is of another one, or there is nothing to compare.
        """
        ablation = find_ablation(self.family)
        for name, upscaler in self.upscalers.items():
            if backbones.family(upscaler.name)[0] is not backbones.get(self.family):
                raise SettingsError(
                    f"--ablation {self.family} is not for {name}, which is {upscaler.name}"
                )
        return ablation


def check_budgets(budgets: Sequence[float]) -> None:
    """Raises:
    SettingsError: for budgets that are no shares, or given twice.
    """
    for budget in budgets:
        if not 0 < budget <= 1:
            raise SettingsError(f"--budgets {budget:g} is not above 0 and up to 1")
    if len(set(budgets)) < len(budgets):
        raise SettingsError(f"--budgets names one twice: {' '.join(f'{b:g}' for b in budgets)}")


def find_ablation(family: str) -> Ablation:
    """What a family offers to compare.

    Raises:
        SettingsError: for an unknown family, or one with nothing to compare.
    """
    ablation = backbones.get(family).ablation
    if ablation is None:
        known = [name for name in backbones.families() if backbones.get(name).ablation]
        raise SettingsError(f"--ablation {family} is unknown; there is {', '.join(known)}")
    return ablation


def choose_ablation_metrics(settings: EvalSettings) -> Ruler:
    """The metrics of the settings, or fidelity and VMAF.

    Raises:
        SettingsError: for an unknown name.
    """
    return Ruler(choose_metrics(settings.metrics or _METRICS))


@torch.inference_mode()
def run_ablation(
    root: Path,
    comparison: Comparison,
    settings: EvalSettings,
    record: Mapping[str, Any],
    tell: Callable[[str], None],
) -> AblationStudy:
    """Measure every policy at every budget on all clips of a folder that have a truth.

    Args:
        record: what the results say of the run; see `describe_run`.
        tell: given a line of text for each trial, ready to run, and for each of its results.

    Raises:
        MediaError: for a clip that cannot be read.
        SettingsError: for a model of another family, budgets that cannot be met, or a folder
            without truths.
        WeightsError: for weights that choose nothing.
    """
    ablation, ruler = comparison.check(), choose_ablation_metrics(settings)
    items = choose_items(root, settings)
    notes = [f"{item.name} is left out: it has no truth" for item in items if item.truth is None]
    items = [item for item in items if item.truth is not None]
    if not items:
        raise SettingsError(f"--ablation compares with the truth, and no clip of {root} has one")
    smallest = max(upscaler.limits.smallest for upscaler in comparison.upscalers.values())
    samples = (read_sample(item, settings, smallest) for item in items)
    windows = [window for sample in samples for window in _windows(sample, comparison.first)]
    prepared: list[tuple[Trial, Upscaler]] = []
    for trial, upscaler in _trials(ablation, comparison, windows):
        tell(f"{trial.name} is ready")
        prepared.append((trial, upscaler))
    found: list[list[Measured]] = [[] for _ in prepared]
    for item in items:
        sample = read_sample(item, settings, smallest)  # anew: truths are large
        for (trial, upscaler), results in zip(prepared, found, strict=True):
            results.append(_measure(sample, upscaler, ruler, settings.seed))
            tell(f"{item.name}  {trial.name}  {results[-1].words}")
    return AblationStudy(
        record=record,
        policies=ablation.policies,
        columns=ruler.columns,
        trials=tuple(
            replace(trial, results=tuple(results))
            for (trial, _), results in zip(prepared, found, strict=True)
        ),
        notes=(*notes, *ruler.notes),
    )


def _windows(sample: Sample, upscaler: Upscaler) -> Iterator[Tensor]:
    """The LR clip as the pipeline cuts it."""
    frames = upscaler.limits.window(sample.size[0] * sample.size[1])
    for _, held in split(sample.low, frames, upscaler.limits.overlap_of(frames)):
        yield torch.stack(held)


def _trials(
    ablation: Ablation, comparison: Comparison, windows: Sequence[Tensor]
) -> Iterator[tuple[Trial, Upscaler]]:
    """What is to be run: each model dense, then its policies, each at every budget."""
    for place, (weights, upscaler) in enumerate(comparison.upscalers.items()):
        always = ablation.always(upscaler)
        if min(comparison.budgets) < always:
            raise SettingsError(
                f"--budgets {min(comparison.budgets):g} is less than what {weights} always "
                f"computes, {always:.2f}"
            )
        yield Trial(weights=weights, policy=DENSE, budget=1.0, always=always), upscaler
        for policy in list(ablation.policies)[: 1 if place else None]:
            for budget in comparison.budgets:
                trial = Trial(weights=weights, policy=policy, budget=budget, always=always)
                yield trial, ablation.tuned(upscaler, policy, windows, trial.wanted)


def _measure(sample: Sample, upscaler: Upscaler, ruler: Ruler, seed: int) -> Measured:
    outcome = run_model(sample, upscaler, seed)
    return Measured(
        clip=sample.name,
        frames=len(sample.low),
        computed=sum(mask.work.computed for mask in outcome.masks),
        total=sum(mask.work.total for mask in outcome.masks),
        seconds=sum(s for stage, s in outcome.seconds.items() if stage not in _FILES),
        figures=ruler.measure(outcome.frames, sample.truth),
    )
