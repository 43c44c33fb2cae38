"""Routed runs, and thresholds that meet budgets on ordinary footage."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.backbones.basicvsr.fit import fit_routers
from skipsr.backbones.basicvsr.network import CALIBRATED, DIRECTIONS, BasicVSR
from skipsr.backbones.basicvsr.options import DEFAULT_DETAIL
from skipsr.backbones.basicvsr.routing import MakeExecutor, RoutedTrunk
from skipsr.backbones.basicvsr.tiles import RegionExecutor
from skipsr.backbones.basicvsr.weights import networks
from skipsr.backbones.trainable import Calibrated
from skipsr.errors import SettingsError, WeightsError
from skipsr.weights.folder import WeightFiles

MakeSteps = Callable[[BasicVSR, float], list[RoutedTrunk]]
"""Network and threshold -> backward and forward step of one clip."""


def routed_steps(
    model: BasicVSR, threshold: float, executor: MakeExecutor = RegionExecutor
) -> list[RoutedTrunk]:
    """Backward and forward steps of one clip, by the model's own routers.

    Raises:
        WeightsError: when it has none.
    """
    routers = (model.router_backward, model.router_forward)
    limit = torch.tensor(threshold, device=model.fusion.weight.device)
    steps: list[RoutedTrunk] = []
    for direction, router in zip(DIRECTIONS, routers, strict=True):
        if router is None:
            raise WeightsError("these weights hold no routers: leave out `budget` and `threshold`")
        trunk = model.trunk(direction)
        steps.append(RoutedTrunk(trunk, router, limit, model.config.routing, executor))
    return steps


@torch.inference_mode()
def calibrate(model: BasicVSR, clips: Sequence[Tensor]) -> Tensor:
    """Thresholds that meet budgets on `clips`, `t 3 h w` in [0, 1] each.

    Budgets are shares of the dense FLOPs that the thresholds were found to spend. First frames,
    which run every block, are left out: budgets hold for long clips. The lowest is that of a
    network whose blocks are all skipped, the highest is dense.

    Returns:
        Rising budgets and their thresholds, `k 2`, to be kept as the model's `calibration`.
    """
    cost = cost_of(model.config)
    rows = [(1.0, 0.0)]
    threshold = 0.0
    found = confidences(model, clips, threshold)
    for share in torch.linspace(1, 0, CALIBRATED).tolist()[1:-1]:
        below = round((1 - share) * (len(found) - 1))
        quantile = found.kthvalue(1 + below).values.item()  # torch's own has a limit
        threshold = max(threshold, quantile)
        found = confidences(model, clips, threshold)  # routing changes what it rests on
        executed = (found > threshold).float().mean().item()
        rows.append((cost.share(executed), threshold))
    rows.append((cost.share(0.0), 1.0))
    budgets, thresholds = torch.tensor(rows[::-1]).unbind(1)
    return torch.stack((budgets.cummax(0).values, thresholds), 1)


def calibrate_file(
    preset: str,
    files: WeightFiles,
    clips: Iterable[Tensor],
    device: torch.device,
    *,
    fit: bool = False,
) -> Calibrated:
    """The network of these files, with thresholds found on `clips`; see `Calibrator`."""
    model = networks(preset, files).float()
    if model.crisp:
        model.blend(DEFAULT_DETAIL)  # thresholds are for one mixture, which is what is kept
    if fit:
        model.routers()  # begins what files without routers lack
    elif model.router_forward is None:
        raise WeightsError(
            f"{files.network(f'basicvsr:{preset}').path}: no routers there; train them first, with "
            "a routing recipe, or give `fit`"
        )
    model = model.eval().requires_grad_(False).to(device)
    footage = [clip.to(device) for clip in clips]
    if fit:
        fit_routers(model, footage)
    model.calibration.copy_(calibrate(model, footage))
    return Calibrated(model, model.calibration.cpu())


def threshold_for(calibration: Tensor, budget: float) -> float:
    """The threshold that spends `budget`, between those of the nearest calibrated budgets.

    Raises:
        SettingsError: for a budget below what always runs.
        WeightsError: for a model that was not calibrated.
    """
    budgets, thresholds = calibration.cpu().double().T.contiguous()
    if not calibration.any():
        raise WeightsError("these weights were not calibrated: give `threshold`, not `budget`")
    floor = budgets[0].item()
    if budget < floor - 1e-6:  # thresholds are kept in float32
        least = math.ceil(100 * floor - 1e-4) / 100
        raise SettingsError(
            f"`budget` {budget:g} is less than what this model always computes, {least:.2f}"
        )
    above = int(torch.searchsorted(budgets, budget).clamp(1, len(budgets) - 1))
    low, high = budgets[above - 1], budgets[above]
    share = ((budget - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    return torch.lerp(thresholds[above - 1], thresholds[above], share).item()


@torch.inference_mode()
def confidences(
    model: BasicVSR, clips: Sequence[Tensor], threshold: float, make_steps: MakeSteps = routed_steps
) -> Tensor:
    """The routers' confidences in runs at the threshold, for every block, tile and frame.

    They are flat, on the CPU, and without those of first frames, which are not decided.
    """
    found: list[Tensor] = [torch.empty(0)]
    for clip in clips:
        steps = make_steps(model, threshold)
        model.advance(clip[None].to(model.fusion.weight.device), *steps)
        found += [sure.flatten().cpu() for step in steps for sure in step.confidences[1:]]
    return torch.cat(found)
