"""The packed layout in which the tokens of a clip meet inside windows.

How a grid is cut into windows is a family's own affair; what follows from it is the same for all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from skipsr.nn.attention import Lengths
from skipsr.nn.rope import Rotation


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Order and lengths of packed sequences: how kept tokens and text meet in one kind of window.

    A packed sequence per window that holds a kept token: its tokens in raster order, then all text.
    """

    order: Tensor  # n: row of [kept tokens; text] that stands at each packed place
    lengths: Lengths
    video: Tensor  # k: packed place of each kept token
    text: Tensor  # windows l: packed places of the text
    rotation: Rotation  # of the kept tokens, in their own order

    @staticmethod
    def of(window: Tensor, text_tokens: int, rotation: Rotation) -> "PackedLayout":
        """Lay out tokens in raster order; `window`, `k` on the CPU, numbers each one's window."""
        device = rotation.cos.device
        kept = torch.bincount(window)
        rank = torch.cumsum(kept > 0, 0) - 1  # number of a window among those that hold a token
        kept = kept[kept > 0]
        ends = torch.cumsum(kept + text_tokens, 0)

        by_window = torch.argsort(window, stable=True)
        video = torch.empty_like(by_window)
        video[by_window] = torch.arange(len(window)) + rank[window[by_window]] * text_tokens
        text = ends[:, None] - text_tokens + torch.arange(text_tokens)

        order = torch.empty(len(window) + text.numel(), dtype=torch.long)
        order[video] = torch.arange(len(window))
        order[text] = len(window) + torch.arange(text_tokens)
        return PackedLayout(
            order=order.to(device),
            lengths=Lengths.of((kept + text_tokens).tolist(), device),
            video=video.to(device),
            text=text.to(device),
            rotation=rotation,
        )

    @property
    def window(self) -> Tensor:
        """Number of each token's window among those that hold a token, `k` in raster order."""
        ends = self.lengths.cumulative[1:].to(self.video.dtype)
        return torch.searchsorted(ends, self.video, right=True)

    def only(self, tokens: Tensor) -> "PackedLayout":
        """The layout of some tokens (their rows in raster order) that fill whole windows."""
        rotation = Rotation(self.rotation.cos[tokens], self.rotation.sin[tokens])
        return PackedLayout.of(self.window[tokens].cpu(), self.text.shape[1], rotation)


@dataclass(frozen=True, slots=True)
class Geometry:
    """All that attention needs to know about a clip; layers alternate between the two layouts."""

    layouts: tuple[PackedLayout, PackedLayout]  # regular, shifted
    text_rotation: Rotation | None
