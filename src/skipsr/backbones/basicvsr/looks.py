"""What the light upsampler sees of a clip's frames: its picture, and what lies beyond what is run.

A frame is looked at once, before the networks run; of both is kept what will be asked for.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from skipsr.backbones.basicvsr.frame_masks import FrameMasks
from skipsr.backbones.basicvsr.network import DIRECTIONS, Direction
from skipsr.skipping.light import LightUpsampler, rows_at
from skipsr.skipping.need import CELL
from skipsr.skipping.surroundings import Surroundings


class Looks:
    """Those of the frames of one clip."""

    def __init__(
        self,
        light: LightUpsampler,
        surroundings: Surroundings | None,
        masks: Sequence[FrameMasks],
        size: tuple[int, int],
        keep: torch.device,
    ) -> None:
        """
        Args:
            size: of a frame in places, `(height, width)`.
            keep: where what was seen waits.
        """
        self._light, self._surroundings = light, surroundings
        self._masks, self._size, self._keep = masks, size, keep
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}  # places that show the base, k; k 16
        self._codes: dict[tuple[int, Direction], Tensor] = {}  # of what lies beyond what is run

    def look(self, i: int, pixels: Tensor) -> None:
        """See frame `i`, whose folded `pixels` are `h*w inputs`."""
        mask = self._masks[i]
        band = mask.band(self._size[0], beyond=self._surroundings is not None)
        if mask.regions.whole or band.start == band.stop:
            return
        hidden = self._light.hidden(pixels.T.unflatten(1, self._size)[None], band)
        first, device = band.start * self._size[1], pixels.device
        shown = mask.asked_places(self._size).to(device)
        rows = hidden[-1].permute(0, 2, 3, 1).flatten(0, 2).index_select(0, shown - first)
        self._seen[i] = shown.to(self._keep), rows.to(self._keep)
        if self._surroundings is not None:
            last = (band.stop - band.start) * self._size[1] - 1
            for direction in DIRECTIONS[:1] if mask.backward is None else DIRECTIONS:
                plan = mask.regions_in(direction).at(CELL, self._size, device)
                beyond = (plan.beyond_pixels - first).clamp(0, last)  # those that only fill up
                code = self._surroundings.code(rows_at(hidden, beyond))
                self._codes[i, direction] = code.to(self._keep)

    def code(self, i: int, direction: Direction, device: torch.device) -> Tensor | None:
        """Of what lies beyond what is run of a frame in a direction, `k r`; None: not seen."""
        alike = self._masks[i].backward is None
        code = self._codes.get((i, DIRECTIONS[0] if alike else direction))
        return None if code is None else code.to(device)

    def add_to(self, planes: Tensor, i: int, band: slice, strength: Tensor | None) -> None:
        """Add to a band of frame `i`, `h w 48` without it, where its base is asked for.

        Elsewhere it holds anything; see `LightUpsampler.add_to`.
        """
        if i not in self._seen:
            return
        shown, rows = (each.to(planes.device) for each in self._seen.pop(i))
        seen = rows.new_zeros(1, *planes.shape[:2], rows.shape[1])
        seen.flatten(0, 2).index_copy_(0, shown - band.start * self._size[1], rows)
        self._light.add_to(planes, seen.permute(0, 3, 1, 2), strength)
