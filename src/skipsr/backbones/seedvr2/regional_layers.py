"""Layers of the autoencoder on canvases that hold the kept part of a slice, `t height width c`
(`skipping.regions`).

What a convolution reads is put into its gutters before: kept neighbours where there are any. What
is skipped counts as zero in an autoencoder without norms, which then is the whole network with
zeros between its layers. To norms zeros are no neutral value: there everything outside the kept
part stands as it was when it was last run, in gutters, in statistics, and in what attention looks
at. For that the first frame has to be whole.

Masks only shrink in time, so that a causal layer has seen before what it sees now. Its last frames
are kept as they lie on the canvas that follows, which is smaller.
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
from skipsr.backbones.seedvr2.canvas_levels import CanvasLevels
from skipsr.backbones.seedvr2.regional_norms import Statistics
from skipsr.backbones.seedvr2.regional_tails import RegionalTails
from skipsr.nn.causal import Bounds, CausalConv3d, clear_rim, convolve3d
from skipsr.nn.convolution import fuses
from skipsr.nn.fused import affine_silu, copy_rows
from skipsr.nn.norm import affine_of
from skipsr.nn.tails import HostMemory
from skipsr.skipping.canvas import GUTTER, CanvasPlan
from skipsr.tracing import worked

_Fill = Callable[[Tensor, slice], object]  # writes these rows of a canvas, `t rows width c`
_EVERY = slice(None)
_SCORES = 2**28  # bytes of attention's scores, where a kernel keeps them all


class RegionalStream:
    """State of one clip in the encoder or decoder, slice by slice: causal tails and statistics."""

    def __init__(
        self,
        holds: bool,
        statistics: Statistics,
        bounds: Bounds | None = None,
        host: HostMemory | None = None,
    ) -> None:
        """Args:
        holds: what is skipped stands as it was last, instead of being zero.
        statistics: of the norms, if there are any.
        bounds: of memory; a first frame is run in bands of it, of a strip at least.
        host: where tails wait that have no room.
        """
        self._band = None if bounds is None else bounds.band
        self._holds, self._statistics = holds, statistics
        self._levels: CanvasLevels | None = None
        self.after: CanvasLevels | None = None
        self._tails = RegionalTails(None if bounds is None else bounds.memory(host))
        self._attended: dict[FrameAttention, Tensor] = {}  # all pixels c, as they last were
        self._weights: dict[CausalConv3d, Tensor] = {}

    def close(self) -> None:
        """Nothing follows any more."""
        self._tails.close()

    @property
    def levels(self) -> CanvasLevels:
        assert self._levels is not None
        return self._levels

    def enter(self, levels: CanvasLevels, after: CanvasLevels | None) -> None:
        """Run what follows on these canvases: a slice, or some of its frames.

        Args:
            after: canvases of the frames after these, which keep nothing that is not kept here;
                None if there are none.
        """
        self._levels, self.after = levels, after

    def from_picture(self, conv: CausalConv3d, picture: Tensor, pixels: int) -> Tensor:
        """A convolution over frames `t h w c`."""
        plan = self.levels.plan(pixels)
        rows = picture.to(conv.weight.dtype).flatten(1, 2)

        def fill(out: Tensor, part: slice) -> None:
            index = plan.nearest_pixel_of_slot.view(plan.shape)[part].flatten()
            torch.index_select(rows, 1, index, out=out.flatten(1, 2))
            _clean(plan, out, part)

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

        affine = self._affine(norm, x, pixels) if isinstance(norm, nn.GroupNorm) else None

        def fill(out: Tensor, part: slice) -> None:
            if affine is not None:
                scale, shift = affine
                affine_silu(x[None, :, part], scale[None], shift[None], out[None])
            else:
                torch.ops.aten.silu.out(x[:, part], out=out)
            _clean(plan, out, part)

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

        def fill(out: Tensor, part: slice) -> None:
            _clean(plan, out.copy_(x[:, part]), part)

        y = self._convolve(block.conv, fill, len(x), pixels).flatten(1, 2)
        y[:, 0] = 0  # `halved` points there where a pixel is skipped
        y = y.index_select(1, self.levels.halved(pixels))
        return y.unflatten(1, self.levels.plan(pixels // 2).shape)

    def up(self, block: Upsampler, x: Tensor, pixels: int) -> Tensor:
        """To the canvas of the next finer level."""
        plan = self.levels.plan(pixels)
        parts = pointwise(block.upscale_conv, x).flatten(1, 2)  # t slots (4 frame c)
        parts[:, plan.zero] = 0
        order = torch.arange(len(x) * block.frames, device=x.device)
        if block.frames == 2 and block.conv not in self._tails:
            order = torch.cat((order[:1], order[2:]))  # the first latent frame stands for one
        t, frame = order // block.frames, order % block.frames
        rows = 4 * parts.shape[1] * t[:, None] + self.levels.split(pixels)
        rows = rows * block.frames + frame[:, None]
        rows = rows.unflatten(1, self.levels.plan(2 * pixels).shape)
        parts = parts.view(-1, block.conv.in_channels)

        def fill(out: Tensor, part: slice) -> None:
            copy_rows(parts[None], rows[:, part].flatten(), out.flatten(0, 2)[None])

        # on a whole canvas what is skipped later is there
        holds = len(plan.kept_slots) < len(plan.slot_of_pixel)
        return self._convolve(block.conv, fill, len(order), 2 * pixels, holds=holds)

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
            fill: writes rows of the frames' canvas, gutters included.
            onto: the result is added to it, in place.
            holds: False where `fill` also says what is in skipped slots.

        Returns:
            `frames height width c`; what it says in the gutters means nothing.
        """
        taps, stride = conv.kernel_size[0], conv.stride[0]
        begun = conv in self._tails
        alone = not begun and frames == 1  # all taps see the same frame
        lead = 0 if alone else taps - (stride if begun else 1)
        plan = self.levels.plan(pixels)
        if self._band is not None and alone and plan.full and conv.stride == (1, 1, 1):
            return self._convolve_in_bands(conv, fill, pixels, onto, self._band)
        seen = conv.weight.new_empty(lead + frames, *plan.shape, conv.in_channels)
        fill(seen[lead:], _EVERY)
        if not begun:
            seen[:lead] = seen[lead : lead + 1]
        else:
            self._tails.put_before(conv, seen[:lead])
            if holds and self._holds:
                before = seen[lead - 1 : lead]
                if not lead:
                    before = seen.new_empty(1, *seen.shape[1:])
                    self._tails.put_before(conv, before)
                self._hold(seen[lead:], before, pixels)
        last = self._remembered(conv)
        if last and self.after is not None:
            self._tails.keep(conv, seen, last, self.levels, self.after, pixels)
        y = _convolve(plan, seen, self._weight(conv, alone), conv.bias, conv.stride, onto)
        places = len(plan.kept_slots) // (conv.stride[1] * conv.stride[2])
        worked(conv.weight.numel() * len(y) * places)
        return y

    def _remembered(self, conv: CausalConv3d) -> int:
        """How many of the last frames that a layer saw are remembered."""
        return max(conv.kernel_size[0] - conv.stride[0], int(self._holds))

    def _convolve_in_bands(
        self, conv: CausalConv3d, fill: _Fill, pixels: int, onto: Tensor | None, band: int
    ) -> Tensor:
        """`_convolve` of a first frame that is run whole, some strips at a time of the canvas that
        follows."""
        plan, weight = self.levels.plan(pixels), self._weight(conv, True)
        (height, width), channels = plan.shape, conv.in_channels
        out = weight.new_empty(1, height, width, conv.out_channels) if onto is None else onto
        inside = out.permute(3, 0, 1, 2)[None]
        strip = self.levels.strip_rows(pixels)
        rows = strip * max(1, band // (strip * width * channels * weight.element_size()))
        tail, last = None, self._remembered(conv)
        if last and self.after is not None:
            tail = self._tails.by_bands(conv, weight, last, self.levels, self.after, pixels)
        for top in range(0, height - 2 * GUTTER, rows):
            bottom = min(top + rows + 2 * GUTTER, height)
            seen = weight.new_empty(1, bottom - top, width, channels)
            fill(seen, slice(top, bottom))
            if tail is not None:
                tail.keep(seen, top)
            part = slice(top + GUTTER, bottom - GUTTER), plan.interior[1]
            convolve3d(
                seen.permute(3, 0, 1, 2)[None], weight, conv.bias, conv.stride, (0, 0, 0),
                inside[:, :, :, *part], add=onto is not None,
            )  # fmt: skip
        if tail is not None:
            tail.finish()
        worked(conv.weight.numel() * len(plan.kept_slots))
        return out

    def _hold(self, canvas: Tensor, before: Tensor, pixels: int) -> None:
        """Put into skipped slots what stood there in the frame before, `1 height width c`."""
        skipped = self.levels.plan(pixels).skipped_slots
        if len(skipped):
            copy_rows(before.flatten(1, 2), skipped, canvas.flatten(1, 2), skipped)

    def _weight(self, conv: CausalConv3d, alone: bool) -> Tensor:
        """A layer's weight in the order of a canvas; of all taps together for a frame `alone`,
        which there is once."""
        if alone:
            together = conv.weight.sum(2, keepdim=True)
            return together.contiguous(memory_format=torch.channels_last_3d)
        if conv not in self._weights:
            self._weights[conv] = conv.weight.contiguous(memory_format=torch.channels_last_3d)
        return self._weights[conv]

    def _affine(self, norm: nn.GroupNorm, x: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """A norm as scale and shift, `t c` each, float32; clears the gutters of `x`."""
        levels, plan = self.levels, self.levels.plan(pixels)
        x.flatten(1, 2).index_fill_(1, plan.unkept_slots, 0)
        leaving = levels.leaving_slots(pixels, self.after or levels)
        mean, variance = self._statistics.of(norm, x, plan, leaving)
        return affine_of(norm, mean, variance)

    def _attend(self, block: FrameAttention, x: Tensor, pixels: int) -> Tensor:
        """Self-attention over the kept cells of each frame, in place.

        What is held of skipped ones is attended to as well.
        """
        plan, flat = self.levels.plan(pixels), x.flatten(1, 2)
        kept = flat.index_select(1, plan.kept_slots)  # t k c
        if isinstance(block.group_norm, nn.GroupNorm):
            scale, shift = self._affine(block.group_norm, x, pixels)
            kept = torch.addcmul(shift[:, None], kept, scale[:, None]).to(x.dtype)
        seen = kept
        if self._holds:
            if block in self._attended:
                seen = self._attended[block].repeat(len(x), 1, 1)
                seen.index_copy_(1, plan.kept_pixels, kept)
            self._attended[block] = seen[-1]
        together = max(1, _SCORES // (4 * len(x) * seen.shape[1]))
        parts = block.in_parts(kept, seen, together)
        for slots, out in zip(plan.kept_slots.split(together), parts, strict=True):
            flat.index_add_(1, slots, out)
        return x


def pointwise(conv: CausalConv3d, x: Tensor) -> Tensor:
    """A 1x1x1 convolution of `... c`."""
    return F.linear(x.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)


def _clean(plan: CanvasPlan, rows: Tensor, part: slice) -> None:
    """Make these rows of a canvas what a convolution must find: kept neighbours in its gutters,
    else zero."""
    if part == _EVERY:
        plan.refresh(plan.clear_rim(rows))
    else:  # of a full canvas, whose gutters are its rim
        ends = part.start == 0, part.stop == plan.shape[0]
        clear_rim(rows, (GUTTER * ends[0], GUTTER * ends[1]), (GUTTER, GUTTER))


def _convolve(
    plan: CanvasPlan,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    onto: Tensor | None,
) -> Tensor:  # t h w c -> t' h' w' c'
    """A convolution that sees zeros around the canvas; what it says in a rim means nothing."""
    seen, add = x.permute(3, 0, 1, 2)[None], onto is not None
    if stride == (1, 1, 1) and not fuses(x, weight):
        # without padding rims are not computed, and cuDNN's kernel for few channels is faster
        frames, (rows, columns) = len(x) - weight.shape[2] + 1, plan.interior
        out = x.new_empty(frames, *plan.shape, len(weight)) if onto is None else onto
        inside = out[:, rows, columns].permute(3, 0, 1, 2)[None]
        convolve3d(seen, weight, bias, stride, (0, 0, 0), inside, add=add)
        return out
    trunk = None if onto is None else onto.permute(3, 0, 1, 2)[None]
    y = convolve3d(seen, weight, bias, stride, (0, 1, 1), trunk, add=add)
    return y[0].permute(1, 2, 3, 0).contiguous()
