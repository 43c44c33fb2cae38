"""Layers of the autoencoder on canvases that hold the kept part of a slice, `t height width c`
(`skipping.regions`).

What a convolution reads is put into its gutters before: kept neighbours where there are any. What
is skipped counts as zero in an autoencoder without norms, which then is the whole network with
zeros between its layers. To norms zeros are no neutral value: there everything outside the kept
part stands as it was when it was last run, in gutters, in statistics, and in what attention looks
at. For that the first frame has to be whole.

Masks only shrink in time, so that a causal layer has seen before what it sees now; its last frames
move from one canvas to the next.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.backbones.seedvr2.blocks import (
    Downsampler,
    FrameAttention,
    MidBlock,
    ResBlock,
    Upsampler,
)
from skipsr.backbones.seedvr2.regional_norms import Statistics
from skipsr.nn.causal import CausalConv3d, convolve3d
from skipsr.nn.fused import affine_silu, copy_rows
from skipsr.nn.norm import affine_of
from skipsr.skipping.regions import CanvasPlan, Regions, count_pixels, places_of
from skipsr.tracing import worked

CELL = 2  # latent cells a side
_Fill = Callable[[Tensor], object]


class CanvasLevels:
    """The canvases of a slice at all levels of the autoencoder, and the indices between them.

    Levels are told apart by the pixels that a cell has a side.

    Attributes:
        keep: bool `rows columns`, on the CPU.
        leaving: cells that the current slice runs for the last time; None for none.
    """

    def __init__(
        self,
        keep: Tensor,
        strip: int,
        size: tuple[int, int],
        device: torch.device,
        whole: int = 0,
    ) -> None:
        """Args:
        strip: rows of cells in a strip.
        size: latent cells, `(height, width)`.
        whole: levels of up to so many pixels are run as a whole.
        """
        self.keep = keep
        self.leaving: Tensor | None = None
        self._regions = Regions(keep, len(keep) if bool(keep.all()) else strip)
        self._all = Regions(torch.ones_like(keep), len(keep))
        self._size, self._device, self._whole = size, device, whole
        self._made: dict[tuple[str, int], Tensor] = {}

    def _once(self, what: str, pixels: int, make: Callable[[], Tensor]) -> Tensor:
        if (what, pixels) not in self._made:
            self._made[what, pixels] = make()
        return self._made[what, pixels]

    def _size_at(self, pixels: int) -> tuple[int, int]:
        return self._size[0] * pixels // CELL, self._size[1] * pixels // CELL

    def plan(self, pixels: int) -> CanvasPlan:
        regions = self._all if pixels <= self._whole else self._regions
        return regions.at(pixels, self._size_at(pixels), device=self._device)

    def outside(self, pixels: int) -> Tensor:
        """Places of a canvas that stand for no kept pixel."""

        def make() -> Tensor:
            plan = self.plan(pixels)
            outside = torch.ones(len(plan.seen), dtype=torch.bool, device=self._device)
            outside.index_fill_(0, plan.body, False)
            return places_of(outside, len(plan.seen) - len(plan.body), plan.zero)

        return self._once("outside", pixels, make)

    def skipped(self, pixels: int) -> Tensor:
        """Places in the gutters of a canvas that stand for skipped pixels of the picture."""

        def make() -> Tensor:
            plan = self.plan(pixels)
            skipped = (plan.seen >= 0) & (plan.place[plan.seen.clamp_min(0)] == plan.zero)
            return places_of(skipped, len(plan.seen) - len(plan.body), plan.zero)

        return self._once("skipped", pixels, make)

    def left(self, pixels: int) -> Tensor:
        """Places of a canvas that the current slice runs for the last time."""
        plan, leaving = self.plan(pixels), self.leaving
        if leaving is None or pixels <= self._whole:
            return plan.body[:0]

        def make() -> Tensor:
            height, width = self._size_at(pixels)
            cells = leaving.flatten().to(self._device, non_blocking=True)
            y, x = plan.source // width, plan.source % width
            leaves = cells[y // pixels * leaving.shape[1] + x // pixels]
            count = count_pixels(leaving, pixels, (height, width))
            return plan.body[torch.nonzero_static(leaves, size=count)[:, 0]]

        return self._once("left", pixels, make)

    def split(self, pixels: int) -> Tensor:
        """From a level to the next finer one; see `CanvasPlan.split_to`."""
        finer = 2 * pixels
        return self._once(
            "split",
            pixels,
            lambda: self.plan(pixels).split_to(self.plan(finer), self._size_at(finer)[1]),
        )

    def halved(self, pixels: int) -> Tensor:
        """From a level to the next coarser one; see `CanvasPlan.halved_to`."""
        width = self._size_at(pixels)[1]
        return self._once(
            "halved",
            pixels,
            lambda: self.plan(pixels).halved_to(self.plan(pixels // 2), width),
        )


class RegionalStream:
    """State of one clip in the encoder or decoder, slice by slice: causal tails and statistics."""

    def __init__(self, holds: bool, statistics: Statistics) -> None:
        """Args:
        holds: what is skipped stands as it was last, instead of being zero.
        statistics: of the norms, if there are any.
        """
        self._holds, self._statistics = holds, statistics
        self._levels: CanvasLevels | None = None
        self._tails: dict[CausalConv3d, tuple[int, Tensor]] = {}  # pixels, last frames
        self._places: dict[FrameAttention, Tensor] = {}  # places c
        self._weights: dict[tuple[CausalConv3d, bool], Tensor] = {}

    @property
    def levels(self) -> CanvasLevels:
        assert self._levels is not None
        return self._levels

    def enter(self, levels: CanvasLevels) -> None:
        """Begin a slice. Nothing is kept in it that was not kept before."""
        before, self._levels = self._levels, levels
        if before is None or before is levels:
            return
        moves: dict[int, Tensor] = {}
        for conv, (pixels, tail) in self._tails.items():
            old, new = before.plan(pixels), levels.plan(pixels)
            if pixels not in moves:
                moves[pixels] = old.copied_to(new)
            moved = tail.flatten(1, 2).index_select(1, moves[pixels])
            self._tails[conv] = pixels, moved.unflatten(1, new.shape)

    def from_picture(self, conv: CausalConv3d, picture: Tensor, pixels: int) -> Tensor:
        """A convolution over frames `t h w c`."""
        plan = self.levels.plan(pixels)
        rows = picture.to(conv.weight.dtype).flatten(1, 2)

        def fill(out: Tensor) -> None:
            torch.index_select(rows, 1, plan.nearest, out=out.flatten(1, 2))
            _clean(plan, out)

        return self._convolve(conv, fill, len(picture), pixels)

    def activated(
        self,
        norm: nn.Module,
        conv: CausalConv3d,
        x: Tensor,
        pixels: int,
        onto: Tensor | None = None,
    ) -> Tensor:
        """Norm, SiLU, convolution; added to `onto`, in place."""
        plan = self.levels.plan(pixels)

        def fill(out: Tensor) -> None:
            if isinstance(norm, nn.GroupNorm):
                scale, shift = self._affine(norm, x, pixels)
                affine_silu(x[None], scale[None], shift[None], out[None])
            else:
                torch.ops.aten.silu.out(x, out=out)
            _clean(plan, out)

        return self._convolve(conv, fill, len(x), pixels, onto)

    def residual(self, block: ResBlock, x: Tensor, pixels: int) -> Tensor:
        y = self.activated(block.norm1, block.conv1, x, pixels)
        trunk = x if block.conv_shortcut is None else pointwise(block.conv_shortcut, x)
        return self.activated(block.norm2, block.conv2, y, pixels, trunk)

    def middle(self, block: MidBlock, x: Tensor, pixels: int) -> Tensor:
        first, last = cast(Iterable[ResBlock], block.resnets)
        x = self.residual(first, x, pixels)
        x = self._attend(cast(FrameAttention, block.attentions[0]), x, pixels)
        return self.residual(last, x, pixels)

    def down(self, block: Downsampler, x: Tensor, pixels: int) -> Tensor:
        """To the canvas of the next coarser level."""
        plan = self.levels.plan(pixels)

        def fill(out: Tensor) -> None:
            _clean(plan, out.copy_(x))

        y = self._convolve(block.conv, fill, len(x), pixels).flatten(1, 2)
        y[:, 0] = 0  # `halved` points there where a pixel is skipped
        y = y.index_select(1, self.levels.halved(pixels))
        return y.unflatten(1, self.levels.plan(pixels // 2).shape)

    def up(self, block: Upsampler, x: Tensor, pixels: int) -> Tensor:
        """To the canvas of the next finer level."""
        plan = self.levels.plan(pixels)
        parts = pointwise(block.upscale_conv, x).flatten(1, 2)  # t places (4 frame c)
        parts[:, plan.zero] = 0
        order = torch.arange(len(x) * block.frames, device=x.device)
        if block.frames == 2 and block.conv not in self._tails:
            order = torch.cat((order[:1], order[2:]))  # the first latent frame stands for one
        t, frame = order // block.frames, order % block.frames
        rows = 4 * parts.shape[1] * t[:, None] + self.levels.split(pixels)
        rows = (rows * block.frames + frame[:, None]).flatten()
        parts = parts.view(-1, block.conv.in_channels)

        def fill(out: Tensor) -> None:
            torch.index_select(parts, 0, rows, out=out.flatten(0, 2))

        whole = len(plan.body) == len(plan.place)  # so that what is skipped later is there
        return self._convolve(block.conv, fill, len(order), 2 * pixels, holds=not whole)

    def _convolve(
        self,
        conv: CausalConv3d,
        fill: _Fill,
        frames: int,
        pixels: int,
        onto: Tensor | None = None,
        *,
        holds: bool = True,
    ) -> Tensor:
        """A causal convolution over new frames and those before them.

        Args:
            fill: writes the frames onto a canvas `frames height width c`, gutters included.
            onto: the result is added to it, in place.
            holds: False where `fill` also says what is in skipped places.

        Returns:
            `frames height width c`; what it says in the gutters means nothing.
        """
        taps, stride = conv.kernel_size[0], conv.stride[0]
        _, tail = self._tails.get(conv, (0, None))
        alone = tail is None and frames == 1  # all taps see the same frame
        lead = 0 if alone else taps - (1 if tail is None else stride)
        shape = self.levels.plan(pixels).shape
        seen = conv.weight.new_empty(lead + frames, *shape, conv.in_channels)
        fill(seen[lead:])
        if holds and self._holds and tail is not None:
            self._hold(seen[lead:], tail[-1:], pixels)
        if lead:
            seen[:lead] = seen[lead : lead + 1] if tail is None else tail[-lead:]
        last = max(taps - stride, int(self._holds))
        if last:  # a view would hold all frames
            frames_left = seen.expand(last, -1, -1, -1) if alone else seen[-last:]
            self._tails[conv] = pixels, frames_left.clone()
        y = _convolve(seen, self._weight(conv, alone), conv.bias, conv.stride, onto)
        places = len(self.levels.plan(pixels).body) // (conv.stride[1] * conv.stride[2])
        worked(conv.weight.numel() * len(y) * places)
        return y

    def _hold(self, canvas: Tensor, before: Tensor, pixels: int) -> None:
        """Put into skipped places what stood there in the frame before, `1 height width c`."""
        skipped = self.levels.skipped(pixels)
        if len(skipped):
            copy_rows(before.flatten(1, 2), skipped, canvas.flatten(1, 2), skipped)

    def _weight(self, conv: CausalConv3d, alone: bool) -> Tensor:
        """A layer's weight in the order of a canvas; of all taps together for a frame `alone`."""
        if (conv, alone) not in self._weights:
            weight = conv.weight
            if alone:
                weight = weight.sum(2, keepdim=True)
            self._weights[conv, alone] = weight.contiguous(memory_format=torch.channels_last_3d)
        return self._weights[conv, alone]

    def _affine(self, norm: nn.GroupNorm, x: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """A norm as scale and shift, `t c` each, float32; clears the gutters of `x`."""
        levels, plan = self.levels, self.levels.plan(pixels)
        x.flatten(1, 2).index_fill_(1, levels.outside(pixels), 0)
        mean, variance = self._statistics.of(norm, x, plan, levels.left(pixels))
        return affine_of(norm, mean, variance)

    def _attend(self, block: FrameAttention, x: Tensor, pixels: int) -> Tensor:
        """Self-attention over the kept cells of each frame, in place.

        What is held of skipped ones is attended to as well.
        """
        plan, flat = self.levels.plan(pixels), x.flatten(1, 2)
        kept = places = flat.index_select(1, plan.body)  # t k c
        if isinstance(block.group_norm, nn.GroupNorm):
            scale, shift = self._affine(block.group_norm, x, pixels)
            places = torch.addcmul(shift[:, None], kept, scale[:, None]).to(x.dtype)
        others = places
        if self._holds:
            if block in self._places:
                others = self._places[block].repeat(len(x), 1, 1)
                others.index_copy_(1, plan.source, places)
            self._places[block] = others[-1]
        out = F.scaled_dot_product_attention(
            block.to_q(places)[:, None], block.to_k(others)[:, None], block.to_v(others)[:, None]
        )
        flat.index_copy_(1, plan.body, kept + block.to_out[0](out[:, 0]))
        return x


def pointwise(conv: CausalConv3d, x: Tensor) -> Tensor:
    """A 1x1x1 convolution of `... c`."""
    return F.linear(x.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)


def _clean(plan: CanvasPlan, canvas: Tensor) -> None:
    """Make a canvas what a convolution must find: kept neighbours in its gutters, else zero."""
    plan.refresh(plan.clear_rim(canvas))


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    onto: Tensor | None,
) -> Tensor:  # t h w c -> t' h' w' c'
    """A convolution that pads with zeros in space only."""
    padding = (0, weight.shape[3] // 2, weight.shape[4] // 2)
    trunk = None if onto is None else onto.permute(3, 0, 1, 2)[None]
    y = convolve3d(x.permute(3, 0, 1, 2)[None], weight, bias, stride, padding, trunk)
    return y[0].permute(1, 2, 3, 0).contiguous()
