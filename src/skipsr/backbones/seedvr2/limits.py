"""What a model of the family can take, on a device by its memory."""

from dataclasses import replace

from skipsr.backbones.pace import slow_seconds
from skipsr.backbones.seedvr2.config import SeedVR2Config
from skipsr.backbones.seedvr2.cost_law import stage_work
from skipsr.backbones.seedvr2.frames import SIZES
from skipsr.backbones.seedvr2.memory_plan import LONGEST, WindowPlanner
from skipsr.limits import Limits
from skipsr.nn.residence import Residence


def limits_of(
    config: SeedVR2Config,
    device: str = "cpu",
    itemsize: int = 4,
    stored: int | None = None,
    *,
    resident: Residence | None = None,
) -> Limits:
    """Limits of a preset on a device, by its memory and pace; see `WindowPlanner`.

    A card's windows are as long as fit.
    """
    law = WindowPlanner(config, device, itemsize, stored=stored, resident=resident)
    work = sum(stage_work(config, config.sampling, pixels=1).values())
    pace = slow_seconds(work, device)
    limits = replace(SIZES, footprint=law, seconds=pace)
    if device.partition(":")[0] != "cuda":
        return limits
    return replace(limits, longest_window=LONGEST, by_footprint=True)
