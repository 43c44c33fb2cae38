"""Quality of models on real clips: every method on every clip, through the pipeline of the command
line, measured against the truth where there is one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.evaluation.methods import (
    BICUBIC,
    RECONSTRUCTION,
    Outcome,
    denoiser_of,
    find_results,
    read_results,
    run_bicubic,
    run_model,
    run_reconstruction,
)
from skipsr.evaluation.pictures import Album
from skipsr.evaluation.report import in_words
from skipsr.evaluation.results import Quality, Row
from skipsr.evaluation.ruler import Ruler, choose_metrics
from skipsr.evaluation.samples import Sample, choose_items, read_sample
from skipsr.metrics.fidelity import psnr_y
from skipsr.metrics.flicker import border_flicker
from skipsr.metrics.metric import Better, MetricError
from skipsr.settings import EvalSettings

FLICKER: Mapping[str, Better] = {"border_flicker": "lower", "calm_flicker": "lower"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The models to run; the first is the one in question."""

    upscalers: Mapping[str, Upscaler]  # by the name in the tables, at least one
    reconstruct: bool = False
    results: tuple[Path, ...] = ()  # folders of other programs' results, named as in the tables

    @property
    def first(self) -> Upscaler:
        return next(iter(self.upscalers.values()))


def measure_quality(
    root: Path,
    contest: Contest,
    settings: EvalSettings,
    record: Mapping[str, Any],
    tell: Callable[[str], None],
) -> tuple[Quality, Album]:
    """Run and measure all methods on all clips of a folder.

    Args:
        root: clips, in one of the layouts of `skipsr.data.benchmarks`.
        record: what the results say of the run; see `describe_run`.
        tell: given a line of text for each row as it is measured.

    Returns:
        The figures, and pictures of the middle frames for the page.

    Raises:
        MediaError: for a clip that cannot be read, before any is measured.
        SettingsError: for settings that do not fit the clips or the models.
    """
    items = choose_items(root, settings)
    ruler = Ruler(choose_metrics(settings.metrics))
    if contest.reconstruct:
        denoiser_of(contest.first)  # a model without an autoencoder ends here, not after hours
    finished = {
        folder.name: find_results(folder, [item.name for item in items])
        for folder in contest.results
    }
    smallest = max(upscaler.limits.smallest for upscaler in contest.upscalers.values())
    methods = len(contest.upscalers) + len(finished) + 2 + contest.reconstruct
    album = Album(len(items) * methods)
    rows: list[Row] = []
    for item in items:
        sample = read_sample(item, settings, smallest)
        plate = album.open(sample.name, len(sample.low), sample.size)
        plain = run_bicubic(sample, contest.first)
        reference = plain.frames if sample.truth is None else sample.truth
        others = {name: files[item.name] for name, files in finished.items()}
        for name, outcome in _outcomes(sample, plain, contest, others, settings.seed):
            rows.append(_row(name, sample, outcome, ruler, reference))
            plate.add(name, outcome.frames, outcome.masks)
            tell(f"{item.name}  {name}  {in_words(rows[-1].figures)}")
        if sample.truth is not None:
            plate.add("truth", sample.truth)
    found = {name for row in rows for name in row.figures}
    known: dict[str, Better] = {**ruler.columns, **FLICKER}
    columns: dict[str, Better] = {name: known[name] for name in known if name in found}
    notes = tuple(ruler.notes)
    return Quality(record=record, columns=columns, rows=tuple(rows), notes=notes), album


def flicker_of(outcome: Outcome, reference: Tensor) -> dict[str, float]:
    """Flicker at the borders of the mask and away from them (`border_flicker`), means over the
    windows of the run; empty for one frame, and where the mask has no border.

    Args:
        reference: the truth, or the plainly enlarged clip, `t 3 h w` in [0, 1].

    Raises:
        MetricError: when everything is border.
    """
    border = calm = steps = 0.0
    for mask in outcome.masks:
        frames = slice(mask.start, mask.end)
        if mask.end - mask.start > 1:
            work = mask.work
            found = border_flicker(outcome.frames[frames], reference[frames], work.keep, work.cell)
            weight = found.share * (mask.end - mask.start - 1)
            border, calm = border + weight * found.border, calm + weight * found.calm
            steps += weight
    if not steps:
        return {}
    return {"border_flicker": border / steps, "calm_flicker": calm / steps}


def _outcomes(
    sample: Sample, plain: Outcome, contest: Contest, others: Mapping[str, Path], seed: int
) -> Iterator[tuple[str, Outcome]]:
    """One method's result at a time: a clip of many frames is large."""
    yield BICUBIC, plain
    for name, upscaler in contest.upscalers.items():
        yield name, run_model(sample, upscaler, seed)
    for name, path in others.items():
        yield name, read_results(sample, path)
    if contest.reconstruct and sample.truth is not None:
        yield RECONSTRUCTION, run_reconstruction(sample, contest.first)


def _row(method: str, sample: Sample, outcome: Outcome, ruler: Ruler, reference: Tensor) -> Row:
    figures = ruler.measure(outcome.frames, sample.truth)
    try:
        figures |= flicker_of(outcome, reference)
    except MetricError as error:
        ruler.note("flicker", error)
    frames, _, h, w = outcome.frames.shape
    values = [] if sample.truth is None else psnr_y(outcome.frames, sample.truth).tolist()
    return Row(
        clip=sample.name,
        method=method,
        width=w,
        height=h,
        frames=frames,
        figures=figures,
        psnr_frames=tuple(values),
        computed=outcome.computed,
        seconds=outcome.seconds,
    )
