"""The masks of a clip, from the need of its cells, before the model runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from skipsr.skipping.decide import STRIP, needed
from skipsr.skipping.dial import Dial
from skipsr.skipping.need import CELL, Decider, Need, NeedPredictor, ask
from skipsr.skipping.regions import widen
from skipsr.skipping.reuse import without_still
from skipsr.timeline import TOKEN_FRAMES, token_layer

CROSSOVER = 0.9  # kept share of a window's tokens from which all of it is decoded
CROSSOVER_BY_UNIT = 0.65  # of a small autoencoder, where a unit for matrices runs its layers


@dataclass(frozen=True, slots=True)
class ClipMasks:
    """What becomes of every layer of tokens, and of every frame.

    Attributes:
        needed: bool `t' rows columns`, tokens that are refined, and shown.
        kept: those that are needed then or later, whole columns of strips: what is decoded.
        still: for every frame the cells that show what they showed one frame before unless they are
            refined; None where there are none.
        whole: frames are decoded whole, though no more of them is shown.
    """

    needed: Tensor
    kept: Tensor
    still: Sequence[Tensor | None]
    whole: bool = False

    def spent(self, denoising: float) -> float:
        """What is run, as a share of what could be.

        Args:
            denoising: the transformer's share of that work; the decoder has the rest.
        """
        decoded = self.decoded(whole_first=False)
        return denoising * self.needed.float().mean().item() + (1 - denoising) * decoded

    def decoded(self, *, whole_first: bool) -> float:
        """The share of the frames that is decoded, those of the padding among them.

        Args:
            whole_first: the first frame is run whole, as norms want it, if anything is.
        """
        if self.whole:
            return 1.0
        shares = over_frames(self.kept, len(self.still)).float().mean((1, 2))
        if whole_first and bool(self.kept.any()):
            shares[0] = 1
        return shares.mean().item()


def choose_masks(
    predictor: Decider,
    head: int,
    views: Sequence[Tensor],
    dial: Dial,
    still: Sequence[Tensor | None],
    denoising: float,
    crossover: float,
) -> ClipMasks:
    """The masks of a clip.

    Args:
        views: the frames in one way or more, each `t 3 h w` at a quarter of the result's size,
            padded; a cell needs what it needs in any. A predictor of one's own sees the first.
        still: of every frame the still cells, see `still_cells`.
        denoising: see `ClipMasks.spent`.
        crossover: kept share from which all is decoded, which then takes less time.
    """
    if dial.everything:
        t, _, h, w = views[0].shape
        return _masks(torch.ones(t, h // CELL, w // CELL, dtype=torch.bool), still, crossover)
    if isinstance(predictor, NeedPredictor):
        need = reduce(Need.larger, map(predictor, views))
    else:
        need = ask(predictor, views[0])

    def spent(keep: Tensor) -> float:
        return _masks(keep, still, crossover).spent(denoising)

    return _masks(needed(need, head, dial, spent=spent), still, crossover)


def _masks(keep: Tensor, still: Sequence[Tensor | None], crossover: float) -> ClipMasks:
    """Of the cells that need the model, bool `t rows columns`."""
    need = torch.stack(without_still(keep, still))
    tokens = torch.stack(
        [
            need[max(0, first) : first + TOKEN_FRAMES].any(0)
            for first in range(1 - TOKEN_FRAMES, len(need), TOKEN_FRAMES)
        ]
    )
    later = tokens.flip(0).cummax(0).values.flip(0)
    kept = widen(later, STRIP)
    if kept.float().mean() >= crossover:
        kept = torch.ones_like(kept)
    return ClipMasks(tokens, kept, still)


def over_frames(layers: Tensor, frames: int) -> Tensor:
    """Masks of layers of tokens, `t' rows columns`, as masks of frames, on the CPU."""
    return layers.cpu()[[token_layer(frame) for frame in range(frames)]]
