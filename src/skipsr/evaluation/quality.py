"""Quality of models on real clips: every method on every clip, against the truth if there is one.

Models run through the pipeline of the command line.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.data.benchmarks import Item
from skipsr.evaluation.clips import ClipFolder
from skipsr.evaluation.gallery import Gallery
from skipsr.evaluation.methods import (
    BICUBIC,
    RECONSTRUCTION,
    MethodResult,
    denoiser_of,
    find_results,
    read_results,
    run_bicubic,
    run_model,
    run_reconstruction,
)
from skipsr.evaluation.metric_suite import MetricSuite, choose_metrics
from skipsr.evaluation.report import in_words
from skipsr.evaluation.results import Quality, Row
from skipsr.evaluation.samples import Sample, read_sample
from skipsr.metrics.fidelity import psnr_y
from skipsr.metrics.flicker import border_flicker
from skipsr.metrics.metric import Better, MetricError
from skipsr.settings import EvalSettings

FLICKER: Mapping[str, Better] = {"border_flicker": "lower", "calm_flicker": "lower"}
_WARMING = 5  # frames that models run before they are timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Methods:
    """What is compared: models, the first being the one in question, and results of others."""

    upscalers: Mapping[str, Upscaler]  # by the name in the tables, at least one
    reconstruct: bool = False
    results: tuple[Path, ...] = ()  # folders of other programs' results, named as in the tables

    @property
    def first(self) -> Upscaler:
        return next(iter(self.upscalers.values()))


def measure_quality(
    clips: ClipFolder,
    methods: Methods,
    settings: EvalSettings,
    record: Mapping[str, Any],
) -> tuple[Quality, Gallery]:
    """Run and measure all methods on all clips, each model once unmeasured before.

    A clip that cannot be read is left out, for all methods, and named in `Quality.faults`.

    Args:
        record: what the results say of the run; see `describe_run`.

    Returns:
        The figures, and the middle frames for the page.

    Raises:
        MediaError: when no clip can be read, or one has no result among `methods.results`.
        SettingsError: for settings that do not fit the models.
    """
    suite = MetricSuite(choose_metrics(settings.metrics))
    if methods.reconstruct:
        # a model without an autoencoder ends here, not after hours
        denoiser_of(methods.first, wanted_by="reconstruct")
    finished = {
        folder.name: find_results(folder, [item.name for item in clips.items])
        for folder in methods.results
    }
    smallest = max(upscaler.limits.smallest for upscaler in methods.upscalers.values())
    count = len(methods.upscalers) + len(finished) + 2 + methods.reconstruct
    gallery = Gallery(len(clips.items) * count)
    cold = list(methods.upscalers.values())

    def measure(item: Item) -> list[Row]:
        sample = read_sample(item, settings, smallest)
        while cold:  # what starting takes is no model's own time
            run_model(replace(sample, low=sample.low[:_WARMING]), cold.pop(), settings.seed)
        comparison = gallery.open(sample.name, len(sample.low), sample.size)
        plain = run_bicubic(sample)
        reference = plain.frames if sample.truth is None else sample.truth
        others = {name: files[item.name] for name, files in finished.items()}
        rows: list[Row] = []
        for name, result in _results(sample, plain, methods, others, settings.seed):
            rows.append(_row(name, sample, result, suite, reference))
            comparison.add(name, result.frames, result.masks)
            clips.tell(f"{item.name}  {name}  {in_words(rows[-1].figures)}")
        if sample.truth is not None:
            comparison.add("truth", sample.truth)
        gallery.keep(comparison)
        return rows

    rows = tuple(row for found in clips.each(measure) for row in found)
    found = {name for row in rows for name in row.figures}
    known: dict[str, Better] = {**suite.columns, **FLICKER}
    columns: dict[str, Better] = {name: known[name] for name in known if name in found}
    quality = Quality(
        record=record,
        columns=columns,
        rows=rows,
        notes=(*clips.notes, *suite.notes),
        faults=clips.faults,
    )
    return quality, gallery


def flicker_of(result: MethodResult, reference: Tensor) -> dict[str, float]:
    """Flicker at the borders of the mask and away from them, means over the windows of the run.

    It is empty for one frame, and where the mask has no border; see `border_flicker`.

    Args:
        reference: the truth, or the upsampled clip, `t 3 h w` in [0, 1].

    Raises:
        MetricError: when everything is border.
    """
    border = calm = steps = 0.0
    for mask in result.masks:
        frames = slice(mask.start, mask.end)
        if mask.end - mask.start > 1:
            computed = mask.compute_map
            found = border_flicker(
                result.frames[frames], reference[frames], computed.keep, computed.cell_size
            )
            weight = found.share * (mask.end - mask.start - 1)
            border, calm = border + weight * found.border, calm + weight * found.calm
            steps += weight
    if not steps:
        return {}
    return {"border_flicker": border / steps, "calm_flicker": calm / steps}


def _results(
    sample: Sample, plain: MethodResult, methods: Methods, others: Mapping[str, Path], seed: int
) -> Iterator[tuple[str, MethodResult]]:
    """One method's result at a time: a clip of many frames is large."""
    yield BICUBIC, plain
    for name, upscaler in methods.upscalers.items():
        yield name, run_model(sample, upscaler, seed)
    for name, path in others.items():
        yield name, read_results(sample, path)
    if methods.reconstruct and sample.truth is not None:
        yield RECONSTRUCTION, run_reconstruction(sample, methods.first)


def _row(
    method: str, sample: Sample, result: MethodResult, suite: MetricSuite, reference: Tensor
) -> Row:
    figures = suite.measure(result.frames, sample.truth)
    try:
        figures |= flicker_of(result, reference)
    except MetricError as error:
        suite.note("flicker", error)
    frames, _, h, w = result.frames.shape
    values = [] if sample.truth is None else psnr_y(result.frames, sample.truth).tolist()
    return Row(
        clip=sample.name,
        method=method,
        width=w,
        height=h,
        frames=frames,
        figures=figures,
        psnr_frames=tuple(values),
        computed=result.computed,
        seconds=result.seconds,
    )
