"""Overlapping patches of a frame, enlarged each on its own and merged, as in SkipVSR's paper."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.basicvsr.network import BasicVSR, Step
from skipsr.tracing import span


@dataclass(frozen=True, slots=True)
class Patches:
    """Square patches over frames of `height x width`, neighbours sharing `overlap` pixels.

    The last patch of a row or column ends with the frame; a side shorter than a patch is extended
    by repeating its border.
    """

    height: int
    width: int
    side: int = 48
    overlap: int = 2

    def folded(self, fold: int) -> "Patches":
        """The same patches in folded pixels; `fold` divides both sides of the frames."""
        sizes = (self.height, self.width, self.side, self.overlap)
        return Patches(*(size // fold for size in sizes))

    @property
    def pitch(self) -> tuple[int, int]:
        """From one patch to the next, down and across; the last ones may overlap more."""
        return self.side - self.overlap, self.side - self.overlap

    @property
    def rows(self) -> int:
        return len(self._starts(self.height))

    @property
    def columns(self) -> int:
        return len(self._starts(self.width))

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of every patch, row by row."""
        return list(itertools.product(self._starts(self.height), self._starts(self.width)))

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        last = length - self.side
        return [*range(0, last, self.side - self.overlap), last]

    def split(self, frames: Tensor) -> Tensor:
        """`t c h w` -> `k t c side side`."""
        below, beside = max(0, self.side - self.height), max(0, self.side - self.width)
        if below or beside:
            frames = F.pad(frames, (0, beside, 0, below), mode="replicate")
        cut = [frames[..., y : y + self.side, x : x + self.side] for y, x in self.corners]
        return torch.stack(cut)

    def merge(self, patches: Tensor, scale: int = 1) -> Tensor:
        """`k t c (s side) (s side)` -> `t c (s h) (s w)`, float32, means where they overlap."""
        _, t, c, side, _ = patches.shape
        size = [max(self.side, length) * scale for length in (self.height, self.width)]
        total = patches.new_zeros(t, c, *size, dtype=torch.float32)
        weight = total.new_zeros(size)
        for patch, (y, x) in zip(patches, self.corners, strict=True):
            rows = slice(y * scale, y * scale + side)
            columns = slice(x * scale, x * scale + side)
            total[..., rows, columns] += patch.float()
            weight[rows, columns] += 1
        return (total / weight)[..., : self.height * scale, : self.width * scale]


def run_patches(
    model: BasicVSR,
    frames: Tensor,
    backward: Step,
    forward: Step,
    *,
    host: bool = False,
    strength: Tensor | None = None,
) -> Iterator[Tensor]:
    """As `BasicVSR.run` for one clip `1 t 3 h w`, each patch a small clip of its own.

    Only flows come from whole frames.
    """
    patches = Patches(frames.shape[3], frames.shape[4])
    places = patches.folded(model.config.unshuffle)
    with span("flow"):
        to_next, to_previous = (places.split(flow[0]) for flow in model.flows(frames))
    cut = patches.split(frames[0])
    flows = to_next, to_previous
    for enlarged in model.run(cut, backward, forward, flows=flows, host=host, strength=strength):
        yield patches.merge(enlarged[:, None], model.config.scale)
