"""Windowed joint attention of video and text on packed tokens."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from skipsr.backbones.seedvr2.config import DiTConfig
from skipsr.nn.attention import packed_attention
from skipsr.nn.fused import heads, place_heads
from skipsr.nn.norm import RMSNorm
from skipsr.nn.packing import PackedLayout
from skipsr.nn.rope import Rotation, language_frequencies, pixel_frequencies
from skipsr.weights.quantized import opened

TOKENS_TOGETHER = 2**13  # without gradients, in what is done token by token
M = TypeVar("M", bound=nn.Module)


class PerModality(nn.Module, Generic[M]):
    """One module for each of video and text, or one that both use; named as in the checkpoints."""

    def __init__(self, make: Callable[[], M], *, shared: bool, text: bool = True) -> None:
        super().__init__()
        if shared:
            self.all = make()
        else:
            self.vid = make()
            if text:
                self.txt = make()

    @property
    def video(self) -> M:
        return getattr(self, "all" if hasattr(self, "all") else "vid")

    @property
    def text(self) -> M:
        return getattr(self, "all" if hasattr(self, "all") else "txt")


def frequencies_of(config: DiTConfig) -> Tensor:
    make = language_frequencies if config.rotary == "language" else pixel_frequencies
    return make(config.rotary_dim)


class RotaryFrequencies(nn.Module):
    """Holds the rotary frequencies, part of the checkpoints, as the published `rope.rope.freqs`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.rope = nn.Module()
        self.rope.register_buffer("freqs", frequencies_of(config))


class WindowAttention(nn.Module):
    """Full attention inside each window, over its kept video tokens and all text."""

    def __init__(self, config: DiTConfig, *, shared: bool) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.proj_qkv = PerModality(
            lambda: nn.Linear(config.width, 3 * inner, bias=config.qk_bias), shared=shared
        )
        self.proj_out = PerModality(lambda: nn.Linear(inner, config.width), shared=shared)
        self.norm_q = PerModality(lambda: RMSNorm(config.head_dim, config.eps), shared=shared)
        self.norm_k = PerModality(lambda: RMSNorm(config.head_dim, config.eps), shared=shared)
        self.rope = RotaryFrequencies(config)

    def forward(
        self, video: Tensor, text: Tensor, layout: PackedLayout, text_rotation: Rotation | None
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            video: `k width`, kept tokens in raster order.
            text: `l width`.

        Returns:
            Video `k width` and text `l width`; the text is its mean over the windows.
        """
        q, k, v = self._packed(video, text, layout, text_rotation)
        out = packed_attention(q, k, v, layout.lengths).flatten(1)  # n inner
        del q, k, v
        video, text = out[layout.video], out[layout.text].mean(0)
        return self.proj_out.video(video), self.proj_out.text(text)

    def _packed(
        self, video: Tensor, text: Tensor, layout: PackedLayout, text_rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v in the layout's order, `n heads dim`."""
        told = self.proj_qkv.text(text)
        norms = self.norm_q.video, self.norm_k.video
        text_norms = self.norm_q.text, self.norm_k.text
        if torch.is_grad_enabled():
            seen = heads(self.proj_qkv.video(video), *norms, layout.rotation, self.heads)
            said = heads(told, *text_norms, text_rotation, self.heads)
            q, k, v = (torch.cat(pair)[layout.order] for pair in zip(seen, said, strict=True))
            return q, k, v
        dim = told.shape[1] // 3 // self.heads
        packed = told.new_empty(3, layout.lengths.total, self.heads, dim)
        place_heads(told, *text_norms, text_rotation, layout.text, packed)
        with opened(self.proj_qkv.video, video.dtype):
            for a in range(0, len(video), TOKENS_TOGETHER):
                some = slice(a, a + TOKENS_TOGETHER)
                rotation = Rotation(layout.rotation.cos[some], layout.rotation.sin[some])
                seen = self.proj_qkv.video(video[some])
                place_heads(seen, *norms, rotation, layout.video[some], packed)
                del seen  # nothing holds it beside the next
        q, k, v = packed
        return q, k, v
