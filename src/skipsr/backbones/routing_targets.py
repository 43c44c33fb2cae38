"""Regression targets of the routers (SkipVSR, Eq. 7, 15 and 16).

They are distances between the features of a network that skips blocks and of the dense one.
"""

from functools import partial

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
            compared = partial(_compared, model, direction, other[-1] if pixels else None)
            targets = {depth: compared(goals[depth]) for depth in model.aligned_layers}
            for block, before in enumerate(features[:-1], 1):
                goal = next(depth for depth in model.aligned_layers if depth >= block)
                rows.append(dense.means((compared(before) - targets[goal]).abs()).mean(1))
    return torch.stack(rows).view(routed.confidences[:, 1:].shape)


def _compared(
    model: RoutedRecurrent, direction: int, other: Tensor | None, features: Tensor
) -> Tensor:
    """Features as they are, or the planes they give together with the `other` direction's state."""
    if other is None:
        return features.float()
    both = (features, other) if direction == 0 else (other, features)
    return model.residual_planes(*both).float()
