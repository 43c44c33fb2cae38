"""Dynamic routing: which residual blocks run where.

A router gives a confidence per tile and block, from how far features are from those of the frame
before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from skipsr.backbones.basicvsr.blocks import Trunk
from skipsr.backbones.basicvsr.config import RoutingConfig
from skipsr.backbones.basicvsr.tiles import BlockExecutor, TileGrid
from skipsr.nn.warp import warp

_CAREFUL = 2.0  # the first bias: an untrained router is 88 % sure that a block is needed
MakeExecutor = Callable[[Tensor, TileGrid], BlockExecutor]
Watch = Callable[[int, Tensor], None]


class Router(nn.Module):
    """The confidence that a block is needed, from one feature difference per channel.

    One output, shared by all blocks, when each block is decided by itself (`reference="depth"`);
    one output per block when all are decided at once (`reference="state"`).
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, outputs)
        nn.init.constant_(self.fc.bias, _CAREFUL)

    def forward(self, differences: Tensor) -> Tensor:
        """`... c` -> confidences `... outputs` in (0, 1), float32; no gradient to the features."""
        with torch.autocast(differences.device.type, enabled=False):
            weights = next(self.parameters())
            return self.fc(differences.detach().to(weights.dtype)).float().sigmoid()


@dataclass(slots=True)
class RoutedTrunk:
    """A recurrence's step with routed blocks: one direction over one clip.

    It remembers the features of the frame before, so each clip has its own.

    The first frame has nothing to be compared with, and runs every block.
    """

    trunk: Trunk
    router: Callable[[Tensor], Tensor]
    threshold: Tensor  # a block runs where the confidence is above; broadcasts to `n rows columns`
    config: RoutingConfig
    make_executor: MakeExecutor
    watch: Watch = lambda _depth, _features: None  # told of the features after 0, 1, ... blocks
    confidences: list[Tensor] = field(default_factory=list[Tensor])  # `m n rows columns`
    executed: list[Tensor] = field(default_factory=list[Tensor])  # bool `m n rows columns`
    _before: list[Tensor] = field(default_factory=list[Tensor])

    def __call__(self, frame: Tensor, state: Tensor, flow: Tensor | None) -> Tensor:
        """The new state `n c h w` from a frame and the state warped to it by `flow` (`n h w 2`)."""
        entered = self.trunk.enter(frame, state)
        _, _, h, w = entered.shape
        grid = TileGrid.of(h, w, self.config.tile, self.config.stride)
        by_depth = self.config.reference == "depth"
        at_once = None if flow is None or by_depth else self._look(grid, entered, state)
        executor = self.make_executor(entered, grid)
        seen: list[Tensor] = []
        sure: list[Tensor] = []
        masks: list[Tensor] = []
        for depth, block in enumerate(self.trunk.blocks):
            features = executor.features
            self.watch(depth, features)
            if flow is None:
                confidence = features.new_ones(len(frame), grid.rows, grid.columns).float()
            elif at_once is None:
                before = warp(self._before[depth], flow)
                confidence = self._look(grid, features, before)[..., 0]
            else:
                confidence = at_once[..., depth]
            limit = self.threshold if flow is not None else 0 * self.threshold
            mask = (confidence > limit) | (limit <= 0)  # a confidence may be rounded to 0
            if by_depth:
                seen.append(features.clone())
            executor.run(block, mask)
            sure.append(confidence)
            masks.append(mask)
        self.watch(len(masks), executor.features)
        self._before = seen
        self.confidences.append(torch.stack(sure))
        self.executed.append(torch.stack(masks))
        return executor.features

    def _look(self, grid: TileGrid, features: Tensor, before: Tensor) -> Tensor:
        """Confidences `n rows columns outputs` that what changed since needs work."""
        with torch.no_grad():
            differences = grid.difference(features, before)
        return self.router(differences)
