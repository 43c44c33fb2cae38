"""Options of BasicVSR's models alone, beside the settings that all families share."""

from dataclasses import dataclass
from typing import Literal

from skipsr.errors import SettingsError
from skipsr.settings import check_kinds

DEFAULT_DETAIL = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicVSROptions:
    """What a BasicVSR leaves out, and how."""

    skip: Literal["all", "blocks"] = "all"
    """What to skip where the model is not needed: all of it, or single residual blocks, as in the
    paper."""
    patches: bool = False
    """With `skip` blocks: upscale overlapping 48-pixel patches independently, as in the SkipVSR
    paper, instead of selecting tiles in whole frames; a patch sees nothing beyond its borders."""

    detail: float | None = None
    """From 0, faithful to what the clip shows, to 1, crisp; 0.5 by default. Up to 0.5, the detail
    that the network adds is amplified, more so the more was lost; above, plausible detail is
    invented, which needs weights of a second training, such as nano's. It takes no extra time."""

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.detail is not None and not 0 <= self.detail <= 1:
            raise SettingsError(f"`detail` {self.detail:g} is outside 0 to 1")
        if self.patches and self.skip != "blocks":
            raise SettingsError("`patches` is a way to skip blocks: give `skip` blocks as well")


OPTIONS = BasicVSROptions
