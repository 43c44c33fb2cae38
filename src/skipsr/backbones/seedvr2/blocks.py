"""Layers of the video autoencoder. Names are those of the published files."""

from collections.abc import Iterator
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.nn.causal import CausalConv3d, Stream, copy_pixels, rows_of, shape_of
from skipsr.nn.fused import affine_silu, moments
from skipsr.nn.norm import affine_of

_EPS = 1e-6
_START_BRANCH = 0.1


class FrameNorm(nn.GroupNorm):
    """Group norm with the statistics of each frame alone, so that the autoencoder is causal."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, _EPS)

    def forward(self, input: Tensor) -> Tensor:  # b c t h w
        frames = rearrange(input, "b c t h w -> (b t) c h w")
        return rearrange(super().forward(frames), "(b t) c h w -> b c t h w", b=input.shape[0])


def activated(
    norm: nn.Module, conv: CausalConv3d, x: Tensor, stream: Stream, onto: Tensor | None = None
) -> Tensor:
    """Norm, SiLU, convolution of `b c t h w`; added to `onto`, without gradients in place."""
    if torch.is_grad_enabled():
        y = conv(F.silu(norm(x)), stream)
        return y if onto is None else y + onto
    scale, shift = affine(norm, x, None if stream.bounds is None else stream.bounds.band)

    def fill(a: int, b: int, out: Tensor) -> None:
        part = x[:, :, :, a:b]
        if scale is not None and shift is not None:
            affine_silu(part.movedim(1, -1), scale, shift, out.movedim(1, -1))
        elif part.dtype == out.dtype:
            torch.ops.aten.silu.out(part, out=out)
        else:  # autocast
            out.copy_(F.silu(part))

    return stream.convolve(conv, fill, shape_of(x), onto)


def affine(
    norm: nn.Module, x: Tensor, band: int | None
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """A group norm of each frame of `b c t h w` as scale and shift, `b t c`, float32.

    Statistics are found in bands of up to `band` bytes, if that is told. None where there is no
    norm.
    """
    if not isinstance(norm, nn.GroupNorm):
        return None, None
    rows = x.shape[3]
    if band is not None:
        rows = max(1, band // (x[:, :, :, :1].numel() * x.element_size()))
    parts = [moments(part.movedim(1, -1), norm.num_groups) for part in x.split(rows, 3)]
    if len(parts) == 1:
        return affine_of(norm, *parts[0])
    share = x.new_full((len(parts),), rows / x.shape[3], dtype=torch.float32)
    share[-1:].fill_(1 - (len(parts) - 1) * rows / x.shape[3])
    means, variances = (torch.stack(each, -1) for each in zip(*parts, strict=True))  # b t groups n
    mean = (means * share).sum(-1, keepdim=True)
    variance = ((variances + (means - mean).square()) * share).sum(-1)
    return affine_of(norm, mean[..., 0], variance)


def frame_norm(groups: int, channels: int) -> nn.Module:
    """A frame norm, or none where there are no groups."""
    return FrameNorm(groups, channels) if groups else nn.Identity()


class ResBlock(nn.Module):
    """Residual block: norm, SiLU, conv, twice, beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = frame_norm(groups, channels_in)
        self.conv1 = CausalConv3d(channels_in, channels_out, (3, 3, 3))
        self.norm2 = frame_norm(groups, channels_out)
        self.conv2 = CausalConv3d(channels_out, channels_out, (3, 3, 3))
        self.conv_shortcut = (
            CausalConv3d(channels_in, channels_out, (1, 1, 1))
            if channels_in != channels_out
            else None
        )
        if not groups:  # no norm would hold back a deep stack of branches as large as their trunk
            with torch.no_grad():
                self.conv2.weight.mul_(_START_BRANCH)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # b c t h w
        y = activated(self.norm1, self.conv1, x, stream)
        trunk = x if self.conv_shortcut is None else self.conv_shortcut(x, stream)
        return activated(self.norm2, self.conv2, y, stream, onto=trunk)


class FrameAttention(nn.Module):
    """Self-attention over the pixels of a frame, one head."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, _EPS) if groups else nn.Identity()
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:  # b c t h w
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        places = rearrange(self.group_norm(frames), "f c h w -> f 1 (h w) c")
        out = F.scaled_dot_product_attention(
            self.to_q(places), self.to_k(places), self.to_v(places)
        )
        b, _, t, h, w = x.shape
        return x + rearrange(
            self.to_out[0](out), "(b t) 1 (h w) c -> b c t h w", b=b, t=t, h=h, w=w
        )

    def in_bands(self, x: Tensor, band: int) -> Tensor:
        """The same in place: frame by frame, by as many places as fit if all scores are kept."""
        scale, shift = affine(self.group_norm, x, band)
        h, w = x.shape[3:]
        rows = max(1, band // (len(x) * 4 * h * w * w))
        for i, frame in enumerate(x.unbind(2)):
            places = frame
            if scale is not None and shift is not None:
                places = frame * scale[:, i, :, None, None] + shift[:, i, :, None, None]
                places = places.to(x.dtype)
            places = rearrange(places, "b c h w -> b (h w) c")
            bands = zip(frame.split(rows, 2), self.in_parts(places, places, rows * w), strict=True)
            for part, out in bands:
                part += rearrange(out, "b (h w) c -> b c h w", w=w)
        return x

    def in_parts(self, asking: Tensor, seen: Tensor, together: int) -> Iterator[Tensor]:
        """What places `b k c` get from those that they look at, `b n c`; so many at a time."""
        k, v = self.to_k(seen)[:, None], self.to_v(seen)[:, None]
        for part in asking.split(together, 1):
            out = F.scaled_dot_product_attention(self.to_q(part)[:, None], k, v)
            yield self.to_out[0](out[:, 0])


class MidBlock(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([FrameAttention(channels, groups)])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x, attention = self.resnets[0](x, stream), cast(FrameAttention, self.attentions[0])
        bounds = stream.bounds
        x = attention(x) if bounds is None else attention.in_bands(x, bounds.band)
        return self.resnets[1](x, stream)


class Downsampler(nn.Module):
    """Halves the sides, and time where `time`; zeros are added right and below only."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        kernel, stride = ((3, 3, 3), (2, 2, 2)) if time else ((1, 3, 3), (1, 2, 2))
        self.conv = CausalConv3d(channels, channels, kernel, stride, pad=False)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        if torch.is_grad_enabled():
            return self.conv(F.pad(x, (0, 1, 0, 1)), stream)
        return stream.convolve(self.conv, rows_of(x), shape_of(x), margin=(0, 1))


class Upsampler(nn.Module):
    """Doubles the sides, and time where `time`: 1x1x1 convolution, shuffle, causal convolution."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.frames = 2 if time else 1
        self.upscale_conv = CausalConv3d(channels, channels * 4 * self.frames, (1, 1, 1))
        self.conv = CausalConv3d(channels, channels, (3, 3, 3))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        first = stream.begins(self)
        if torch.is_grad_enabled():
            return self.conv(self._larger(self.upscale_conv(x, stream), first=first), stream)
        weight, bias = self.upscale_conv.weight.flatten(1), self.upscale_conv.bias

        def fill(a: int, b: int, out: Tensor) -> None:
            part = F.linear(x[:, :, :, a // 2 : (b + 1) // 2].movedim(1, -1), weight, bias)
            self._put(part.movedim(-1, 1), out, a % 2, first=first)

        b, c, t, h, w = x.shape
        frames = t * self.frames - (first and self.frames == 2)
        return stream.convolve(self.conv, fill, (b, c, frames, 2 * h, 2 * w))

    def _put(self, x: Tensor, out: Tensor, skipped: int, *, first: bool) -> None:
        """What `_larger` gives of `x`, but for `skipped` rows, written to `b c t h w`."""
        parts = x.unflatten(1, (2, 2, self.frames, -1))
        for row, column, frame in product(range(2), range(2), range(self.frames)):
            top = (row - skipped) % 2
            place = out[:, :, :, top::2, column::2]
            below = (skipped + top) // 2
            part = parts[:, row, column, frame, :, :, below : below + place.shape[3]]
            if first and self.frames == 2:
                copy_pixels(part[:, :, 1:], place[:, :, 1 + frame :: 2])
                if frame == 0:
                    copy_pixels(part[:, :, :1], place[:, :, :1])
            else:
                copy_pixels(part, place[:, :, frame :: self.frames])

    def _larger(self, x: Tensor, *, first: bool) -> Tensor:
        """`b (4 frames c) t h w` -> `b c (t frames) (2 h) (2 w)`."""
        x = rearrange(
            x,
            "b (row col frame c) t h w -> b (t frame) (h row) (w col) c",
            row=2,
            col=2,
            frame=self.frames,
        )
        x = rearrange(x, "b t h w c -> b c t h w")  # a view: channels stay last in memory
        if first and self.frames == 2:
            x = x[:, :, [0, *range(2, x.shape[2])]]  # the first latent frame stands for one frame
        return x


class DownBlock(nn.Module):
    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        blocks: int,
        groups: int,
        down: Downsampler | None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResBlock(channels_out if i else channels_in, channels_out, groups)
            for i in range(blocks)
        )
        self.downsamplers = None if down is None else nn.ModuleList([down])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x, stream)
        return x if self.downsamplers is None else self.downsamplers[0](x, stream)


class UpBlock(nn.Module):
    def __init__(
        self, channels_in: int, channels_out: int, blocks: int, groups: int, up: Upsampler | None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResBlock(channels_out if i else channels_in, channels_out, groups)
            for i in range(blocks)
        )
        self.upsamplers = None if up is None else nn.ModuleList([up])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x, stream)
        return x if self.upsamplers is None else self.upsamplers[0](x, stream)
