"""How a window is run; where memory is short, decoding by how much of a frame is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from skipsr.backbones.seedvr2.clip_masks import CROSSOVER
from skipsr.nn.causal import Bounds
from skipsr.nn.residence import Residence

_SHARES = [n / 20 for n in range(round(20 * CROSSOVER), 0, -1)]
TIGHTEST = Bounds(band=2**26, frames=1, tails=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasPeaks:
    """Bytes that decoding on canvases takes.

    Attributes:
        first: while the first frame is run, whole, in the bands of `TIGHTEST`.
        always: later, whatever is kept.
        layers: where all of a frame is on a canvas, by frames that are run together at the two
            finest levels; in proportion to what is kept.
        tails: of what layers remember of whole frames; the same.
    """

    first: int
    always: int
    layers: Mapping[int, int]
    tails: int

    def running(self, share: float, frames: int) -> int:
        """Bytes without tails, where no frame after the first keeps more than this."""
        return max(self.first, self.always + int(share * self.layers[frames]))

    def within(self, share: float, bounds: Bounds) -> int:
        """The same with those that stay on the device."""
        return self.running(share, bounds.frames) + min(int(share * self.tails), bounds.tails)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasRoom:
    """Room for decoding on canvases.

    Attributes:
        memory: bytes for all that `peaks` counts.
        away: bytes of tails that wait in the host's memory where whole frames are decoded,
            `together` at a time. Here no more may wait, nor cross the bus for a frame.
    """

    memory: int
    peaks: CanvasPeaks
    away: int = 0
    together: int = 1

    def bounds(self, share: float) -> Bounds | None:
        """Of a window of which no frame after the first keeps more than this; None: no room.

        The fewest tails that have to wait elsewhere, then the most frames together.
        """
        if share > _SHARES[0]:
            return None
        found: list[tuple[float, int, int]] = []
        for frames in self.peaks.layers:
            room = self.memory - self.peaks.running(share, frames)
            away = max(0, int(share * self.peaks.tails) - room)
            if room >= 0 and away <= self.away * min(1.0, frames / self.together):
                found.append((away / frames, -frames, room))
        if not found:
            return None
        _, frames, room = min(found)
        return replace(TIGHTEST, frames=-frames, tails=room, away=self.away)

    @property
    def most(self) -> float:
        """The largest share for which there is room, in twentieths; 0 for none."""
        return next((share for share in _SHARES if self.bounds(share)), 0.0)

    @property
    def peak(self) -> int:
        """Bytes at that share."""
        bounds = self.bounds(self.most)
        return 0 if bounds is None else self.peaks.within(self.most, bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a window is run.

    Attributes:
        bounds: of the autoencoder's memory; None: whole layers.
        canvases: room to decode on canvases within bounds; None: frames are decoded whole.
    """

    weights: Residence = "device"
    bounds: Bounds | None = None
    canvases: CanvasRoom | None = None

    def on_canvases(self, kept: Tensor) -> Bounds | None:
        """The bounds of decoding on canvases where masks keep this, `t' rows columns`; None where
        there are none, or within bounds no room for it."""
        if self.canvases is None or len(kept) < 2:  # a first frame is decoded whole
            return None
        return self.canvases.bounds(kept[1:].float().mean((1, 2)).amax().item())
