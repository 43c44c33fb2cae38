"""Causal convolution over a video that arrives in slices. The caller owns the state: one `Stream` a
clip."""

import torch
from torch import Tensor, nn


class Stream:
    """The last frames that each causal layer saw of one clip; make a fresh one for every clip.

    Feeding a clip in slices through one stream gives what feeding it whole gives.
    """

    def __init__(self) -> None:
        self._tails: dict[nn.Module, Tensor] = {}
        self._begun: set[nn.Module] = set()

    def begins(self, layer: nn.Module) -> bool:
        """Whether this is the first slice that `layer` sees; true once."""
        first = layer not in self._begun
        self._begun.add(layer)
        return first

    def extend(self, conv: "CausalConv3d", x: Tensor) -> Tensor:
        """Put the frames before `x` in front: the tail of the last slice, or the first frame
        repeated."""
        taps, stride = conv.kernel_size[0], conv.stride[0]
        if taps == 1:
            return x
        tail = self._tails.get(conv)
        if tail is None:
            tail = x[:, :, :1].expand(-1, -1, taps - 1, -1, -1)
        x = torch.cat((tail, x), 2)
        self._tails[conv] = x[
            :, :, x.shape[2] - (taps - stride) :
        ].clone()  # a view would hold all of x
        return x


class CausalConv3d(nn.Conv3d):
    """3-D convolution that looks back in time only: no zeros in time, the first frame repeated
    instead."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        *,
        pad: bool = True,
    ) -> None:
        padding = (0, kernel[1] // 2, kernel[2] // 2) if pad else (0, 0, 0)
        super().__init__(channels_in, channels_out, kernel, stride, padding)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]  # b c t h w
        return super().forward(stream.extend(self, x))
