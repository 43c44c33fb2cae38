"""Sparse convolution by packing: the kept regions of a picture side by side on one small canvas.

Every layer of a network is then one call on it.

A picture is cut into strips of equal height. In each strip the kept columns form runs, and all
runs of all strips stand one after the other on one long canvas, each with a gutter around it. A
convolution without padding then computes every kept pixel in one call and gives the interior of
that canvas. Between layers the gutters are filled along indices that are made once: where the
neighbour is kept they hold its border, elsewhere zero. Either they are refreshed in place, or an
interior is padded to a canvas in one pass, which costs less where a layer holds one frame. That is
the network run on the whole picture with everything outside the kept part set to zero between
layers, which is how the tests do it. A picture kept whole is one run as high as the picture, and
the layers are the dense ones.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.nn.fused import copy_rows

_WIDTH_STEP = 32  # canvas widths come in such steps, so that few kernels have to be prepared
_WIDTH_ODD = 20  # beyond a step: rows a power of two apart would meet in the same lines of a cache
_Key = tuple[int, int, int, int, int, torch.device]


@dataclass(frozen=True)
class Regions:
    """The kept cells of one picture as runs of columns in strips.

    Attributes:
        keep: bool `rows columns`, True = run; equal within a strip's column.
        strip: rows of cells in a strip; all rows where the whole picture is kept.

    Raises:
        ValueError: for a mask of another rank or dtype, or one that differs within a strip.
    """

    keep: Tensor
    strip: int
    _plans: dict[_Key, "CanvasPlan"] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.keep.dtype != torch.bool or self.keep.ndim != 2 or not self.keep.is_cpu:
            raise ValueError(
                f"a mask is bool rows columns on the CPU, not {self.keep.dtype} "
                f"{tuple(self.keep.shape)} on {self.keep.device}"
            )
        if not torch.equal(widen(self.keep, self.strip), self.keep):
            raise ValueError(f"this mask differs within a strip of {self.strip} rows")

    @staticmethod
    def of(keep: Tensor, strip: int, gap: int = 0, crossover: float = 1.0) -> "Regions":
        """Regions that hold every cell of `keep`, bool `rows columns`.

        Args:
            strip: rows of cells in a strip.
            gap: skipped cells between two runs that are run as well, since a gutter costs as much.
            crossover: kept share from which the whole picture is run, which is then cheaper.
        """
        keep = _close(widen(keep, strip), gap)
        if keep.float().mean().item() >= crossover or bool(keep.all()):
            return Regions(torch.ones_like(keep), max(1, keep.shape[0]))
        return Regions(keep, strip)

    @property
    def fraction(self) -> float:
        """Kept share of the cells, 0 to 1."""
        return self.keep.float().mean().item()

    @property
    def whole(self) -> bool:
        return self.strip == self.keep.shape[0] and bool(self.keep.all())

    @cached_property
    def runs(self) -> Tensor:
        """`k 3`: strip, first column and column after the last, in cells."""
        rows = self.keep[:: self.strip]
        edges = F.pad(rows.int(), (1, 1)).diff(dim=1)
        starts, ends = (edges == 1).nonzero(), (edges == -1).nonzero()
        return torch.cat((starts, ends[:, 1:]), 1)

    def at(
        self,
        pixels: int,
        size: tuple[int, int],
        before: int = 1,
        after: int | None = None,
        device: torch.device | str = "cpu",
    ) -> "CanvasPlan":
        """The canvas of a level at which a cell has `pixels` pixels a side.

        It is made once, on the device where it is used.

        Args:
            size: of pictures at that level, `(height, width)`.
            before, after: gutters of a run, left and above, right and below.
        """
        after = before if after is None else after
        key = (pixels, *size, before, after, torch.device(device))
        if key not in self._plans:
            self._plans[key] = CanvasPlan.of(self, pixels, size, (before, after), key[-1])
        return self._plans[key]


def widen(keep: Tensor, strip: int) -> Tensor:
    """A strip's column is kept where any of its cells is: bool `rows columns` -> the same."""
    rows = keep.shape[0]
    padded = F.pad(keep, (0, 0, 0, -rows % strip))
    any_kept = padded.unflatten(0, (-1, strip)).any(1)
    return any_kept.repeat_interleave(strip, 0)[:rows]


def _close(keep: Tensor, gap: int) -> Tensor:
    """Fill gaps of up to `gap` cells between kept cells of a row."""
    if not gap:
        return keep
    line = keep.float()[:, None]
    grown = F.max_pool1d(F.pad(line, (gap, gap)), gap + 1, 1)  # one longer than the row by `gap`
    closed = -F.max_pool1d(-grown, gap + 1, 1)
    return keep | (closed[:, 0, : keep.shape[1]] > 0)


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

    @staticmethod
    def of(
        regions: Regions,
        pixels: int,
        size: tuple[int, int],
        gutters: tuple[int, int],
        device: torch.device,
    ) -> "CanvasPlan":
        """See `Regions.at`; the host never waits for the device."""
        (height, width), (before, after) = size, gutters
        tall = min(regions.strip * pixels, height) if regions.whole else regions.strip * pixels
        laid = _columns(regions, pixels, width, *gutters)
        strip, column, inside = (each.to(device, non_blocking=True) for each in laid)
        row = torch.arange(-before, tall + after, device=device)[:, None]
        y = row + strip * tall  # canvas rows, canvas columns
        x = column.expand_as(y)
        within = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (strip >= 0)
        picture = torch.where(within, y * width + x, -1).flatten()
        nearest = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten()
        owned = (within & inside & (row >= 0) & (row < tall)).flatten()
        body = torch.nonzero_static(owned, size=count_pixels(regions.keep, pixels, size))[:, 0]
        source = picture[body]
        zero = y.shape[1] - 1  # the end of the first row: see `_columns`
        place = torch.full((height * width,), zero, device=device)
        place[source] = body
        return CanvasPlan(
            shape=(y.shape[0], y.shape[1]), gutters=(before, after), body=body, source=source,
            seen=picture, nearest=nearest, place=place, top=y[0], left=column, zero=zero,
        )  # fmt: skip

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
        """With it a layer that looks as far as a gutter gives the middle of a canvas."""
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
        """`k 2`, transposed: places of the middle that no kept pixel has, and those of the middle
        that belong there. Not of a full canvas."""
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

    def padded(self, x: Tensor) -> Tensor:
        """The canvas of a middle `1 h' w' c`, not of a full one; clears the last place of `x`,
        which stands for no pixel."""
        rows = x.flatten(0, 2)
        rows[-1] = 0
        return F.embedding(self.around, rows).view(1, *self.shape, -1)

    def enclose(self, canvas: Tensor) -> None:
        """Put all around the kept pixels of `1 height width c`, in place, what belongs there, where
        layers have left anything; not of a full one."""
        flat, width, (before, after) = canvas.flatten(0, 2), self.shape[1], self.gutters
        top, bottom = before * width, len(flat) - after * width
        middle = flat[top:bottom]
        middle[-1] = 0
        places, belonging = self.beside
        middle.index_copy_(0, places, middle.index_select(0, belonging))
        torch.index_select(middle, 0, self.around[:top], out=flat[:top])
        torch.index_select(middle, 0, self.around[bottom:], out=flat[bottom:])

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


def count_pixels(keep: Tensor, pixels: int, size: tuple[int, int]) -> int:
    """Kept pixels of a picture, whose last cells may be cut."""
    high, wide = (
        (side - pixels * torch.arange(count)).clamp(0, pixels)
        for side, count in zip(size, keep.shape, strict=True)
    )
    return int((keep * high[:, None] * wide).sum())


def _columns(
    regions: Regions, pixels: int, width: int, before: int, after: int
) -> tuple[Tensor, Tensor, Tensor]:
    """For every column of the canvas: strip (-1: none), the picture's column, whether no gutter.

    The last columns, one more than gutters after a run, belong to no run unless the picture is
    whole, so that the end of the first row is zero for ever and the last place of the interior is
    no pixel's.
    """
    strips, first, end = regions.runs.unbind(1)
    first, end = first * pixels, end * pixels
    if regions.whole:
        end = end.clamp_max(width)
    lengths = end - first + before + after
    used = int(lengths.sum())
    number = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    offset = torch.arange(used) - (lengths.cumsum(0) - lengths)[number]
    column = first[number] + offset - before
    inside = (column >= first[number]) & (column < end[number])
    strip = strips[number]
    if not regions.whole:
        spare = 1 + after + (_WIDTH_ODD - used - 1 - after) % _WIDTH_STEP
        strip, column = F.pad(strip, (0, spare), value=-1), F.pad(column, (0, spare), value=-1)
        inside = F.pad(inside, (0, spare))
    return strip, column, inside
