"""What a metric is, and the checks that all of them share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from skipsr.errors import SkipsrError

Better = Literal["higher", "lower"]


class MetricError(SkipsrError):
    """A metric cannot be measured: on these frames, or without a library or weights it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measurement of a clip, of one or more columns of a table."""

    name: str
    """What users call it."""
    columns: Mapping[str, Better]
    """Its figures and which way is better."""
    needs_truth: bool
    """Whether the second clip may not be None."""
    default: bool
    """Measured unless asked otherwise."""
    measure: Callable[[Tensor, Tensor | None], dict[str, float]]
    """From a clip and its truth, `t 3 h w` in [0, 1], a number per column, or a MetricError."""


def check_frames(
    frames: Tensor, truth: Tensor | None = None, *, what: str = "", smallest: int = 1
) -> None:
    """Refuse what is no clip, a truth of another size, or sides of fewer pixels than `what` needs.

    Raises:
        MetricError: unless `frames` is `t 3 h w` of floating point, and `truth` like it.
    """
    shape = tuple(frames.shape)
    if len(shape) != 4 or shape[1] != 3 or 0 in shape or not frames.is_floating_point():
        raise MetricError(f"metrics take t 3 h w floats in [0, 1], not {frames.dtype} {shape}")
    if truth is not None and truth.shape != frames.shape:
        raise MetricError(
            f"the clip is {_size(frames)} and its truth {_size(truth)}: cut both to one size"
        )
    if min(shape[2:]) < smallest:
        raise MetricError(
            f"{what} needs at least {smallest} pixels a side, not {shape[3]}x{shape[2]}"
        )


def levels(frames: Tensor) -> Tensor:
    """Frames in [0, 1] as whole 8-bit levels 0 to 255, float32: what an image file would hold."""
    return frames.float().clamp(0, 1).mul(255).round()


def _size(frames: Tensor) -> str:
    return f"{len(frames)} frames of {frames.shape[-1]}x{frames.shape[-2]}"
