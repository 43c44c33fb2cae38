"""Configurations of the BasicVSR family: what describes weights, and the named presets."""

from dataclasses import dataclass, replace
from typing import Literal

SCALE = 4  # pixels of the result along each axis of a pixel of the states


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """The flow network, SPyNet; the defaults are the published one."""

    channels: tuple[int, ...] = (32, 64, 32, 16)  # of the hidden convolutions of a level
    kernel: int = 7
    levels: int = 6
    finest: int = 0  # halvings before the finest level; a small network stops short of full size

    @property
    def multiple(self) -> int:
        """Sides of what the pyramid is built from."""
        return 2 ** (self.levels - 1 + self.finest)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingConfig:
    """How the routers choose blocks."""

    tile: int = 48  # LR pixels, the longest side of what is decided together
    reference: Literal["depth", "state"] = "depth"
    """What features are compared with: those of the frame before after as many blocks, or once a
    frame and for all blocks together, the incoming state."""
    stride: int = 1  # of the pixels that the router averages, along each axis
    align: int = 6  # blocks from one target layer to the next
    budget: float = 1.0  # share of the dense FLOPs to spend, if nothing else is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicVSRConfig:
    """A whole model. The published ones differ from each other in their training only."""

    num_feat: int = 64
    num_block: int = 30  # residual blocks per direction
    hr_feat: int | None = 64  # channels at full size; None: pixels straight from LR features
    flow: FlowConfig = FlowConfig()
    routing: RoutingConfig = RoutingConfig()
    unshuffle: int = 1
    """Pixels along each axis that are folded into channels before everything else: at 2 the model
    enlarges by two, and a pixel of the result costs what it costs at 1."""

    @property
    def scale(self) -> int:
        """How much larger the result is along each axis."""
        return SCALE // self.unshuffle

    @property
    def inputs(self) -> int:
        """Channels of a folded frame."""
        return 3 * self.unshuffle**2


_SMALL_FLOW = FlowConfig(channels=(32, 32, 16), kernel=3, levels=5, finest=1)

_NANO = BasicVSRConfig(
    num_feat=48,
    num_block=6,
    hr_feat=None,
    flow=_SMALL_FLOW,
    routing=RoutingConfig(reference="state", stride=2, align=3, budget=0.66),
)
_SMALL = replace(_NANO, num_feat=64, num_block=18)

PRESETS: dict[str, BasicVSRConfig] = {
    "x4": BasicVSRConfig(),
    "small": _SMALL,
    "small-x2": replace(_SMALL, unshuffle=2),
    "nano": _NANO,
    "nano-x2": replace(_NANO, unshuffle=2),
    "tiny": BasicVSRConfig(
        num_feat=8,
        num_block=3,
        hr_feat=None,
        flow=FlowConfig(channels=(8,), kernel=3, levels=2, finest=1),
    ),
}

JUDGED_AS = {"skipvsr:small": "skipvsr:nano", "skipvsr:small-x2": "skipvsr:nano-x2"}
"""Models of which need and doubt are predicted as another's, which began as that one."""

SIBLINGS = {"small": ("small-x2",), "nano": ("nano-x2",)}
