"""What masks cost and how good they are (SkipSR's paper, tables 1 and 4).

The swap: encode the truth I and the shrunk and upsampled U(D(I)), put the second latent's cells
into the first where a mask says skippable, decode. Against I that shows swap and autoencoder
together; against decode(encode(I)) it shows the swap alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.backbones.trainable import Denoiser
from skipsr.data.benchmarks import Item
from skipsr.evaluation.clips import ClipFolder
from skipsr.evaluation.mask_results import MaskStudy, Prediction, Swap, TauPoint
from skipsr.evaluation.methods import denoiser_of, pad, pad_base, trim
from skipsr.evaluation.metric_suite import MetricSuite, choose_full_reference
from skipsr.evaluation.ranking import Counts, average_precision
from skipsr.evaluation.samples import Sample, read_sample
from skipsr.metrics.fidelity import psnr_rgb
from skipsr.settings import EvalSettings, SkipSettings
from skipsr.skipping.oracle import TAU, down_then_up, patch_errors
from skipsr.skipping.route import THRESHOLD, Route, to_cells

TAUS = tuple(2.5e-5 * 2**step for step in range(8))  # up to 3.2e-3; the fourth is the paper's
THRESHOLDS = tuple(step / 20 for step in range(1, 20))


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A truth and its base, encoded, ready for any mask."""

    model: Denoiser
    truth: Tensor  # t 3 h w in [0, 1]
    base: Tensor  # 1 3 t' h' w', what a decoder that sees the base sees
    latent: Tensor  # t h w c, of the truth
    plain: Tensor  # t h w c, of U(D(truth))
    errors: Tensor  # t h/2 w/2, of every token; what the oracle compares with tau

    def decode(self, keep: Tensor) -> Tensor:
        """The swap's frames, `t 3 h w`, for a bool mask `t h/2 w/2`.

        Keeping all is the plain reconstruction.
        """
        route = Route(keep)
        cells = route.pack(to_cells(self.latent))
        latent = route.compose(cells, self.plain)
        return trim(self.model.decode(latent[None], self.base), self.truth)


@dataclass(frozen=True, slots=True)
class MaskScores:
    """Errors and predicted scores of one clip's tokens, on the CPU."""

    errors: Tensor  # t h w
    scores: Tensor | None  # t h w in [0, 1]; None without a predictor
    sweep: tuple[float, ...]  # swap PSNR at each of TAUS


@torch.inference_mode()
def analyse_masks(
    clips: ClipFolder,
    upscaler: Upscaler,
    skip: SkipSettings,
    settings: EvalSettings,
    record: Mapping[str, Any],
) -> MaskStudy:
    """Swap, score and sweep the masks of every clip.

    A clip that cannot be read is left out and named in `MaskStudy.faults`.

    Args:
        clips: that all have a truth.
        skip: its tau and threshold are those of the masks.
        record: what the results say of the run; see `describe_run`.

    Raises:
        MediaError: when no clip can be read.
        SettingsError: for a model without autoencoder, a metric that needs no truth, or a tau that
            the predictor does not know.
    """
    model, suite = denoiser_of(upscaler), MetricSuite(choose_full_reference(settings.metrics))
    tau = TAU if skip.tau is None else skip.tau
    threshold = THRESHOLD if skip.threshold is None else skip.threshold

    def analyse(item: Item) -> tuple[list[Swap], MaskScores]:
        encoded = _encode(model, read_sample(item, settings, upscaler.limits.smallest), upscaler)
        unswapped = encoded.decode(torch.ones_like(encoded.errors, dtype=torch.bool))
        scores = _score(model, encoded.base, tau)
        masks = {"oracle": encoded.errors > tau}
        if scores is not None:
            masks["predictor"] = scores >= threshold
        swaps = _swaps(encoded, unswapped, masks, item.name, suite)
        kept = _mask_scores(encoded, unswapped, scores)
        clips.tell("  ".join([item.name, *(f"{s.mask} skips {s.skipped:.1%}" for s in swaps)]))
        return swaps, kept

    swaps, found = zip(*clips.each(analyse), strict=True)
    return MaskStudy(
        record=record,
        tau=tau,
        threshold=threshold,
        columns=suite.columns,
        swaps=tuple(swap for of_clip in swaps for swap in of_clip),
        taus=_tau_points(found),
        prediction=_predict(found, tau, threshold),
        notes=(*clips.notes, *suite.notes),
        faults=clips.faults,
    )


def _encode(model: Denoiser, sample: Sample, upscaler: Upscaler) -> EncodedClip:
    assert sample.truth is not None
    truth = pad(sample.truth, upscaler)
    return EncodedClip(
        model=model,
        truth=sample.truth,
        base=pad_base(sample, upscaler),
        latent=model.encode(truth)[0],
        plain=model.encode(down_then_up(truth))[0],
        errors=patch_errors(truth)[0],
    )


def _score(model: Denoiser, base: Tensor, tau: float) -> Tensor | None:
    """Probability that each token needs computing, from the upsampled LR clip as at run time."""
    if not model.predicts:
        return None
    return model.scores(model.encode(base), tau)[0].float().sigmoid()


def _swaps(
    encoded: EncodedClip,
    unswapped: Tensor,
    masks: Mapping[str, Tensor],
    clip: str,
    suite: MetricSuite,
) -> list[Swap]:
    ceiling = suite.measure(unswapped, encoded.truth)
    found: list[Swap] = []
    for name, keep in masks.items():
        frames = encoded.decode(keep)
        found.append(
            Swap(
                clip=clip,
                mask=name,
                skipped=1 - keep.float().mean().item(),
                figures=suite.measure(frames, encoded.truth),
                swap=suite.measure(frames, unswapped),
                ceiling=ceiling,
            )
        )
    return found


def _mask_scores(encoded: EncodedClip, unswapped: Tensor, scores: Tensor | None) -> MaskScores:
    masks = (encoded.errors > tau for tau in TAUS)
    sweep = tuple(psnr_rgb(encoded.decode(keep), unswapped).mean().item() for keep in masks)
    return MaskScores(encoded.errors.cpu(), None if scores is None else scores.cpu(), sweep)


def _tau_points(clips: Sequence[MaskScores]) -> tuple[TauPoint, ...]:
    errors = torch.cat([clip.errors.flatten() for clip in clips])
    return tuple(
        TauPoint(
            tau=tau,
            skipped=(errors <= tau).float().mean().item(),
            swap_psnr=fmean(clip.sweep[index] for clip in clips),
        )
        for index, tau in enumerate(TAUS)
    )


def _predict(clips: Sequence[MaskScores], tau: float, threshold: float) -> Prediction | None:
    found = [clip.scores.flatten() for clip in clips if clip.scores is not None]
    if not found:
        return None
    scores = torch.cat(found)
    keep = torch.cat([clip.errors.flatten() for clip in clips]) > tau
    return Prediction(
        counts=Counts.of(scores >= threshold, keep),
        average_precision=average_precision(scores, keep),
        thresholds={step: Counts.of(scores >= step, keep) for step in THRESHOLDS},
    )
