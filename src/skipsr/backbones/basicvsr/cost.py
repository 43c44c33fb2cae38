"""Multiply-adds of the network, and of a routed run."""

import itertools
from dataclasses import dataclass

from skipsr.backbones.basicvsr.config import SCALE, BasicVSRConfig, FlowConfig
from skipsr.skipping.dial import CostModel

# fixed, slope and overhead: benchmarks/results/regions_skipvsr_nano*.md, to 0.04
_TIME = 0.17, 1.0, 1300.0
_TIME_BY_UNIT = 0.42, 1.45, 5000.0  # where a unit for matrices runs the layers


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds per pixel of the states and frame: 16 pixels of the result."""

    blocks: float  # both directions; the part that can be skipped
    rest: float  # input convolutions, fusion, upsampler
    flow: float  # both directions; the paper does not count it

    @property
    def dense(self) -> float:
        return self.blocks + self.rest + self.flow

    def share(self, executed: float) -> float:
        """The cost as a share of the dense one, when this share of the blocks is executed."""
        return (self.rest + self.flow + executed * self.blocks) / self.dense


def cost_of(config: BasicVSRConfig) -> Cost:
    """Per pixel of the states; biases, activations and warps are not counted."""
    c, hr = config.num_feat, config.hr_feat
    blocks = 2 * config.num_block * 2 * 9 * c * c
    enter = 2 * 9 * (c + config.inputs) * c
    fusion = 2 * c * c
    if hr is None:
        up = 9 * c * 3 * SCALE**2
    else:
        up = 9 * c * 4 * c + 4 * 9 * c * 4 * hr + SCALE**2 * (9 * hr * hr + 9 * hr * 3)
    return Cost(float(blocks), float(enter + fusion + up), 2 * _flow_cost(config.flow))


def region_cost(config: BasicVSRConfig, *, by_unit: bool = False) -> CostModel:
    """Where cells are skipped all but the flow network runs for kept ones alone.

    Args:
        by_unit: whether the layers are run by a unit for matrices, see `has_matrix_unit`.
    """
    cost = cost_of(config)
    fixed, slope, overhead = _TIME_BY_UNIT if by_unit else _TIME
    always = cost.flow / cost.dense
    return CostModel(always=always, fixed=fixed, slope=slope, overhead=overhead)


def _flow_cost(config: FlowConfig) -> float:
    """Multiply-adds of one flow, on frames whose sides the pyramid's multiple divides."""
    widths = (8, *config.channels, 2)
    level = sum(a * b for a, b in itertools.pairwise(widths)) * config.kernel**2
    return sum(level / 4 ** (config.finest + halvings) for halvings in range(config.levels))
