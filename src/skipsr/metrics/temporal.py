"""Steadiness in time: how well each frame follows from the next one along the motion."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from skipsr.metrics.fidelity import luma
from skipsr.metrics.flow import optical_flow, visible
from skipsr.metrics.metric import Metric, MetricError, check_frames
from skipsr.nn.warp import warp

_SMALLEST = 32  # pixels a side, so that the flow has two levels


def warp_error(frames: Tensor, truth: Tensor | None = None) -> float:
    """Temporal warping error (Lai et al. 2018) times 1000, lower is better.

    The mean square difference, over pixels and channels in [0, 1], of each frame and the next one
    warped back along the optical flow (bicubic); only pixels that both frames show count. Flow and
    visibility come from the truth when there is one, which keeps them apart from the artefacts that
    are measured, else from the frames. The mean over all pairs of neighbours in which anything is
    visible. A still but wrong clip scores 0: read it beside fidelity.

    Args:
        frames: `t 3 h w` in [0, 1].
        truth: of the same size, or None.

    Raises:
        MetricError: for fewer than two frames, sides below 32 pixels, a truth of another size, or
            frames that have nothing in common with their neighbours.
    """
    check_frames(frames, truth)
    return error_along(frames, motion(frames if truth is None else truth))


def motion(frames: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The flow `1 h w 2` from each frame of `t 3 h w` to the next, and what both show, `1 h w`.

    Pair by pair, which bounds the memory; a list of them serves several clips of the same motion.

    Raises:
        MetricError: for fewer than two frames, or sides below 32 pixels.
    """
    h, w = frames.shape[-2:]
    if len(frames) < 2 or min(h, w) < _SMALLEST:
        raise MetricError(
            f"the warping error needs two frames of {_SMALLEST} pixels a side, "
            f"not {len(frames)} of {w}x{h}"
        )
    for i in range(len(frames) - 1):
        grey = (luma(frames[i : i + 2].float().clamp(0, 1) * 255) - 16) / 219
        forth, back = optical_flow(grey, grey.flip(0)).split(1)
        yield forth, visible(forth, back)


def error_along(frames: Tensor, motions: Iterable[tuple[Tensor, Tensor]]) -> float:
    """`warp_error` of `t 3 h w` along a motion that is known, as `motion` gives it.

    Raises:
        MetricError: when no frame has anything in common with its neighbour.
    """
    errors: list[float] = []
    for i, (forth, seen) in enumerate(motions):
        change = frames[i].float() - warp(frames[i + 1 : i + 2].float(), forth, "bicubic", "border")
        if seen.any():
            errors.append(change.square().mean(1)[seen].mean().item())
    if not errors:
        raise MetricError("no frame shows anything of its neighbour: the warping error has no base")
    return 1000 * sum(errors) / len(errors)


TEMPORAL = Metric(
    name="temporal",
    columns={"warp_error": "lower"},
    needs_truth=False,
    default=True,
    measure=lambda frames, truth: {"warp_error": warp_error(frames, truth)},
)
