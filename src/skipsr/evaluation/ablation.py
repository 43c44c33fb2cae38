"""Ways to choose what is computed, compared at equal cost on real clips: those that a family
offers, and other trainings of the same network (SkipVSR's paper, tables 3 to 6)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from skipsr.evaluation.samples import Sample, choose_truths, read_sample
from skipsr.pipeline.plan import choose_windows
from skipsr.settings import EvalSettings, JobSettings
from skipsr.timeline import split

_METRICS = ("fidelity", "vmaf")
_FILES = ("read", "write", "total")  # stages that are not the model's own


def check_budgets(budgets: Sequence[float]) -> None:
    """Raises:
    SettingsError: for no budget, and for budgets that are no shares, or given twice.
    """
    if not budgets:
        raise SettingsError("`budgets` names none: give at least one, or leave it out")
    for budget in budgets:
        if not 0 < budget <= 1:
            raise SettingsError(f"`budgets` {budget:g} is not above 0 and up to 1")
    if len(set(budgets)) < len(budgets):
        raise SettingsError(f"`budgets` names one twice: {' '.join(f'{b:g}' for b in budgets)}")


def find_ablation(model: str) -> Ablation:
    """What a model's family offers to compare.

    Raises:
        SettingsError: for an unknown model, or one with nothing to compare.
    """
    ablation = backbones.family(model)[0].ablation
    if ablation is None:
        known = [name for name in backbones.families() if backbones.get(name).ablation]
        raise SettingsError(
            f"{model} has no policies to compare: give a model of {', '.join(known)} as `model`"
        )
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
    upscalers: Mapping[str, Upscaler],
    budgets: Sequence[float],
    settings: EvalSettings,
    record: Mapping[str, Any],
    tell: Callable[[str], None],
) -> AblationStudy:
    """Measure every policy at every budget on all clips of a folder that have a truth.

    Args:
        upscalers: by the names in the tables, loaded dense. All policies run with the first; the
            others are variants, and run with their own choice.
        budgets: shares of the dense FLOPs.
        record: what the results say of the run; see `describe_run`.
        tell: given a line of text for each trial, ready to run, and for each of its results.

    Raises:
        MediaError: for a clip that cannot be read.
        SettingsError: for a variant of another family, a family with nothing to compare, budgets
            that are none or cannot be met, or a folder without truths.
        WeightsError: for weights that choose nothing.
    """
    first = next(iter(upscalers.values()))
    ablation, ruler = find_ablation(first.name), choose_ablation_metrics(settings)
    check_budgets(budgets)
    for name, upscaler in upscalers.items():
        if backbones.family(upscaler.name)[0] is not backbones.family(first.name)[0]:
            raise SettingsError(
                f"`variants` {name} is {upscaler.name}, and no training of {first.name}"
            )
    items, notes = choose_truths(root, settings)
    smallest = max(upscaler.limits.smallest for upscaler in upscalers.values())
    samples = (read_sample(item, settings, smallest) for item in items)
    windows = [window for sample in samples for window in _windows(sample, first)]
    prepared: list[tuple[Trial, Upscaler]] = []
    for trial, upscaler in _trials(ablation, upscalers, budgets, windows):
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
    low = sample.low.shape[2], sample.low.shape[3]
    windows = choose_windows(low, sample.size, upscaler.limits, JobSettings())
    for _, held in split(sample.low, *windows):
        yield torch.stack(held)


def _trials(
    ablation: Ablation,
    upscalers: Mapping[str, Upscaler],
    budgets: Sequence[float],
    windows: Sequence[Tensor],
) -> Iterator[tuple[Trial, Upscaler]]:
    """What is to be run: each model dense, then its policies, each at every budget."""
    for place, (weights, upscaler) in enumerate(upscalers.items()):
        always = ablation.always(upscaler)
        if min(budgets) < always:
            raise SettingsError(
                f"`budgets` {min(budgets):g} is less than what {weights} always computes, "
                f"{always:.2f}"
            )
        yield Trial(weights=weights, policy=DENSE, budget=1.0, always=always), upscaler
        for policy in list(ablation.policies)[: 1 if place else None]:
            for budget in budgets:
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
