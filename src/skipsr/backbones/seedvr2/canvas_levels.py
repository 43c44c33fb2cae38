"""The canvases of a slice of the autoencoder, level by level (`skipping.regions`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from skipsr.nn.transfer import send
from skipsr.skipping.canvas import GUTTER, CanvasPlan
from skipsr.skipping.canvas_moves import copied, halved, split
from skipsr.skipping.regions import Regions, count_pixels

CELL = 2  # latent cells a side


class CanvasLevels:
    """The canvases of a slice at all levels of the autoencoder, and the indices between them.

    Levels are told apart by the pixels that a cell has a side.

    Attributes:
        keep: bool `rows columns`, on the CPU.
    """

    def __init__(
        self,
        keep: Tensor,
        strip: int,
        size: tuple[int, int],
        device: torch.device,
        whole: int = 0,
    ) -> None:
        """Args:
        strip: rows of cells in a strip.
        size: latent cells, `(height, width)`.
        whole: levels of up to so many pixels are run as a whole.
        """
        self.keep, self._strip = keep, strip
        self._regions = Regions(keep, len(keep) if bool(keep.all()) else strip)
        self._all = Regions(torch.ones_like(keep), len(keep))
        self._size, self._device, self._whole = size, device, whole
        self._made: dict[tuple[str, int], Tensor] = {}

    def _once(self, what: str, pixels: int, make: Callable[[], Tensor]) -> Tensor:
        if (what, pixels) not in self._made:
            self._made[what, pixels] = make()
        return self._made[what, pixels]

    def _size_at(self, pixels: int) -> tuple[int, int]:
        return self._size[0] * pixels // CELL, self._size[1] * pixels // CELL

    def plan(self, pixels: int) -> CanvasPlan:
        regions = self._all if pixels <= self._whole else self._regions
        return regions.at(pixels, self._size_at(pixels), self._device)

    @property
    def kept_latents(self) -> Tensor:
        """The latent cells that are kept, also where their level is run as a whole."""
        return self._regions.at(CELL, self._size, self._device).kept_pixels

    def strip_rows(self, pixels: int) -> int:
        """Rows of a strip, in pixels of a level."""
        return self._strip * pixels

    def columns_of(self, pixels: int, top: int, bottom: int) -> slice:
        """Columns of the canvas that show rows `[top, bottom)` of the picture, both of which are
        ends of strips; the last ones with what belongs to none. Not of a full canvas."""
        strip, first, end = self._regions.runs.unbind(1)
        lengths = (end - first) * pixels + 2 * GUTTER
        tall, width = self.strip_rows(pixels), self.plan(pixels).shape[1]
        before, through = (int(lengths[strip * tall < row].sum()) for row in (top, bottom))
        return slice(before, width if bottom >= self._size_at(pixels)[0] else through)

    def leaving_slots(self, pixels: int, after: "CanvasLevels") -> Tensor:
        """Kept slots that are not kept on the canvases that follow; always the same ones."""
        plan = self.plan(pixels)
        if after is self or pixels <= self._whole:
            return plan.kept_slots[:0]

        def make() -> Tensor:
            height, width = self._size_at(pixels)
            leaving = self.keep & ~after.keep
            cells = send(leaving.flatten(), self._device)
            y, x = plan.kept_pixels // width, plan.kept_pixels % width
            leaves = cells[y // pixels * leaving.shape[1] + x // pixels]
            count = count_pixels(leaving, pixels, (height, width))
            return plan.kept_slots[torch.nonzero_static(leaves, size=count)[:, 0]]

        return self._once("leaving", pixels, make)

    def onto(self, pixels: int, after: "CanvasLevels") -> Tensor:
        """To the canvases that follow, always the same ones; see `canvas_moves.copied`."""
        return self._once("onto", pixels, lambda: copied(self.plan(pixels), after.plan(pixels)))

    def split(self, pixels: int) -> Tensor:
        """From a level to the next finer one; see `canvas_moves.split`."""
        finer = 2 * pixels
        return self._once(
            "split",
            pixels,
            lambda: split(self.plan(pixels), self.plan(finer), self._size_at(finer)[1]),
        )

    def halved(self, pixels: int) -> Tensor:
        """From a level to the next coarser one; see `canvas_moves.halved`."""
        width = self._size_at(pixels)[1]
        return self._once(
            "halved",
            pixels,
            lambda: halved(self.plan(pixels), self.plan(pixels // 2), width),
        )
