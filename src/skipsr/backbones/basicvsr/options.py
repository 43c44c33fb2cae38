"""Options of BasicVSR's models alone, beside the settings that all families share."""

from dataclasses import dataclass
from typing import Literal

from skipsr.errors import SettingsError

USUAL_DETAIL = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicVSROptions:
    """What a BasicVSR leaves out, and how."""

    skip: Literal["all", "blocks"] = "all"
    """What is left out where nothing is needed: all of the model, or single residual blocks, as the
    paper has it."""
    patches: bool = False
    """With `skip` blocks: enlarge overlapping patches of 48 pixels each on its own, as SkipVSR's
    paper does, instead of choosing tiles in whole frames; what lies beyond a patch is not seen."""

    detail: float | None = None
    """From 0, which stays with what the clip shows, to 1, crisp; 0.5 by default. Up to there what
    the network adds is drawn the more strongly the more was lost; beyond, details are made up that
    are likely. It costs no time. For weights that hold both trainings, as the bundled ones do."""

    def __post_init__(self) -> None:
        if self.detail is not None and not 0 <= self.detail <= 1:
            raise SettingsError(f"`detail` {self.detail:g} is outside 0 to 1")
        if self.patches and self.skip != "blocks":
            raise SettingsError("`patches` is a way to skip blocks: give `skip` blocks as well")


OPTIONS = BasicVSROptions
