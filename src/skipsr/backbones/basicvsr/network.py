"""BasicVSR: two recurrences over a clip, one from each end, and an upsampler (spec/skipvsr A3)."""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.backbones.basicvsr.config import SCALE, BasicVSRConfig
from skipsr.backbones.basicvsr.flow import SPyNet
from skipsr.nn.warp import warp

_SLOPE = 0.1


class ResidualBlock(nn.Module):
    """`x + conv2(relu(conv1(x)))`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
            with torch.no_grad():
                conv.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Trunk(nn.Module):
    """One direction: an input convolution over frame and state, then residual blocks."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(3 + channels, channels, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks))),
        )

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:
        """The new state, `n c h w`, from a frame `n 3 h w` and the warped state before."""
        return self.main(torch.cat((frame, state), 1))


class BasicVSR(nn.Module):
    """Video super-resolution by four, RGB in [0, 1]."""

    def __init__(self, config: BasicVSRConfig) -> None:
        super().__init__()
        self.config = config
        c, hr = config.num_feat, config.hr_feat
        self.spynet = SPyNet(config.flow)
        self.backward_trunk = Trunk(c, config.num_block)
        self.forward_trunk = Trunk(c, config.num_block)
        self.fusion = nn.Conv2d(2 * c, c, 1)
        if hr is None:
            self.conv_last = nn.Conv2d(c, 3 * SCALE**2, 3, padding=1)
        else:
            self.upconv1 = nn.Conv2d(c, 4 * c, 3, padding=1)
            self.upconv2 = nn.Conv2d(c, 4 * hr, 3, padding=1)
            self.conv_hr = nn.Conv2d(hr, hr, 3, padding=1)
            self.conv_last = nn.Conv2d(hr, 3, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        """`n t 3 h w` -> `n t 3 4h 4w`, not clamped."""
        ahead, back = self.flows(frames)
        t = frames.shape[1]
        later = list(self._propagate(self.backward_trunk, frames.flip(1), ahead.flip(1)))[::-1]
        earlier = self._propagate(self.forward_trunk, frames, back)
        pairs = zip(range(t), later, earlier, strict=True)
        return torch.stack([self.reconstruct(frames[:, i], b, f) for i, b, f in pairs], 1)

    def part(self, name: Literal["all", "flow"]) -> nn.Module:
        return self.spynet if name == "flow" else self

    def flows(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Flows `n t-1 2 h w` from each frame to the next, and from each next one back."""
        n, t, _, h, w = frames.shape
        first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        if t == 1:
            return frames.new_zeros(n, 0, 2, h, w), frames.new_zeros(n, 0, 2, h, w)
        ahead, back = self.spynet(first, second), self.spynet(second, first)
        return ahead.view(n, t - 1, 2, h, w), back.view(n, t - 1, 2, h, w)

    def _propagate(self, trunk: nn.Module, frames: Tensor, flows: Tensor) -> Iterable[Tensor]:
        """States `n c h w` of frames in the order of travel; `flows[:, i]` leads from frame i + 1
        back to frame i of that order."""
        n, t, _, h, w = frames.shape
        state = frames.new_zeros(n, self.config.num_feat, h, w)
        for i in range(t):
            if i:
                state = warp(state, flows[:, i - 1].permute(0, 2, 3, 1))
            state = trunk(frames[:, i], state)
            yield state

    def reconstruct(self, frame: Tensor, later: Tensor, earlier: Tensor) -> Tensor:
        """`n 3 4h 4w` from a frame `n 3 h w` and the states of both directions, `n c h w`."""
        x = F.leaky_relu(self.fusion(torch.cat((later, earlier), 1)), _SLOPE)
        if self.config.hr_feat is None:
            x = F.pixel_shuffle(self.conv_last(x), SCALE)
        else:
            x = F.leaky_relu(F.pixel_shuffle(self.upconv1(x), 2), _SLOPE)
            x = F.leaky_relu(F.pixel_shuffle(self.upconv2(x), 2), _SLOPE)
            x = self.conv_last(F.leaky_relu(self.conv_hr(x), _SLOPE))
        base = F.interpolate(frame, scale_factor=SCALE, mode="bilinear", align_corners=False)
        return x + base
