"""Causal convolution over a video that arrives in slices.

The caller owns the state: one `Stream` a clip.
"""

import torch
import torch.nn.functional as F
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
        """Put before `x` what precedes it: the last slice's tail, or the first frame repeated."""
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
    """3-D convolution that looks back in time only; before the first frame lies its copy."""

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
        x = stream.extend(self, x)
        pad = self.padding
        assert not isinstance(pad, str)
        return convolve3d(x, self.weight, self.bias, self.stride, pad)


def convolve3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """`torch.nn.functional.conv3d`, `b c t h w`, by the fast kernel on a processor.

    In float32 torch leaves pictures that are low or have few channels to one that is three to
    sixteen times slower.
    """
    traced = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if (
        x.is_cpu
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not traced
    ):
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride, padding)
