"""What a benchmark runs. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from skipsr.errors import SettingsError

Mechanism = Literal["route", "attention-only", "queries-only", "interleaved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """What to run, and how often."""

    frames: int = 9
    """Frames of the clip, which is synthetic: drifting texture, partly calm, partly busy."""
    height: int = 90
    """Height of its frames before upscaling."""
    width: int = 160
    """Width of its frames before upscaling."""
    scale: float = 4.0
    """Factor by which to enlarge width and height."""
    skip_share: tuple[float, ...] = ()
    """Shares of the picture to skip, such as 0.28 0.4 0.6; by default what the skip options ask
    for, and with `mechanism` 0.277 0.396 0.6, the paper's two and one more."""
    rounds: int = 5
    """How often to run each variant after a warm-up, taking turns; medians are reported."""
    mechanism: tuple[Mechanism, ...] = ()
    """Time one step of the diffusion transformer alone, skipping tokens in these ways: route past
    whole layers, as skipsr does; attention-only, leave them out of attention; queries-only, leave
    them out of its queries; or interleaved, route in every second layer."""
    layers: int | None = None
    """With `mechanism`: number of layers of the transformer, with random weights."""
    features: int | None = None
    """With `mechanism`: width of the transformer, with random weights."""

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("height", 8), ("width", 8), ("rounds", 1)):
            if getattr(self, name) < least:
                raise SettingsError(f"`{name}` {getattr(self, name)} is less than {least}")
        if not 1 <= self.scale <= 16:
            raise SettingsError(f"`scale` {self.scale:g} is outside 1 to 16")
        for share in self.skip_share:
            if not 0 < share < 1:
                raise SettingsError(f"`skip_share` {share:g} is not between 0 and 1")
        if not self.mechanism and (self.layers, self.features) != (None, None):
            raise SettingsError("`layers` and `features` shape a transformer: give `mechanism`")
        if self.layers is not None and self.layers < 1:
            raise SettingsError(f"`layers` {self.layers} is less than 1")

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` of the result."""
        return round(self.height * self.scale), round(self.width * self.scale)
