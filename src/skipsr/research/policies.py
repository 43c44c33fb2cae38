"""Routing policies for a recurrent model, tuned to equal cost (SkipVSR, tables 3 and 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from skipsr.backbones.basicvsr.block_skipping import BlockSkippingUpscaler
from skipsr.backbones.basicvsr.blocks import Trunk
from skipsr.backbones.basicvsr.calibrate import MakeSteps, confidences, routed_steps
from skipsr.backbones.basicvsr.config import RoutingConfig
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.routing import RoutedTrunk
from skipsr.backbones.basicvsr.tiles import TileGrid
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.errors import SettingsError, WeightsError
from skipsr.nn.warp import warp
from skipsr.settings import SkipSettings

POLICIES: Mapping[str, str] = MappingProxyType(
    {
        "learned": "the model's own confidences",
        "uniform": "chance, alike for every block and tile",
        "shallow skip": "the last blocks of each direction, everywhere",
        "deep skip": "the first blocks of each direction, everywhere",
        "oracle": "the true distance to the dense network's features, which trained confidences "
        "tell; fitted ones, as the bundled model's, tell that between frames instead; its seconds "
        "include the dense network, its FLOPs do not",
        "unaligned": "the confidences, of differences to features that were not warped",
    }
)
"""Names, and what each goes by; the first is the model's own."""
_ROUNDS = 10  # routing changes the features on which it rests, so a threshold is found in steps
_NEAR = 0.002  # of the wanted share of blocks


@dataclass(frozen=True, slots=True)
class Uniform:
    """Stands in for a router: chance alone, or a fixed set of blocks."""

    keep: Sequence[float]  # per block, the probability to run it
    generator: torch.Generator

    def __call__(self, differences: Tensor) -> Tensor:
        shape = *differences.shape[:-1], len(self.keep)
        chance = torch.rand(shape, generator=self.generator)
        return (chance < torch.tensor(self.keep)).float().to(differences.device)


class UnalignedTrunk(RoutedTrunk):
    """Compares with features of the frame before that were not warped: motion counts as change."""

    def __init__(self, step: RoutedTrunk) -> None:
        super().__init__(step.trunk, step.router, step.threshold, step.config, step.make_executor)
        self._state: Tensor | None = None

    def __call__(self, frame: Tensor, state: Tensor, flow: Tensor | None) -> Tensor:
        """See `RoutedTrunk`; the state that the trunk reads is the warped one, as ever."""
        still = None if flow is None else torch.zeros_like(flow)  # for features of equal depth
        self._state = super().__call__(frame, state, still)
        return self._state

    def _look(self, grid: TileGrid, features: Tensor, before: Tensor) -> Tensor:
        if self.config.reference == "state":
            assert self._state is not None
            before = self._state
        return super()._look(grid, features, before)


class OracleTrunk(RoutedTrunk):
    """The regression target of training in place of the router; the dense network is run for it.

    That is tanh of the distance to the dense features after the next aligned block. Routers that
    were fitted tell distances between frames, see `fit`, which need the other direction's states.
    """

    def __init__(self, step: RoutedTrunk, aligned_layers: Sequence[int]) -> None:
        by_block = replace(step.config, reference="depth")  # so that it is asked before each block
        super().__init__(
            step.trunk, self._need, step.threshold, by_block, step.make_executor, self._notice
        )
        self._aligned = aligned_layers
        self._dense: Tensor | None = None  # the dense network's state
        self._goals: list[Tensor] = []  # for every block
        self._seen: tuple[int, Tensor] | None = None  # blocks run, and the features after them

    def __call__(self, frame: Tensor, state: Tensor, flow: Tensor | None) -> Tensor:
        if flow is None or self._dense is None:
            self._dense = torch.zeros_like(state)
        else:
            self._dense = warp(self._dense, flow)
        self._dense, self._goals = _run_dense(self.trunk, frame, self._dense, self._aligned)
        return super().__call__(frame, state, flow)

    def _notice(self, depth: int, features: Tensor) -> None:
        self._seen = depth, features

    def _need(self, _differences: Tensor) -> Tensor:
        assert self._seen is not None
        depth, features = self._seen
        grid = _grid(features, self.config)
        gap = replace(grid, stride=1).difference(features, self._goals[depth])
        return gap.mean(-1, keepdim=True).tanh()


class PolicyUpscaler(BlockSkippingUpscaler):
    """A loaded model whose blocks are chosen by a policy; what is added is amplified as by it."""

    def __init__(self, loaded: BasicVSRUpscaler, make_steps: MakeSteps, threshold: float) -> None:
        skip = SkipSettings(threshold=threshold)
        super().__init__(loaded.name, loaded.model, skip, loaded.strength)
        self._make_steps = partial(make_steps, loaded.model, threshold)

    def _steps(self) -> Sequence[RoutedTrunk]:
        return self._make_steps()


def tuned(
    upscaler: BasicVSRUpscaler, policy: str, clips: Sequence[Tensor], share: float
) -> BasicVSRUpscaler:
    """The upscaler's weights with blocks chosen by a policy, tuned to a share of all blocks.

    So much of all blocks of `clips`, `t 3 h w` in [0, 1] each, is run, or as near to it as the
    policy can come. Shallow and deep skip execute whole blocks; the others come to within 0.2 % of
    the blocks where the confidences do.

    Raises:
        SettingsError: when first frames, which run every block, are more than the share.
        WeightsError: for weights without routers.
    """
    model = upscaler.model
    if model.router_forward is None:
        raise WeightsError(f"{upscaler.name}: weights without routers choose no blocks to compare")
    first = _first_share(model, clips)
    if share < first:
        raise SettingsError(
            f"`budgets` asks for {share:.1%} of the blocks, and the first frames of these clips "
            f"alone run {first:.1%}: give larger `budgets`, or more `frames`"
        )
    decided = 0.0 if first == 1 else (share - first) / (1 - first)
    if policy in _SCORED:
        make_steps = _SCORED[policy]
        return PolicyUpscaler(upscaler, make_steps, _tune(model, make_steps, clips, decided))
    keep = _keep(policy, model.config.num_block, decided)
    return PolicyUpscaler(upscaler, partial(_blind, keep=keep), 0.5)


def _unaligned(model: BasicVSR, threshold: float) -> list[RoutedTrunk]:
    return [UnalignedTrunk(step) for step in routed_steps(model, threshold)]


def _oracle(model: BasicVSR, threshold: float) -> list[RoutedTrunk]:
    return [OracleTrunk(step, model.aligned_layers) for step in routed_steps(model, threshold)]


def _blind(model: BasicVSR, threshold: float, keep: Sequence[float]) -> list[RoutedTrunk]:
    """Each block with its own probability; the draws are the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return [
        RoutedTrunk(
            step.trunk,
            Uniform(keep, generator),
            step.threshold,
            replace(step.config, reference="state"),  # so that all blocks are drawn at once
            step.make_executor,
        )
        for step in routed_steps(model, threshold)
    ]


def _run_dense(
    trunk: Trunk, frame: Tensor, state: Tensor, aligned_layers: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """The dense trunk's new state, and for every block the features after the next aligned one."""
    x = trunk.enter(frame, state)
    goals: list[Tensor] = []
    for depth, block in enumerate(trunk.blocks, 1):
        x = block(x)
        if depth in aligned_layers:
            goals += [x] * (depth - len(goals))
    return x, goals


def _grid(frames: Tensor, config: RoutingConfig) -> TileGrid:
    height, width = frames.shape[2:]
    return TileGrid.of(height, width, config.tile, config.stride)


def _first_share(model: BasicVSR, clips: Sequence[Tensor]) -> float:
    """What part of all blocks and tiles belongs to the first frames of both directions."""
    grids = [_grid(clip, model.config.routing) for clip in clips]
    tiles = [grid.rows * grid.columns for grid in grids]
    return sum(tiles) / sum(n * len(clip) for n, clip in zip(tiles, clips, strict=True))


def _tune(model: BasicVSR, make_steps: MakeSteps, clips: Sequence[Tensor], share: float) -> float:
    """The threshold above which this share of the confidences of later frames lies."""
    above, below = (0.0, 1 - share), (1.0, -share)  # thresholds and by how much they miss the share
    threshold = 0.0
    for _ in range(_ROUNDS):
        found = confidences(model, clips, threshold, make_steps)
        if not len(found):
            return threshold  # clips of one frame: nothing is decided
        excess = (found > threshold).double().mean().item() - share
        above, below = ((threshold, excess), below) if excess > 0 else (above, (threshold, excess))
        if abs(excess) <= _NEAR:
            break
        threshold = (above[0] + below[0]) / 2
        if above[0] > 0 and below[0] < 1:  # both were tried: between them, straight
            part = above[1] / (above[1] - below[1])
            threshold = above[0] + (below[0] - above[0]) * min(max(part, 0.1), 0.9)
        elif rank := round((1 - share) * len(found)):
            guess = found.kthvalue(rank).values.item()
            threshold = guess if above[0] < guess < below[0] else threshold
    return min(above, below, key=lambda tried: abs(tried[1]))[0]


def _keep(policy: str, blocks: int, share: float) -> list[float]:
    """The probability of every block, for a policy that looks at nothing."""
    if policy == "uniform":
        return [share] * blocks
    run = round(share * blocks)
    first = [1.0] * run + [0.0] * (blocks - run)
    return first if policy == "deep skip" else first[::-1]


_SCORED: Mapping[str, MakeSteps] = MappingProxyType(
    {"learned": routed_steps, "oracle": _oracle, "unaligned": _unaligned}
)
