"""What is shown: refined tokens with soft borders, what stands still as before, else the base."""

import torch
from torch import Tensor

from skipsr.backbones.seedvr2.clip_masks import ClipMasks, over_frames
from skipsr.nn.transfer import send
from skipsr.skipping.feather import feather
from skipsr.skipping.reuse import refined_cells
from skipsr.skipping.route import over_pixels
from skipsr.timeline import TOKEN_SIDE


class Composition:
    """Composes the frames of a clip in their order, on the device where they are."""

    def __init__(self, masks: ClipMasks, count: int, device: torch.device) -> None:
        """Args:
        count: of the clip's frames, those of its padding among them.
        """
        tokens = over_frames(masks.needed, count)
        every = refined_cells(tokens, masks.still)
        self._whole = tokens.all((1, 2)).tolist()
        self._again = [
            i > 0 and torch.equal(tokens[i], tokens[i - 1]) and torch.equal(every[i], every[i - 1])
            for i in range(count)
        ]  # as in the frame before
        self._tokens, self._shown = (send(cells, device) for cells in (tokens, torch.stack(every)))
        self._still = [None if still is None else send(still, device) for still in masks.still]
        self._weight: Tensor | None = None
        self._last: Tensor | None = None
        self._done = 0

    def next(self, refined: Tensor, base: Tensor) -> Tensor:
        """The next frames of both, `t 3 h w`, as one."""
        return torch.stack([self._one(*frames) for frames in zip(refined, base, strict=True)])

    def _one(self, refined: Tensor, base: Tensor) -> Tensor:
        i, self._done = self._done, self._done + 1
        still, size = self._still[i], base.shape[1:]
        if self._whole[i]:
            self._last = refined
            return refined
        if still is not None and self._last is not None:
            base = torch.where(over_pixels(still, TOKEN_SIDE, size), self._last, base)
        if self._weight is None or not self._again[i]:
            weight = feather(self._shown[i], (size[0], size[1]), TOKEN_SIDE)
            self._weight = weight * over_pixels(self._tokens[i], TOKEN_SIDE, size)
        self._last = torch.lerp(base, refined, self._weight)
        return self._last
