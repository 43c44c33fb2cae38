"""How good a clip is: every metric there is, by name. Heavy libraries are imported when needed."""

from collections.abc import Mapping
from types import MappingProxyType

from skipsr.metrics.brisque import BRISQUE
from skipsr.metrics.fidelity import FIDELITY
from skipsr.metrics.metric import Better, Metric, MetricError
from skipsr.metrics.niqe import NIQE
from skipsr.metrics.pattern import PATTERN
from skipsr.metrics.perceptual import CLIP_IQA, DISTS, LPIPS, MUSIQ
from skipsr.metrics.temporal import TEMPORAL
from skipsr.metrics.vmaf import VMAF

__all__ = ["METRICS", "Better", "Metric", "MetricError"]

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            FIDELITY,
            VMAF,
            NIQE,
            BRISQUE,
            TEMPORAL,
            PATTERN,
            LPIPS,
            DISTS,
            MUSIQ,
            CLIP_IQA,
        )
    }
)
