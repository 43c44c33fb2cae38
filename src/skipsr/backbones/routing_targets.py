"""Regression targets of the routers (SkipVSR, Eq. 7, 15 and 16).

They are distances between the features of a network that skips blocks and of the dense one.
"""

import torch
from torch import Tensor

from skipsr.backbones.trainable import RoutedRecurrent, RoutingTrace


@torch.no_grad()
def feature_distances(
    model: RoutedRecurrent,
    routed: RoutingTrace,
    dense: RoutingTrace,
    *,
    pixels: bool = False,
) -> Tensor:
    """Mean absolute feature distance before each block, to the next aligned layer.

    The axes are direction, frame after the first, block and place.

    Args:
        routed: features of `model`.
        dense: those of the network that runs every block, on the same batch.
        pixels: between the frames that features give, the other direction's state being the dense
            one; else between the features themselves.
    """
    rows: list[Tensor] = []
    for direction, ours in enumerate(routed.features):
        theirs, others = dense.features[direction], dense.features[1 - direction]
        # the last frame of one direction is the first of the other
        for features, goals, other in zip(ours[1:], theirs[1:], others[-2::-1], strict=True):

            def seen(x: Tensor, other: Tensor = other[-1], first: bool = direction == 0) -> Tensor:
                if not pixels:
                    return x.float()
                return model.residual_planes(*((x, other) if first else (other, x))).float()

            shown = {depth: seen(goals[depth]) for depth in model.aligned_layers}
            for block, now in enumerate(features[:-1], 1):
                goal = next(depth for depth in model.aligned_layers if depth >= block)
                rows.append(dense.means((seen(now) - shown[goal]).abs()).mean(1))
    return torch.stack(rows).view(routed.confidences[:, 1:].shape)
