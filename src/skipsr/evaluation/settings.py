"""What an evaluation can be told; imports no torch, so that the command line's help stays quick."""

from dataclasses import dataclass
from typing import Literal

from skipsr.errors import SettingsError

Degrade = Literal["bicubic", "bd", "real"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    """What is measured, and on what."""

    scale: int = 4
    """Enlarge both sides by this factor, 2 to 8; made LR clips are smaller by it."""
    degrade: Degrade | None = None
    """How LR clips are made from the truth: antialiased bicubic, Gaussian blur and every scale-th
    pixel (bd), or a random chain of real-world damage; by default the given LR clip, or bicubic."""
    frames: int = 25
    """Read this many frames of every clip."""
    metrics: tuple[str, ...] = ()
    """Metrics to measure, by name; by default those that need no extra library."""
    only: str = ""
    """Take only clips with this in their name."""
    seed: int = 0
    """Seed of the models' noise, of real-world damage, and of the order in a study."""

    def __post_init__(self) -> None:
        if not 2 <= self.scale <= 8:
            raise SettingsError(f"--scale {self.scale} is outside 2 to 8")
        if self.frames < 1:
            raise SettingsError(f"--frames {self.frames} is too few: give at least 1")
        if self.degrade == "bd" and self.scale != 4:
            raise SettingsError(f"--degrade bd is defined for --scale 4, not {self.scale}")
        if len(set(self.metrics)) < len(self.metrics):
            raise SettingsError(f"--metrics names one twice: {' '.join(self.metrics)}")
