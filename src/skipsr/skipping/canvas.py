"""A canvas of regions (`regions`) as indices: where pixels stand, and what belongs around them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.nn.fused import copy_rows


@dataclass(frozen=True)
class CanvasPlan:
    """Regions at one level of a network, as indices on one device.

    Pixels of the canvas and of the picture are counted row by row. The canvas has one pixel that is
    always zero, at `zero`.
    """

    shape: tuple[int, int]  # height and width of the canvas, gutters included
    gutters: tuple[int, int]  # before, after
    body: Tensor  # m: canvas pixels that stand for kept pixels of the picture
    source: Tensor  # m: and which those are
    seen: Tensor  # canvas: the picture's pixel at every place, gutters included; -1 outside
    nearest: Tensor  # canvas: the same, but the nearest pixel of the picture where outside
    place: Tensor  # picture: where a pixel stands on the canvas; `zero` where it is skipped
    top: Tensor  # canvas columns: the picture's row at their first place, which may be outside
    left: Tensor  # canvas columns: the picture's column, the same
    zero: int

    @property
    def full(self) -> bool:
        """Whether the interior is the picture, which is kept whole."""
        before, after = self.gutters
        height, width = (side - before - after for side in self.shape)
        return len(self.body) == height * width

    @property
    def middle(self) -> tuple[slice, slice]:
        """Rows and columns of what layers on one frame give: all columns, those of gutters
        included, of the rows between gutters; of a full canvas the picture."""
        rows, columns = self.interior
        return rows, columns if self.full else slice(None)

    @property
    def padding(self) -> tuple[int, int]:
        """With it a layer that looks as far as a gutter gives the middle of a canvas, if gutters
        are as wide before as after."""
        return 0, 0 if self.full else self.gutters[0]

    @property
    def middle_shape(self) -> tuple[int, int]:
        """Height and width of the middle."""
        height, width = (side - sum(self.gutters) for side in self.shape)
        return height, width if self.full else self.shape[1]

    @cached_property
    def stale(self) -> Tensor:
        """`g`: canvas pixels outside the body that a layer must find refreshed."""
        # rows and columns at the rim are written by no layer: those that hold zero stay zero
        settled = torch.ones(self.shape, dtype=torch.bool, device=self.seen.device)
        settled[self.interior] = False
        settled = settled.flatten() & (self.belonging == self.zero)
        settled.index_fill_(0, self.body, True)
        return places_of(~settled, len(self.seen) - len(self.body), self.zero)

    @cached_property
    def fresh(self) -> Tensor:
        """`g`: the canvas pixels that hold what belongs into the stale ones."""
        return self.belonging[self.stale]

    @cached_property
    def belonging(self) -> Tensor:
        """canvas: the canvas pixel of the body that belongs at every place; `zero` where that is
        skipped or outside the picture."""
        return torch.where(self.seen >= 0, self.place[self.seen.clamp_min(0)], self.zero)

    @cached_property
    def held(self) -> Tensor:
        """picture: where a pixel stands in the middle; the last place where it is skipped."""
        if self.full:
            return torch.arange(len(self.place), device=self.place.device)
        last = self.middle_shape[0] * self.middle_shape[1] - 1
        held = self.place - self.gutters[0] * self.shape[1]
        return held.masked_fill_(self.place == self.zero, last)

    @cached_property
    def around(self) -> Tensor:
        """canvas: the place of the middle that belongs at every place; see `held`."""
        last = self.middle_shape[0] * self.middle_shape[1] - 1
        return torch.where(self.seen >= 0, self.held[self.seen.clamp_min(0)], last)

    @cached_property
    def beside(self) -> Tensor:
        """`2 k`: places of the middle that no kept pixel has, and those that belong there; not of a
        full canvas."""
        rows, columns = self.middle
        around = self.around.view(self.shape)[rows, columns].flatten()
        owned = torch.zeros_like(around, dtype=torch.bool)
        owned[self.held[self.source]] = True
        places = places_of(~owned, len(owned) - len(self.source), len(owned) - 1)
        return torch.stack((places, around[places]))

    def framed(self, size: tuple[int, int]) -> Tensor:
        """At every place of the canvas the pixel of a picture that has one more on each side, the
        nearest where it is beyond these.

        Args:
            size: of the picture without them, `(height, width)`.
        """
        row = torch.arange(self.shape[0], device=self.top.device)[:, None]
        y, x = (row + self.top).clamp(-1, size[0]), self.left.clamp(-1, size[1])
        return ((y + 1) * (size[1] + 2) + x + 1).flatten()

    @cached_property
    def outside(self) -> Tensor:
        """Canvas pixels that stand for none of the picture."""
        return places_of(self.seen < 0, len(self.seen) - len(self.body), self.zero)

    @property
    def interior(self) -> tuple[slice, slice]:
        """Rows and columns that a convolution without padding gives."""
        before, after = self.gutters
        return slice(before, self.shape[0] - after), slice(before, self.shape[1] - after)

    def clear_rim(self, canvas: Tensor) -> Tensor:
        """Zeros, in place, in the rows and columns of `t height width c` that no layer writes."""
        rows, columns = self.interior
        canvas[:, : rows.start] = 0
        canvas[:, rows.stop :] = 0
        canvas[:, :, : columns.start] = 0
        canvas[:, :, columns.stop :] = 0
        return canvas

    def padded(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The canvas of a middle `1 h' w' c`, not of a full one; clears the last place of `x`,
        which stands for no pixel.

        Args:
            out: a canvas that becomes it; none if gradients are wanted.
        """
        rows = x.flatten(0, 2)
        rows[-1].zero_()
        if out is None:
            return F.embedding(self.around, rows).view(1, *self.shape, -1)
        torch.index_select(rows, 0, self.around, out=out.view(-1, rows.shape[1]))
        return out

    def encloser(self, canvas: Tensor) -> Callable[[], None]:
        """What puts all around the kept pixels of `1 height width c`, in place, what belongs there,
        whatever layers have left; not of a full one. It is called once a layer: all else is done
        before."""
        flat, width, (before, after) = canvas.flatten(0, 2), self.shape[1], self.gutters
        top, bottom = before * width, len(flat) - after * width
        middle, (places, belonging) = flat[top:bottom], self.beside
        last, above, below = middle[-1], flat[:top], flat[bottom:]
        belonging_above, belonging_below = self.around[:top], self.around[bottom:]

        def enclose() -> None:
            last.zero_()
            middle.index_copy_(0, places, middle.index_select(0, belonging))
            torch.index_select(middle, 0, belonging_above, out=above)
            torch.index_select(middle, 0, belonging_below, out=below)

        return enclose

    def refresh(self, canvas: Tensor) -> Tensor:
        """Put into the gutters of `t height width c`, in place, what belongs there."""
        if len(self.stale):
            flat = canvas.flatten(1, 2)
            copy_rows(flat, self.fresh, flat, self.stale)
        return canvas


def places_of(mask: Tensor, most: int, spare: int) -> Tensor:
    """Where a mask of a canvas is True.

    Off the CPU `most` places, filled up with the `spare` one, for how many there are is known to
    the device alone, and the host would have to wait for it.
    """
    if mask.is_cpu:
        return mask.nonzero()[:, 0]
    return torch.nonzero_static(mask, size=most, fill_value=spare)[:, 0]
