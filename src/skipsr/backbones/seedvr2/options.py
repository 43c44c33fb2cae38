"""Options of SeedVR2's models alone, beside the settings that all families share."""

from dataclasses import dataclass
from typing import Literal

from skipsr.errors import SettingsError
from skipsr.settings import check_kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedVR2Options:
    """What a SeedVR2 leaves out, and how it samples."""

    skip: Literal["all", "tokens"] = "all"
    """What to skip where the model is not needed: all of it, or only tokens of the transformer, as
    in the paper."""
    steps: int | None = None
    """Sampling steps, 1 to 1000; by default as the model was trained."""
    guidance: float | None = None
    """Classifier-free guidance scale: how strongly sampling moves away from the negative
    conditioning, 1 (not at all) to 20; by default as the model was trained, 6.5 for
    seedvr2:3b-50."""

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise SettingsError(f"`steps` {self.steps} is outside 1 to 1000")
        if self.guidance is not None and not 1 <= self.guidance <= 20:
            raise SettingsError(f"`guidance` {self.guidance:g} is outside 1 to 20")


OPTIONS = SeedVR2Options
