"""Learned metrics, through the package `pyiqa`, which brings their networks and fetches weights.

They are optional: `pip install "skipsr[perceptual]"`. Note its licence, which forbids commercial
use. Weights are downloaded at the first measurement and kept in the folder of `torch.hub`.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from skipsr.metrics.metric import Better, Metric, MetricError, check_frames

Name = Literal["lpips", "dists", "musiq", "clip_iqa"]

_SMALLEST = 64  # pixels a side: the networks halve four or five times
_AGAINST_TRUTH = ("lpips", "dists")
_NAMES: Mapping[Name, str] = {  # in pyiqa
    "lpips": "lpips",  # AlexNet, version 0.1 (Zhang et al. 2018)
    "dists": "dists",  # Ding et al. 2020
    "musiq": "musiq",  # trained on KonIQ-10k (Ke et al. 2021)
    "clip_iqa": "clipiqa",  # the plain one, RN50 and a pair of prompts (Wang et al. 2023)
}


def perceptual(name: Name, frames: Tensor, truth: Tensor | None = None) -> float:
    """One learned metric, the mean over frames.

    Args:
        name: lpips or dists (0 to 1, lower is better, against the truth); musiq (0 to 100) or
            clip_iqa (0 to 1), where higher is better and no truth is needed.
        frames: `t 3 h w` in [0, 1], at least 64 pixels a side; measured where they lie.
        truth: of the same size.

    Raises:
        MetricError: without pyiqa, without weights, or for frames it does not take.
    """
    check_frames(frames, truth, what=name, smallest=_SMALLEST)
    if name not in _AGAINST_TRUTH:
        clips = [frames]
    elif truth is not None:
        clips = [frames, truth]
    else:
        raise MetricError(f"{name} compares with the truth: give it")
    network = _load(name, str(frames.device))
    with torch.inference_mode():  # frame by frame, because the networks take much memory
        scores = [
            float(network(*(clip[i : i + 1].float().clamp(0, 1) for clip in clips)))
            for i in range(len(frames))
        ]
    return sum(scores) / len(scores)


@cache
def _load(name: Name, device: str) -> Callable[..., Any]:
    """The network, kept for the next clip."""
    try:
        with redirect_stdout(sys.stderr):  # it prints, and our output is for programs to read
            library = import_module("pyiqa")
            return library.create_metric(_NAMES[name], device=torch.device(device))
    except ImportError as problem:
        raise MetricError(
            f'{name} needs pyiqa and what it uses ({problem}): pip install "skipsr[perceptual]"'
        ) from None
    except (OSError, RuntimeError, EOFError) as problem:
        raise MetricError(
            f"{name} is left out, because its weights cannot be fetched or read: {problem}"
        ) from None


def _metric(name: Name, better: Better, needs_truth: bool) -> Metric:
    def measure(frames: Tensor, truth: Tensor | None) -> dict[str, float]:
        return {name: perceptual(name, frames, truth)}

    return Metric(
        name=name, columns={name: better}, needs_truth=needs_truth, default=False, measure=measure
    )


LPIPS = _metric("lpips", "lower", needs_truth=True)
DISTS = _metric("dists", "lower", needs_truth=True)
MUSIQ = _metric("musiq", "higher", needs_truth=False)
CLIP_IQA = _metric("clip_iqa", "higher", needs_truth=False)
