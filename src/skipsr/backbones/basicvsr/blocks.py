"""The residual block and the trunk of one direction."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.nn.convolution import convolve_add, convolve_relu

SLOPE = 0.1  # of every leaky ReLU


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
        inner = convolve_relu(x, self.conv1, (1, 1))
        return convolve_add(inner, self.conv2, (1, 1), x)


class Trunk(nn.Module):
    """One direction: an input convolution over frame and state, then residual blocks."""

    def __init__(self, channels: int, blocks: int, inputs: int = 3) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs + channels, channels, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks))),
        )

    @property
    def blocks(self) -> Iterator[ResidualBlock]:
        for block in self.main[2].children():
            assert isinstance(block, ResidualBlock)
            yield block

    def enter(self, frame: Tensor, state: Tensor) -> Tensor:
        """What the blocks begin with, `n c h w`, from a frame `n inputs h w` and the
        warped state."""
        frame = frame.to(state.dtype, memory_format=torch.channels_last)
        return self.main[1](self.main[0](torch.cat((frame, state), 1)))

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:
        """The new state, every block run."""
        x = self.enter(frame, state)
        for block in self.blocks:
            x = block(x)
        return x

    def masked(self, frame: Tensor, state: Tensor | None, mask: Tensor) -> Tensor:
        """The new state where `mask`, `n 1 h w`, is 1; zero elsewhere, also between layers."""
        if state is None:
            n, _, h, w = frame.shape
            entered = self.main[0]
            assert isinstance(entered, nn.Conv2d)
            state = entered.weight.new_zeros(n, entered.out_channels, h, w)
        x = self.enter(frame, state)
        mask = mask.to(x.dtype)
        x = x * mask
        for block in self.blocks:
            inner = F.relu(block.conv1(x)) * mask
            x = x + block.conv2(inner) * mask
        return x
