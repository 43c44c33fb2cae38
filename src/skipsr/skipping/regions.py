"""Sparse convolution by packing: the kept regions of a picture side by side on one small canvas.

Every layer of a network is then one call on it.

A picture is cut into strips of equal height. In each strip the kept columns form runs, and all
runs of all strips stand one after the other on one long canvas, each with a gutter around it. One
call of a convolution then computes every kept pixel. Between layers the gutters are filled along
indices that are made once: where the neighbour is kept they hold its border, elsewhere zero. That
is the network run on the whole picture with everything outside the kept part set to zero between
layers, which is how the tests do it. A picture kept whole is one run as high as the picture, and
the layers are the dense ones.

A layer that holds several frames pads nothing and gives the interior of a canvas, whose gutters are
refreshed in place. A layer on one frame pads columns and gives whole rows, the middle of a canvas,
which is one piece of memory: it is padded to a canvas in one pass, or added to one in place.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.nn.transfer import send
from skipsr.skipping.canvas import GUTTER, CanvasPlan

_WIDTH_STEP = 32  # canvas widths come in such steps, so that few kernels have to be prepared
_WIDTH_ODD = 20  # beyond a step: rows a power of two apart would meet in the same lines of a cache
_Key = tuple[int, int, int, torch.device]


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
    _plans: dict[_Key, CanvasPlan] = field(init=False, repr=False, default_factory=dict)

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
        """Regions that hold every cell of `keep`, bool `rows columns`; see `to_run`."""
        run = to_run(keep[None], strip, gap, crossover)[0]
        return Regions(run, run.shape[0] if bool(run.all()) else strip)

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
        device: torch.device | str = "cpu",
    ) -> CanvasPlan:
        """The canvas of a level at which a cell has `pixels` pixels a side.

        It is made once, on the device where it is used.

        Args:
            size: of pictures at that level, `(height, width)`.
        """
        key = (pixels, *size, torch.device(device))
        if key not in self._plans:
            self._plans[key] = _plan_of(self, pixels, size, key[-1])
        return self._plans[key]

    def forget(self) -> None:
        """Give up the canvases that were made."""
        self._plans.clear()


def to_run(keep: Tensor, strip: int, gap: int, crossover: float) -> Tensor:
    """The cells that are run for those that are kept, bool `t rows columns`.

    Args:
        strip: rows of cells in a strip, a column of which is run as a whole.
        gap: skipped cells between two runs that are run as well, since a gutter costs as much.
        crossover: share of a picture from which all of it is run, which is then cheaper.
    """
    run = _close_gaps(widen(keep, strip), gap)
    share = run.float().mean((1, 2), keepdim=True)
    return run | ((share >= crossover) & (share > 0))  # nothing costs nothing, whatever the law


def widen(keep: Tensor, strip: int) -> Tensor:
    """A strip's column is kept where any of its cells is: bool `... rows columns` -> the same."""
    rows = keep.shape[-2]
    padded = F.pad(keep, (0, 0, 0, -rows % strip))
    any_kept = padded.unflatten(-2, (-1, strip)).any(-2)
    return any_kept.repeat_interleave(strip, -2)[..., :rows, :]


def _close_gaps(keep: Tensor, gap: int) -> Tensor:
    """Fill gaps of up to `gap` cells between kept cells of a row."""
    if not gap:
        return keep
    grown = F.max_pool1d(F.pad(keep.float(), (gap, gap)), gap + 1, 1)  # longer by `gap`
    closed = -F.max_pool1d(-grown, gap + 1, 1)
    return keep | (closed > 0)


def count_pixels(keep: Tensor, pixels: int, size: tuple[int, int]) -> int:
    """Kept pixels of a picture, whose last cells may be cut."""
    high, wide = (
        (side - pixels * torch.arange(count)).clamp(0, pixels)
        for side, count in zip(size, keep.shape, strict=True)
    )
    return int((keep * high[:, None] * wide).sum())


def _plan_of(
    regions: Regions,
    pixels: int,
    size: tuple[int, int],
    device: torch.device,
) -> CanvasPlan:
    """See `Regions.at`; the host never waits for the device."""
    height, width = size
    tall = min(regions.strip * pixels, height)
    laid = _columns(regions, pixels, width)
    strip, x, inside = (send(each, device) for each in laid)
    row = torch.arange(-GUTTER, tall + GUTTER, device=device)[:, None]
    y = row + strip * tall  # canvas rows, canvas columns
    within = (y >= 0) & (y < height) & ((x >= 0) & (x < width))
    pixel_of_slot = torch.where(within, y * width + x, -1).flatten()
    nearest = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten()
    kept = torch.zeros_like(within)
    rows = slice(GUTTER, GUTTER + tall)
    kept[rows] = within[rows] & inside
    count = count_pixels(regions.keep, pixels, size)
    kept_slots = torch.nonzero_static(kept.flatten(), size=count)[:, 0]
    kept_pixels = pixel_of_slot.index_select(0, kept_slots)
    zero = y.shape[1] - 1  # the end of the first row: see `_columns`
    slot_of_pixel = torch.full((height * width,), zero, device=device)
    slot_of_pixel.index_copy_(0, kept_pixels, kept_slots)
    return CanvasPlan(
        shape=(y.shape[0], y.shape[1]),
        kept_slots=kept_slots,
        kept_pixels=kept_pixels,
        pixel_of_slot=pixel_of_slot,
        nearest_pixel_of_slot=nearest,
        slot_of_pixel=slot_of_pixel,
        y_of_column=y[0].clone(),
        x_of_column=x,
        zero=zero,
    )


def _columns(regions: Regions, pixels: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """For every column of the canvas: strip, the picture's column (-1: none), whether no gutter.

    The last columns, one more than gutters after a run, belong to no run unless the picture is
    whole, so that the end of the first row is zero for ever, and the last slots of interior and
    middle are no pixel's.
    """
    strips, first, end = regions.runs.unbind(1)
    first, end = first * pixels, end * pixels
    if regions.whole:
        end = end.clamp_max(width)
    lengths = end - first + 2 * GUTTER
    used = int(lengths.sum())
    number = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    offset = torch.arange(used) - (lengths.cumsum(0) - lengths)[number]
    column = first[number] + offset - GUTTER
    inside = (column >= first[number]) & (column < end[number])
    strip = strips[number]
    if not regions.whole:
        spare = 1 + GUTTER + (_WIDTH_ODD - used - 1 - GUTTER) % _WIDTH_STEP
        strip, inside = F.pad(strip, (0, spare)), F.pad(inside, (0, spare))
        column = F.pad(column, (0, spare), value=-1)
    return strip, column, inside
