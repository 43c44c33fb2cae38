"""Routers in closed form: what training approaches in thousands of steps, for any network.

A router is a linear layer and a sigmoid, and what it should say is known: how far the frames that
features give now are from those they give after the next aligned block (Eq. 15). Least squares on
the logits, weighted so that errors count as they do behind the sigmoid, finds it at once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.routing_targets import feature_distances

_SURE = 0.98  # targets beyond are as good as 1
_RIDGE = 1e-6  # of the mean square of the differences


class _Recorder(nn.Module):
    """Keeps the differences that a router is asked about."""

    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.router = router
        self.seen: list[Tensor] = []

    def forward(self, differences: Tensor) -> Tensor:
        self.seen.append(differences.flatten(0, 2))
        return self.router(differences)


@torch.no_grad()
def fit_routers(model: BasicVSR, clips: Sequence[Tensor]) -> None:
    """Give a network the routers that fit its own dense run on clips `t 3 h w` in [0, 1]."""
    differences: list[list[Tensor]] = [[], []]
    needs: list[list[Tensor]] = [[], []]
    for clip in clips:
        recorders = [_Recorder(router) for router in model.routers().children()]
        everything, tile = clip.new_zeros(1), model.config.routing.tile
        dense = model.forward_traced(clip[None], everything, nn.ModuleList(recorders), tile=tile)
        wanted = feature_distances(model, dense, dense, pixels=True)
        for direction, recorder in enumerate(recorders):
            # one row for each look: places of a frame, or of a block of it
            differences[direction].append(torch.cat(recorder.seen))
            rows = wanted[direction]  # frame, block, place
            at_once = model.config.routing.reference == "state"
            needs[direction].append(
                rows.transpose(1, 2).flatten(0, 1) if at_once else rows.reshape(-1, 1)
            )
    gain = math.atanh(0.5) / torch.cat([torch.cat(n).flatten() for n in needs]).median().item()
    for router, x, y in zip(model.routers().children(), differences, needs, strict=True):
        seen, need = (torch.cat(each).cpu().double() for each in (x, y))
        _solve(router, seen, torch.tanh(gain * need))


def _solve(router: nn.Module, x: Tensor, target: Tensor) -> None:
    """Weighted least squares of the logits of `target`, `n outputs`, on `x`, `n c`."""
    layer = router.fc
    assert isinstance(layer, nn.Linear)
    target = target.clamp(1 - _SURE, _SURE)
    x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
    ridge = _RIDGE * x.square().mean() * len(x) * torch.eye(x.shape[1]).to(x)
    for output, wanted in enumerate(target.T):
        weights = (wanted * (1 - wanted)).square()[:, None]
        found = torch.linalg.solve(
            x.T @ (weights * x) + ridge, x.T @ (weights[:, 0] * wanted.logit())
        )
        layer.weight[output], layer.bias[output] = found[:-1], found[-1]
