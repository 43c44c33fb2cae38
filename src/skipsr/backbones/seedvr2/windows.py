"""Space-time windows, and the packed layout in which the kept tokens of a clip meet in attention.

Everything here is computed once per clip on the full grid, then restricted to the kept tokens: a
token keeps the window and the position it has when nothing is skipped.
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from skipsr.nn.packing import Geometry, PackedLayout
from skipsr.nn.rope import Rotation
from skipsr.skipping.route import Route

GridSize = tuple[int, int, int]  # t h w
Span = tuple[int, int]  # [start, end) along one axis
RotaryKind = Literal["language", "pixel"]

_REFERENCE_TOKENS = 45 * 80  # tokens of a 1280x720 frame
_LONGEST = 30  # latent frames beyond which temporal windows stop growing


def window_size(grid: GridSize, counts: GridSize) -> GridSize:
    """In tokens: `counts` windows would tile this aspect ratio at 720p, whatever the real size."""
    t, h, w = grid
    scale = math.sqrt(_REFERENCE_TOKENS / (h * w))
    return (
        math.ceil(min(t, _LONGEST) / counts[0]),
        math.ceil(round(h * scale) / counts[1]),
        math.ceil(round(w * scale) / counts[2]),
    )


def axis_windows(cells: int, size: int, *, shifted: bool) -> list[Span]:
    """Windows along an axis; shifted ones start half a window early, and are cut, not rolled."""
    shift = 0.5 if shifted and size < cells else 0.0
    spans = (
        (max(int((i - shift) * size), 0), min(int((i - shift + 1) * size), cells))
        for i in range(math.ceil(cells / size + shift))
    )
    return [(start, end) for start, end in spans if start < end]


def windows(
    grid: GridSize, counts: GridSize, *, shifted: bool
) -> Iterator[tuple[Span, Span, Span]]:
    """All windows `(t, h, w)` of a grid in the reference's order: t changes fastest, w slowest."""
    t, h, w = (
        axis_windows(n, k, shifted=shifted)
        for n, k in zip(grid, window_size(grid, counts), strict=True)
    )
    return ((ts, hs, ws) for ws in w for hs in h for ts in t)


def geometry_of(
    route: Route, text_tokens: int, counts: GridSize, rotary: RotaryKind, frequencies: Tensor
) -> Geometry:
    """Lay out the kept tokens of `route`; tensors are made on the device of `frequencies`."""
    cells = route.positions.cpu()
    regular, shifted = (
        _layout(route.grid, cells, text_tokens, counts, rotary, frequencies, shifted=s)
        for s in (False, True)
    )
    text = None
    if rotary == "language":
        place = torch.arange(text_tokens, device=frequencies.device)
        text = Rotation.of(place[:, None].expand(-1, 3), frequencies)
    return Geometry((regular, shifted), text)


def _layout(
    grid: GridSize,
    cells: Tensor,
    text_tokens: int,
    counts: GridSize,
    rotary: RotaryKind,
    frequencies: Tensor,
    *,
    shifted: bool,
) -> PackedLayout:
    window, position = _locate(grid, cells, counts, rotary, text_tokens, shifted=shifted)
    return PackedLayout.of(
        window, text_tokens, Rotation.of(position.to(frequencies.device), frequencies)
    )


def _locate(
    grid: GridSize,
    cells: Tensor,
    counts: GridSize,
    rotary: RotaryKind,
    text_tokens: int,
    *,
    shifted: bool,
) -> tuple[Tensor, Tensor]:
    """Window number `k` and rotary position `k 3` of the kept cells `k 3` of a grid."""
    sizes = window_size(grid, counts)
    number = torch.zeros(len(cells), dtype=torch.long)
    positions: list[Tensor] = []
    below = 1  # windows along the axes that change faster
    for axis, cell in enumerate(cells.unbind(1)):
        spans = axis_windows(grid[axis], sizes[axis], shifted=shifted)
        of_cell = torch.cat([torch.full((end - start,), i) for i, (start, end) in enumerate(spans)])
        number += of_cell[cell] * below
        below *= len(spans)
        positions.append(torch.cat([_axis_positions(e - s, rotary) for s, e in spans])[cell])
    if rotary == "language":
        positions[0] = positions[0] + text_tokens  # video follows the text in time
    return number, torch.stack(positions, 1)


def _axis_positions(cells: int, rotary: RotaryKind) -> Tensor:
    if rotary == "language":
        return torch.arange(cells, dtype=torch.float32)
    # stretched over this window's extent; -1 for a single cell
    return torch.linspace(-1, 1, cells, dtype=torch.float32)
