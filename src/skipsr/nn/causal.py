"""Causal convolution over a video that arrives in slices.

The caller owns the state: one `Stream` a clip.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.nn.convolution import convolve_onto, fuses, on_x86_with_onednn
from skipsr.nn.fused import put_biased
from skipsr.nn.pieces import in_pieces
from skipsr.nn.tails import HostMemory, TailMemory
from skipsr.nn.transfer import copy_over, send
from skipsr.tracing import worked

MOST_ELEMENTS = 2**31 - 1  # of a tensor of a convolution: kernels count in 32 bits
_NEVER = 2**62
Fill = Callable[[int, int, Tensor], object]
"""Writes rows `[a, b)` of what a layer reads into `b c t (b-a) w`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How little memory a stream is to take; results are the same.

    Attributes:
        band: bytes of a layer's input that are looked at together, in whole rows.
        frames: most frames that are run together where there are as many as in the video.
        tails: bytes of tails that stay on the device; further ones wait in the host's memory.
        away: bytes of those, about.
    """

    band: int
    frames: int
    tails: int
    away: int = 0

    def memory(self, host: HostMemory | None) -> TailMemory:
        """For the tails of a clip."""
        return TailMemory(self.tails, host, self.away)


class Stream:
    """The last frames that each causal layer saw of one clip; make a fresh one for every clip.

    Feeding a clip in slices through one stream gives what feeding it whole gives. Without gradients
    layers write into what they read, and with `bounds` they are run in bands of rows.
    """

    def __init__(
        self,
        bounds: Bounds | None = None,
        *,
        alone: bool = False,
        host: HostMemory | None = None,
    ) -> None:
        """Args:
        alone: the clip is one frame, of which nothing need be remembered.
        host: where tails wait that have no room.
        """
        self.bounds, self._alone = bounds, alone
        self._tails: dict[nn.Module, Tensor] = {}
        self._begun: set[nn.Module] = set()
        self._memory = TailMemory() if bounds is None else bounds.memory(host)

    def close(self) -> None:
        """Nothing is fed any more."""
        self._memory.close()

    def begins(self, layer: nn.Module) -> bool:
        """Whether this is the first slice that `layer` sees; true once."""
        first = layer not in self._begun
        self._begun.add(layer)
        return first

    def extend(self, conv: "CausalConv3d", x: Tensor) -> Tensor:
        """Put before `x` what precedes it: the last slice's tail, or the first frame repeated.

        For gradients; without them see `convolve`.
        """
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

    def convolve(
        self,
        conv: "CausalConv3d",
        fill: Fill,
        shape: tuple[int, int, int, int, int],
        onto: Tensor | None = None,
        margin: tuple[int, int] | None = None,
    ) -> Tensor:
        """A convolution with what precedes it, in bands of rows where there are bounds.

        What it reads is written but once, with what precedes it and its margins. No gradients.

        Args:
            fill: gives the rows that are convolved, halos included.
            shape: of what is convolved, `b c t h w`.
            onto: results are added to it in place.
            margin: pixels of zeros before and after rows and columns; those of `conv` if None.

        Returns:
            `b c' t' h' w'`, channels last, or `onto`.
        """
        b, c, t, h, w = shape
        before, after = margin or (conv.kernel_size[1] // 2,) * 2
        taps, tail = conv.kernel_size[0], self._tails.get(conv)
        weight, alone = conv.weight, tail is None and t == 1
        if alone:  # all taps see the same frame
            weight = weight.sum(2, keepdim=True)
        lead = 0 if alone else taps - 1 if tail is None else tail.shape[2]
        left = 0 if self._alone else taps - conv.stride[0]  # frames that stay
        kernel, step = conv.kernel_size[1], conv.stride[1]
        out_rows, out_columns = ((side + before + after - kernel) // step + 1 for side in (h, w))
        size, out = out_rows, onto
        if self.bounds is not None:
            size = _band_rows(self.bounds.band, conv, (b, c, lead + t, w))
        if out is None and size < out_rows:
            out_frames = (lead + t - weight.shape[2]) // conv.stride[0] + 1
            whole = (b, out_frames, out_rows, out_columns, len(weight))
            out = weight.new_empty(whole).permute(0, 4, 1, 2, 3)
        written, begun = 0, tail is not None
        for first in range(0, out_rows, size):
            last = min(first + size, out_rows)
            low, high = first * step - before, (last - 1) * step - before + kernel
            top, bottom = max(0, low), min(h, high)
            read = conv.weight.new_empty(b, lead + t, high - low, before + w + after, c)
            clear_rim(read, (top - low, high - bottom), (before, after))
            seen = read[:, :, top - low : bottom - low, before : before + w].permute(0, 4, 1, 2, 3)
            fill(top, bottom, seen[:, :, lead:])
            if lead:
                self._put_before(
                    seen, lead, tail[top:bottom] if begun and tail is not None else None
                )
            if left:
                if tail is None:
                    rows_first = (h, b, left, w, c)  # so that rows are one piece
                    tail = self._tails[conv] = self._memory.take(seen, rows_first)
                # the rows of the old tail that the next band needs stay
                end = h if last == out_rows else max(written, last * step - before)
                kept = seen[:, :, max(0, lead + t - left) :, written - top : end - top]
                copy_pixels(kept, tail[written:end].permute(1, 4, 2, 0, 3))
                written = end
            y = convolve3d(
                read.permute(0, 4, 1, 2, 3), weight, conv.bias, conv.stride, (0, 0, 0),
                None if out is None else out[:, :, :, first:last], add=onto is not None,
            )  # fmt: skip
            worked(conv.weight.numel() * (y.numel() // y.shape[1]))
            if out is None:
                return y
            del read, seen, y
        assert out is not None
        return out

    def _put_before(self, seen: Tensor, lead: int, rows: Tensor | None) -> None:
        """Fill the first frames of a band: from the tail's rows, or with the first that came."""
        if rows is None:
            seen[:, :, :lead] = seen[:, :, lead : lead + 1]
        else:
            rows = send(rows, seen.device)
            copy_pixels(rows.permute(1, 4, 2, 0, 3), seen[:, :, :lead])


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
        pointwise = self.kernel_size == (1, 1, 1) and stream.bounds is None
        if not torch.is_grad_enabled() and not pointwise:
            return stream.convolve(self, rows_of(x), shape_of(x))
        x = stream.extend(self, x)
        pad = self.padding
        assert not isinstance(pad, str)
        return convolve3d(x, self.weight, self.bias, self.stride, pad)


def rows_of(x: Tensor) -> Fill:
    """Rows of `b c t h w` as they are."""
    return lambda a, b, out: copy_pixels(x[:, :, :, a:b], out)


def copy_pixels(source: Tensor, target: Tensor) -> None:
    """Copy `b c t h w`; where channels are last in memory, as numbers of 16 bytes.

    A card copies what is not one piece of memory number by number, and large ones as fast. Between
    a card and pinned memory the host does not wait, if what is written is one piece.
    """
    places = sorted((0, 2, 3, 4), key=lambda axis: -target.stride(axis))  # as they lie in memory
    of, to = in_pieces(source.permute(*places, 1), target.permute(*places, 1))
    copy_over(of, to)


def convolve3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    out: Tensor | None = None,
    *,
    add: bool = False,
    most: int = MOST_ELEMENTS,
) -> Tensor:
    """`torch.nn.functional.conv3d`, `b c t h w`, by the fast kernels.

    On x86 torch leaves float32 pictures that are low or have few channels to one that is
    three to sixteen times slower; on a card it adds the bias number by number, in a pass of its
    own. Tensors of more than `most` elements are convolved in bands of rows.

    Args:
        out: takes the result, or has it added if `add`; without gradients.
    """
    traced = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not traced and max(x.numel(), x.numel() // x.shape[1] * len(weight)) > most:
        return _convolve_split(x, weight, bias, stride, padding, out, add=add, most=most)
    if bias is not None and x.is_cuda and not traced:
        y = F.conv3d(x, weight, None, stride, padding)
        out = y if out is None else out
        put_biased(y.movedim(1, -1), bias, out.movedim(1, -1), add=add)
        return out
    if out is not None and fuses(x, weight) and out.movedim(1, -1).is_contiguous():
        convolve_onto(x, weight, bias, stride, padding, out if add else out.zero_())
        return out
    if x.is_cpu and x.dtype == torch.float32 and not traced and on_x86_with_onednn():
        y = torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)
    else:
        y = F.conv3d(x, weight, bias, stride, padding)
    if out is None:
        return y
    return out.add_(y) if add else out.copy_(y)


def _convolve_split(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    out: Tensor | None,
    *,
    add: bool,
    most: int,
) -> Tensor:
    """In bands of output rows that read no more than `most` elements; at least one row."""
    kernel, step, pad, h = weight.shape[3], stride[1], padding[1], x.shape[3]
    t, rows, columns = (
        (x.shape[i + 2] + 2 * padding[i] - weight.shape[i + 2]) // stride[i] + 1 for i in range(3)
    )
    row = x.numel() // (x.shape[1] * h) * max(x.shape[1], len(weight))
    size = max(1, (most // row - kernel) // step + 1)
    if out is None:
        out = x.new_empty(len(x), t, rows, columns, len(weight)).permute(0, 4, 1, 2, 3)
    for first in range(0, rows, size):
        last = min(first + size, rows)
        low, high = first * step - pad, (last - 1) * step - pad + kernel
        band = x[:, :, :, max(0, low) : min(h, high)]
        if low < 0 or high > h:
            band = F.pad(band, (0, 0, max(0, -low), max(0, high - h)))
        around, part = (padding[0], 0, padding[2]), out[:, :, :, first:last]
        convolve3d(band, weight, bias, stride, around, part, add=add, most=_NEVER)
    return out


def _band_rows(band: int, conv: CausalConv3d, shape: tuple[int, int, int, int]) -> int:
    """Rows of results whose input, `b c t w` a row, takes no more than `band` bytes; at least 1."""
    row = math.prod(shape) * conv.weight.element_size()
    return max(1, (band // row - conv.kernel_size[1]) // conv.stride[1] + 1)


def clear_rim(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    """Zeros in so many of the first and last rows and columns of `... h w c`, in place."""
    x[..., : rows[0], :, :] = 0
    x[..., x.shape[-3] - rows[1] :, :, :] = 0
    x[..., : columns[0], :] = 0
    x[..., x.shape[-2] - columns[1] :, :] = 0


def shape_of(x: Tensor) -> tuple[int, int, int, int, int]:
    b, c, t, h, w = x.shape
    return b, c, t, h, w
