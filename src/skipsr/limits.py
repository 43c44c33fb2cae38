"""What a model can take: sizes, the windows that suit it, and how these fit into memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

ON_DEVICE = "device"  # where all weights are, if nothing else is planned
_STRETCH = 1.45  # of a network's result, before the network of the next scale is the better one
_MEMORY = 8 * 2**30  # bytes that a window of a `Footprint` may take when nothing is said
_SHARE = 0.6  # and of what is free
_SHORTEST = 2  # frames: of one a recurrence knows no other


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """How windows are run within so much memory.

    Attributes:
        window: frames that are run together.
        stages: bytes that each stage takes at its peak, or "window" all of them.
        host: bytes in the host's memory beside a card's; 0 where that is where all runs.
        roomy: so much more memory is there that on a processor what is freed can be kept; see
            `memory.keep_freed`.
        reasons: what was chosen and why, a line each.
        residence: where weights are while they are not needed, in a word of the family's.
        execution: how the family's own upscaler runs a window.
    """

    window: int
    stages: Mapping[str, int]
    host: int = 0
    roomy: bool = False
    reasons: tuple[str, ...] = ()
    residence: str = ON_DEVICE
    execution: object = None

    @property
    def peak(self) -> int:
        """Bytes of the stage that takes most."""
        return max(self.stages.values())


class MemoryLaw(Protocol):
    """A model's memory need by window length and frame size, worked out without running it.

    Sizes are `(height, width)`, of the source and the result.
    """

    def budget(self, free: int | None) -> int | None:
        """Bytes to stay within when nothing is said; None where that is unknown.

        Args:
            free: bytes of the host's memory that are to be had.
        """
        ...

    def fit(
        self,
        memory: int,
        source: tuple[int, int],
        size: tuple[int, int],
        window: int | None,
        longest: int,
        host: int | None = None,
    ) -> MemoryPlan | None:
        """The longest window, up to `longest`, that fits, or `window` frames; None if none does.

        Args:
            longest: frames that are of use, or that there are.
            host: bytes of the host's memory to stay within beside a card's; None: not known.
        """
        ...

    def least(self, source: tuple[int, int], size: tuple[int, int], window: int | None) -> int:
        """The fewest bytes for which `fit` finds something, about."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """How much memory a window takes, at most, in bytes; a `MemoryLaw`.

    Attributes:
        base: whatever is computed.
        source, result: for every pixel of a frame, before and after, however many frames there are.
        source_frame, result_frame: the same, of each frame of the window.
        host_frame: for every pixel of each frame, before and after, in the host's memory beside a
            card's; 0 where that is where all runs.
    """

    base: int
    source: int
    source_frame: int
    result: int
    result_frame: int
    host_frame: int = 0

    def of(self, frames: int, source: int, result: int) -> int:
        """Bytes for a window of `frames` frames, of so many pixels before and after."""
        before, after = (
            self.source + self.source_frame * frames,
            self.result + self.result_frame * frames,
        )
        return self.base + before * source + after * result

    def frames(self, memory: int, source: int, result: int) -> int:
        """The most frames that `memory` bytes can hold; may be 0 or less."""
        each = self.source_frame * source + self.result_frame * result
        return (memory - self.of(0, source, result)) // each

    def budget(self, free: int | None) -> int | None:
        return _MEMORY if free is None else min(_MEMORY, int(_SHARE * free))

    def fit(
        self,
        memory: int,
        source: tuple[int, int],
        size: tuple[int, int],
        window: int | None,
        longest: int,
        host: int | None = None,
    ) -> MemoryPlan | None:
        before, after = math.prod(source), math.prod(size)
        most, beside = self.frames(memory, before, after), self.host_frame * (before + after)
        if host is not None and beside:
            most = min(most, host // beside)
        frames = window or min(longest, max(most, _SHORTEST))
        taken = self.of(frames, before, after)
        if taken > memory or (host is not None and frames * beside > host):
            return None
        why = "as many as are of use" if frames == longest else "as many as fit"
        why = "as asked" if window else why
        return MemoryPlan(
            window=frames,
            stages={"window": taken},
            host=frames * beside,
            reasons=(f"window: {frames} frame{'s' * (frames > 1)}; {why}",),
        )

    def least(self, source: tuple[int, int], size: tuple[int, int], window: int | None) -> int:
        return self.of(window or _SHORTEST, math.prod(source), math.prod(size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Clips and sides that an upscaler can take, and the windows that suit it.

    Clips have `step * n + 1` frames, and sides are multiples of `side`. Upscalers pad and trim on
    their own; the pipeline uses this to cut windows that need no padding.
    """

    step: int = 1
    side: int = 1
    smallest: int = 1  # shortest side of the input, pixels
    window_pixels: int = 32_000_000  # of the result in one window, by default
    longest_window: int = 25  # frames, by default
    overlap: int = 5  # frames that neighbouring windows share, by default
    footprint: MemoryLaw | None = None  # None: not known
    by_footprint: bool = False  # windows are as long as it says, not as `window_pixels` does
    scale: int | None = None  # by how much the network enlarges; None: it works at any size
    seconds: float = 0.0  # of a pixel of the result where machines are slow; 0: not known
    others: tuple["Limits", ...] = ()  # of the same model's networks for other scales

    @property
    def scales(self) -> tuple[int, ...]:
        """By how much there are networks to enlarge, such as `(2, 4)`; empty for any size."""
        every = {one.scale for one in (self, *self.others)}
        return tuple(sorted(scale for scale in every if scale is not None))

    def towards(self, source: tuple[int, int], size: tuple[int, int]) -> "Limits":
        """Limits of the network that takes `source` to `size`, `(height, width)` each.

        It is that of the least scale whose result need be enlarged by no more than 1.45 from there:
        with networks for 2 and 4, up to 2.9 that for 2.
        """
        every = sorted((self, *self.others), key=lambda one: one.scale or 0)
        for one in every[:-1]:
            reach = [math.ceil(_STRETCH * (one.scale or 0) * side) for side in source]
            if size[0] <= reach[0] and size[1] <= reach[1]:
                return one
        return every[-1]

    def pad_frames(self, frames: int) -> int:
        """The least `step * n + 1` that holds `frames` frames."""
        return -(-(frames - 1) // self.step) * self.step + 1

    def window(self, pixels: int) -> int:
        """Frames `step * n + 1` of a window, n at least 1, for results of so many pixels each."""
        return self.fit(self.window_pixels // pixels)

    def fit(self, frames: int) -> int:
        """The longest window of up to `frames` frames, or the shortest that suits the model."""
        frames = min(self.longest_window, max(1, frames))
        return max(1, (frames - 1) // self.step) * self.step + 1

    def overlap_of(self, window: int) -> int:
        """Frames that neighbours of `window` frames share.

        That is `overlap` where it is at most two fifths of them, else one, or none where that is
        more too: windows of two that share one would run every frame twice.
        """
        return self.overlap if 5 * self.overlap <= 2 * window else int(window > 2)

    def pad_side(self, pixels: int) -> int:
        """The least multiple of `side` that holds `pixels` pixels."""
        return -(-pixels // self.side) * self.side
