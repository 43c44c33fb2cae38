"""What a model of the family can take, and how much memory that needs."""

from dataclasses import asdict, dataclass
from itertools import pairwise

from skipsr.backbones.basicvsr.config import SCALE, BasicVSRConfig, FlowConfig
from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.backbones.pace import slow_seconds
from skipsr.limits import Footprint, Limits
from skipsr.memory import free_card_memory

PAIR_PIXELS = 2**19  # of neighbouring frames between which flows are estimated together, folded
_FLOAT = 4  # bytes
_BASE = 400 * 2**20  # Python, torch and small things
_LAYERS = 7  # maps of features that are there at once, of a frame that is being computed
_CARD_SHARE = 0.9  # of what is free on a card; blocks of many sizes do not fill the rest
_HOST = 40  # bytes of a frame's pixel beside a card: the windows that are read, run and written
_BESIDE = 110  # bytes of a frame's pixel that are no state: colours, flows, indices, the need


@dataclass(frozen=True, slots=True, kw_only=True)
class _CardFootprint(Footprint):
    """As on a processor, of the memory of a CUDA device, which is the job's alone."""

    device: str

    def budget(self, free: int | None) -> int | None:
        found = free_card_memory(self.device)
        return None if found is None else int(_CARD_SHARE * found)


def limits_of(
    config: BasicVSRConfig, device: str = "cpu", _itemsize: int = 4, _stored: int | None = None
) -> Limits:
    """Limits of a preset on a device, with its pace and the memory footprint of float32.

    The larger of the needs with everything and with little computed; `benchmarks/memory.py`
    measures what is taken of it.
    """
    state = -(-_FLOAT * config.num_feat // config.unshuffle**2)
    finest = 0 if config.hr_feat is None else 4 * _FLOAT * config.hr_feat
    footprint = Footprint(
        base=_BASE + _flow_bytes(config.flow) * PAIR_PIXELS,
        source=_LAYERS * state,
        source_frame=state + _BESIDE + 15,  # of the window ahead: float32 and bytes
        result=32 + finest,  # float32 planes and what is written of them
        result_frame=25,  # float32, once more when it is blended, and what is seen of them
    )
    if device.partition(":")[0] == "cuda":
        told = asdict(footprint) | {"host_frame": _HOST}
        footprint = _CardFootprint(**told, device=device)
    return Limits(
        scale=config.scale,
        smallest=8,
        longest_window=60,
        by_footprint=True,
        footprint=footprint,
        seconds=slow_seconds(cost_of(config).dense / SCALE**2, device),
    )


def _flow_bytes(config: FlowConfig) -> int:
    """Bytes per pixel of a pair of frames, both directions: the widest two layers, and copies."""
    sizes = (8, *config.channels, 2)
    return 4 * _FLOAT * max(a + b for a, b in pairwise(sizes)) // 4**config.finest
