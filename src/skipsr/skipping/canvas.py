"""A canvas of regions (`regions`) as indices: where pixels lie, and what fills their gutters."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.nn.causal import clear_rim
from skipsr.nn.fused import copy_rows

GUTTER = 1  # pixels on each side of a run: as far as a convolution of three looks


@dataclass(frozen=True)
class CanvasPlan:
    """Regions at one level of a network, as indices on one device.

    Pixels are the picture's and slots the canvas's, counted row by row. `b_of_a` has the b of every
    a: of a row of pixels 0 1 2 3 with 2 and 3 kept, slots 0 1 2 3 show pixels 1 2 3 and none, so
    `pixel_of_slot` is 1 2 3 -1, `kept_slots` 1 2, `kept_pixels` 2 3, `slot_of_pixel` zero zero 1 2.
    """

    shape: tuple[int, int]  # height and width of the canvas, gutters included
    kept_slots: Tensor  # one for each kept pixel
    kept_pixels: Tensor  # in the same order
    pixel_of_slot: Tensor  # in gutters too; -1 outside the picture
    nearest_pixel_of_slot: Tensor  # the same, but outside the picture the nearest pixel in it
    slot_of_pixel: Tensor  # its kept slot; `zero` of a skipped pixel
    y_of_column: Tensor  # the picture's row at the top of a canvas column, which may be outside
    x_of_column: Tensor  # the picture's column at a canvas column, which may be outside
    zero: int  # a slot that always holds zero

    @property
    def full(self) -> bool:
        """Whether the interior is the picture, which is kept whole."""
        height, width = (side - 2 * GUTTER for side in self.shape)
        return len(self.kept_slots) == height * width

    @property
    def middle(self) -> tuple[slice, slice]:
        """Rows and columns of what layers on one frame give: all columns, those of gutters
        included, of the rows between gutters; of a full canvas the picture."""
        rows, columns = self.interior
        return rows, columns if self.full else slice(None)

    @property
    def padding(self) -> tuple[int, int]:
        """With it a layer that looks as far as a gutter gives the middle of a canvas."""
        return 0, 0 if self.full else GUTTER

    @property
    def middle_shape(self) -> tuple[int, int]:
        """Height and width of the middle."""
        height, width = (side - 2 * GUTTER for side in self.shape)
        return height, width if self.full else self.shape[1]

    @cached_property
    def gutter_slots(self) -> Tensor:
        """Slots of gutters that a layer must find refreshed."""
        # slots at the rim are written by no layer: those that hold zero stay zero
        settled = torch.ones(self.shape, dtype=torch.bool, device=self.pixel_of_slot.device)
        settled[self.interior] = False
        settled = settled.flatten() & (self.source_of_slot == self.zero)
        settled.index_fill_(0, self.kept_slots, True)
        return self._slots_where(~settled)

    @cached_property
    def gutter_sources(self) -> Tensor:
        """The slots from which `gutter_slots` are refreshed."""
        return self.source_of_slot.index_select(0, self.gutter_slots)

    @cached_property
    def source_of_slot(self) -> Tensor:
        """The kept slot of the same pixel; `zero` where that is skipped or outside the picture."""
        sources = self.slot_of_pixel.index_select(0, self.nearest_pixel_of_slot)
        return sources.index_fill_(0, self.outside_slots, self.zero)

    @cached_property
    def middle_of_pixel(self) -> Tensor:
        """Its index in the middle, row by row; the last one, which no pixel has, where skipped."""
        if self.full:
            return torch.arange(len(self.slot_of_pixel), device=self.slot_of_pixel.device)
        last = self.middle_shape[0] * self.middle_shape[1] - 1
        index = self.slot_of_pixel - GUTTER * self.shape[1]
        return index.masked_fill_(self.slot_of_pixel == self.zero, last)

    @cached_property
    def middle_of_slot(self) -> Tensor:
        """The index of its pixel in the middle; the last one where there is none."""
        last = self.middle_shape[0] * self.middle_shape[1] - 1
        middle = self.middle_of_pixel.index_select(0, self.nearest_pixel_of_slot)
        return middle.index_fill_(0, self.outside_slots, last)

    @cached_property
    def middle_of_kept(self) -> Tensor:
        """The index of every kept pixel in the middle, in the order of `kept_pixels`."""
        return self.middle_of_pixel.index_select(0, self.kept_pixels)

    @cached_property
    def middle_gutters(self) -> Tensor:
        """`2 k`: indices in the middle that no kept pixel has, and those from which they are
        filled; not of a full canvas."""
        rows, columns = self.middle
        sources = self.middle_of_slot.view(self.shape)[rows, columns].flatten()
        owned = torch.zeros_like(sources, dtype=torch.bool)
        owned.index_fill_(0, self.middle_of_kept, True)
        gutters = indices_where(~owned, len(owned) - len(self.kept_pixels), len(owned) - 1)
        return torch.stack((gutters, sources.index_select(0, gutters)))

    def framed_pixel_of_slot(self, size: tuple[int, int]) -> Tensor:
        """As `nearest_pixel_of_slot`, of a picture that has one more pixel on each side.

        Args:
            size: of the picture without them, `(height, width)`.
        """
        row = torch.arange(self.shape[0], device=self.y_of_column.device)[:, None]
        y, x = (row + self.y_of_column).clamp(-1, size[0]), self.x_of_column.clamp(-1, size[1])
        return ((y + 1) * (size[1] + 2) + x + 1).flatten()

    @cached_property
    def outside_slots(self) -> Tensor:
        """Slots outside the picture."""
        return self._slots_where(self.pixel_of_slot < 0)

    @cached_property
    def skipped_slots(self) -> Tensor:
        """Slots of skipped pixels; all are in gutters."""
        return self._slots_where((self.pixel_of_slot >= 0) & (self.source_of_slot == self.zero))

    @cached_property
    def beyond_pixels(self) -> Tensor:
        """The pixels of `skipped_slots`; of those that only fill them up, any."""
        return self.nearest_pixel_of_slot.index_select(0, self.skipped_slots)

    @cached_property
    def unkept_slots(self) -> Tensor:
        """All slots but `kept_slots`: skipped, outside, or the same pixel as a kept one."""
        unkept = torch.ones_like(self.pixel_of_slot, dtype=torch.bool)
        return self._slots_where(unkept.index_fill_(0, self.kept_slots, False))

    def _slots_where(self, mask: Tensor) -> Tensor:
        """See `indices_where`; none may be kept."""
        return indices_where(mask, len(self.pixel_of_slot) - len(self.kept_slots), self.zero)

    @property
    def interior(self) -> tuple[slice, slice]:
        """Rows and columns that a convolution without padding gives."""
        return slice(GUTTER, self.shape[0] - GUTTER), slice(GUTTER, self.shape[1] - GUTTER)

    def clear_rim(self, canvas: Tensor) -> Tensor:
        """Zeros, in place, in the rows and columns of `t height width c` that no layer writes."""
        clear_rim(canvas, (GUTTER, GUTTER), (GUTTER, GUTTER))
        return canvas

    def padded(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The canvas of a middle `1 h' w' c`, not of a full one; clears the last pixel of `x`,
        which stands for none of the picture.

        Args:
            out: a canvas that becomes it; none if gradients are wanted.
        """
        rows = x.flatten(0, 2)
        rows[-1].zero_()
        if out is None:
            return F.embedding(self.middle_of_slot, rows).view(1, *self.shape, -1)
        torch.index_select(rows, 0, self.middle_of_slot, out=out.view(-1, rows.shape[1]))
        return out

    def encloser(self, canvas: Tensor) -> Callable[[], None]:
        """A function that refills the gutters of `1 height width c` in place, whatever layers have
        left there; not of a full one. It is called once a layer: all else is done before."""
        flat, top = canvas.flatten(0, 2), GUTTER * self.shape[1]
        bottom = len(flat) - top
        middle, (gutters, sources) = flat[top:bottom], self.middle_gutters
        last, above, below = middle[-1], flat[:top], flat[bottom:]
        sources_above, sources_below = self.middle_of_slot[:top], self.middle_of_slot[bottom:]

        def enclose() -> None:
            last.zero_()
            middle.index_copy_(0, gutters, middle.index_select(0, sources))
            torch.index_select(middle, 0, sources_above, out=above)
            torch.index_select(middle, 0, sources_below, out=below)

        return enclose

    def refresh(self, canvas: Tensor) -> Tensor:
        """Refill the gutters of `t height width c`, in place."""
        if len(self.gutter_slots):
            flat = canvas.flatten(1, 2)
            copy_rows(flat, self.gutter_sources, flat, self.gutter_slots)
        return canvas


def indices_where(mask: Tensor, most: int, spare: int) -> Tensor:
    """Where a mask of a canvas is True.

    Off the CPU `most` indices, filled up with the `spare` one, for how many there are is known to
    the device alone, and the host would have to wait for it.
    """
    if mask.is_cpu:
        return mask.nonzero()[:, 0]
    return torch.nonzero_static(mask, size=most, fill_value=spare)[:, 0]
