"""Ablation of routing policies and trainings at equal cost (SkipVSR's paper, tables 3 to 6)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skipsr import backbones
from skipsr.backbones.basicvsr.backbone import BACKBONE
from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.backbones.by_scale import ByScale
from skipsr.backbones.contract import Upscaler
from skipsr.data.benchmarks import Item
from skipsr.errors import SettingsError
from skipsr.evaluation.clips import ClipFolder
from skipsr.evaluation.methods import run_model
from skipsr.evaluation.metric_suite import MetricSuite, choose_metrics
from skipsr.evaluation.report import in_words
from skipsr.evaluation.samples import Sample, read_sample
from skipsr.pipeline.plan import plan_windows
from skipsr.research.ablation_report import DENSE, AblationStudy, ClipResult, PolicyRun
from skipsr.research.policies import POLICIES, tuned
from skipsr.settings import EvalSettings, JobSettings
from skipsr.timeline import cut

_METRICS = ("fidelity", "vmaf")
_FILES = ("read", "write", "total")  # stages that are not the model's own


def check_ablation(model: str, budgets: Sequence[float], settings: EvalSettings) -> MetricSuite:
    """Refuse what cannot be compared, before weights are read.

    Returns:
        The metrics of the settings, or fidelity and VMAF.

    Raises:
        SettingsError: for an unknown model, one of another family, no budget, budgets that are no
            shares, or given twice, and an unknown metric.
    """
    if backbones.family(model)[0] is not BACKBONE:
        raise SettingsError(
            f"{model} has no policies to compare: give a model of basicvsr as `model`"
        )
    if not budgets:
        raise SettingsError("`budgets` names none: give at least one, or leave it out")
    for budget in budgets:
        if not 0 < budget <= 1:
            raise SettingsError(f"`budgets` {budget:g} is not above 0 and up to 1")
    if len(set(budgets)) < len(budgets):
        raise SettingsError(f"`budgets` names one twice: {' '.join(f'{b:g}' for b in budgets)}")
    return MetricSuite(choose_metrics(settings.metrics or _METRICS))


@torch.inference_mode()
def run_ablation(
    clips: ClipFolder,
    upscalers: Mapping[str, Upscaler],
    budgets: Sequence[float],
    settings: EvalSettings,
    record: Mapping[str, Any],
) -> AblationStudy:
    """Measure every policy at every budget on all clips.

    All are read before anything is tuned, and one that cannot be is left out and named in
    `AblationStudy.faults`.

    Args:
        clips: that all have a truth.
        upscalers: by the names in the tables, loaded dense; of one with networks for several scales
            that for `settings.scale` runs. All policies run with the first; the others are
            variants, and run with their own choice.
        budgets: shares of the dense FLOPs.
        record: what the results say of the run; see `describe_run`.

    Raises:
        MediaError: when no clip can be read, or one no longer after policies were tuned to it.
        SettingsError: for a model or variant of another family, or budgets that are none or cannot
            be met.
        WeightsError: for weights that choose nothing.
    """
    first = next(iter(upscalers.values()))
    suite = check_ablation(first.name, budgets, settings)
    models: dict[str, BasicVSRUpscaler] = {}
    for name, loaded in upscalers.items():
        upscaler = loaded.at(settings.scale) if isinstance(loaded, ByScale) else loaded
        if not isinstance(upscaler, BasicVSRUpscaler):
            raise SettingsError(
                f"`variants` {name} is {upscaler.name}, and no training of {first.name}"
            )
        models[name] = upscaler
    smallest = max(upscaler.limits.smallest for upscaler in models.values())

    def cut(item: Item) -> list[Tensor]:
        return list(_windows(read_sample(item, settings, smallest), first))

    windows = [window for of_clip in clips.each(cut) for window in of_clip]
    prepared: list[tuple[PolicyRun, Upscaler]] = []
    for run, upscaler in _runs(models, budgets, windows):
        clips.tell(f"{run.name} is ready")
        prepared.append((run, upscaler))
    found: list[list[ClipResult]] = [[] for _ in prepared]
    for item in clips.items:
        sample = read_sample(item, settings, smallest)  # anew: truths are large
        for (run, upscaler), results in zip(prepared, found, strict=True):
            one = _measure(sample, upscaler, suite, settings.seed)
            results.append(one)
            share = one.computed / one.total
            clips.tell(f"{item.name}  {run.name}  executed {share:.1%}  {in_words(one.figures)}")
    return AblationStudy(
        record=record,
        policies=POLICIES,
        columns=suite.columns,
        runs=tuple(
            replace(run, results=tuple(results))
            for (run, _), results in zip(prepared, found, strict=True)
        ),
        notes=(*clips.notes, *suite.notes),
        faults=clips.faults,
    )


def _windows(sample: Sample, upscaler: Upscaler) -> Iterator[Tensor]:
    """The LR clip as the pipeline cuts it."""
    low = sample.low.shape[2], sample.low.shape[3]
    plan = plan_windows(low, sample.size, upscaler.limits, JobSettings())
    for window in cut(len(sample.low), plan.window, plan.overlap):
        yield sample.low[window.start : window.end].contiguous()


def _runs(
    models: Mapping[str, BasicVSRUpscaler], budgets: Sequence[float], windows: Sequence[Tensor]
) -> Iterator[tuple[PolicyRun, Upscaler]]:
    """What is to be run: each model dense, then its policies, each at every budget."""
    for place, (weights, upscaler) in enumerate(models.items()):
        always = cost_of(upscaler.model.config).share(0.0)
        if min(budgets) < always:
            raise SettingsError(
                f"`budgets` {min(budgets):g} is less than what {weights} always computes, "
                f"{always:.2f}"
            )
        yield PolicyRun(weights=weights, policy=DENSE, budget=1.0, always=always), upscaler
        for policy in list(POLICIES)[: 1 if place else None]:
            for budget in budgets:
                run = PolicyRun(weights=weights, policy=policy, budget=budget, always=always)
                yield run, tuned(upscaler, policy, windows, run.wanted)


def _measure(sample: Sample, upscaler: Upscaler, suite: MetricSuite, seed: int) -> ClipResult:
    result = run_model(sample, upscaler, seed)
    return ClipResult(
        clip=sample.name,
        frames=len(sample.low),
        computed=sum(mask.compute_map.units_run for mask in result.masks),
        total=sum(mask.compute_map.units_total for mask in result.masks),
        seconds=sum(s for stage, s in result.seconds.items() if stage not in _FILES),
        figures=suite.measure(result.frames, sample.truth),
    )
