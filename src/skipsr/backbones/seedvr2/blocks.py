"""Layers of the video autoencoder. Names are those of the published files."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.nn.causal import CausalConv3d, Stream

_EPS = 1e-6
_START_BRANCH = 0.1


class FrameNorm(nn.GroupNorm):
    """Group norm with the statistics of each frame alone, so that the autoencoder is causal."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, _EPS)

    def forward(self, input: Tensor) -> Tensor:  # b c t h w
        frames = rearrange(input, "b c t h w -> (b t) c h w")
        return rearrange(super().forward(frames), "(b t) c h w -> b c t h w", b=input.shape[0])


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
        y = self.conv1(F.silu(self.norm1(x)), stream)
        y = self.conv2(F.silu(self.norm2(y)), stream)
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x, stream))


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


class MidBlock(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([FrameAttention(channels, groups)])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x, stream)), stream)


class Downsampler(nn.Module):
    """Halves the sides, and time where `time`; zeros are added right and below only."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        kernel, stride = ((3, 3, 3), (2, 2, 2)) if time else ((1, 3, 3), (1, 2, 2))
        self.conv = CausalConv3d(channels, channels, kernel, stride, pad=False)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)), stream)


class Upsampler(nn.Module):
    """Doubles the sides, and time where `time`: 1x1x1 convolution, shuffle, causal convolution."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.frames = 2 if time else 1
        self.upscale_conv = CausalConv3d(channels, channels * 4 * self.frames, (1, 1, 1))
        self.conv = CausalConv3d(channels, channels, (3, 3, 3))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = rearrange(
            self.upscale_conv(x, stream),
            "b (row col frame c) t h w -> b (t frame) (h row) (w col) c",
            row=2,
            col=2,
            frame=self.frames,
        )
        x = rearrange(x, "b t h w c -> b c t h w")  # a view: channels stay last in memory
        if stream.begins(self) and self.frames == 2:
            x = x[:, :, [0, *range(2, x.shape[2])]]  # the first latent frame stands for one frame
        return self.conv(x, stream)


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
