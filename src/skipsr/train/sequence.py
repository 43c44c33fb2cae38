"""Sequence parallelism over windows: several devices share the tokens of one clip.

Attention stays inside windows, so a device that holds whole windows runs a layer alone. The layers
alternate between two layouts of windows; between them tokens travel to where their next window is.
Text runs everywhere, and only its mean over windows is put together. Everything hangs on hooks: the
network does not know.

All ranks compute the same loss. Each exchange passes gradients back along its own way, so that the
mean of the ranks' gradients is that of a single device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as collectives
from torch import Tensor, nn

from skipsr.nn.packing import Geometry, PackedLayout
from skipsr.train.transformers import blocks_of


@dataclass(frozen=True, slots=True)
class Shared(PackedLayout):
    """This rank's part of a layout, and how its tokens come here."""

    weight: float = 0.0  # share of the windows, in the text's mean
    exchange: "Exchange | None" = None  # from the other layout
    collect: "Exchange | None" = None  # from this layout to all tokens on every rank
    group: dist.ProcessGroup | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """Rows that go to each rank and come from each rank, and their order after arrival."""

    leave: Tensor  # local rows, the first rank's first
    sent: list[int]
    received: list[int]
    order: Tensor
    group: dist.ProcessGroup

    @staticmethod
    def between(here: list[Tensor], there: list[Tensor], group: dist.ProcessGroup) -> "Exchange":
        """From the rows that each rank gives, each row once, to those it should hold; sorted."""
        rank = dist.get_rank(group)
        leave = [torch.isin(here[rank], wanted).nonzero()[:, 0] for wanted in there]
        arrive = [held[torch.isin(held, there[rank])] for held in here]
        order = torch.cat(arrive).argsort()
        sent, received = [len(rows) for rows in leave], [len(rows) for rows in arrive]
        return Exchange(torch.cat(leave), sent, received, order, group)

    def __call__(self, rows: Tensor) -> Tensor:
        """`k ...` of this rank before, to `k' ...` after."""
        device = rows.device
        moved = collectives.all_to_all_single(
            rows.new_empty((sum(self.received), *rows.shape[1:])),
            rows[self.leave.to(device)],
            self.received,
            self.sent,
            self.group,
        )
        return moved[self.order.to(device)]


def share_tokens(transformer: nn.Module, group: dist.ProcessGroup) -> None:
    """Let the ranks of `group` share the tokens of every clip that passes `transformer`.

    Its callers give it whole clips and get whole results, on every rank.
    """

    def enter(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        cells, text, timestep, geometry = given
        tokens, local = _divide(geometry, group)
        return cells[tokens.to(cells.device)], text, timestep, local

    def leave(_module: nn.Module, given: tuple[Any, ...], velocity: Tensor) -> Tensor:
        geometry: Geometry = given[3]
        last = geometry.layouts[(len(blocks) - 1) % 2]
        return collect(velocity, last)

    def move(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def hook(_block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
            layout: PackedLayout = given[3]
            if layer == 0 or not isinstance(layout, Shared) or layout.exchange is None:
                return None
            return layout.exchange(given[0]), *given[1:]

        return hook

    def average(
        _attention: nn.Module, given: tuple[Any, ...], result: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        layout: Shared = given[2]
        video, text = result
        return video, collectives.all_reduce(text * layout.weight, group=layout.group)

    blocks = blocks_of(transformer)
    transformer.register_forward_pre_hook(enter)
    transformer.register_forward_hook(leave)
    for layer, block in enumerate(blocks):
        block.register_forward_pre_hook(move(layer))
        block.get_submodule("attn").register_forward_hook(average)


def collect(rows: Tensor, layout: PackedLayout) -> Tensor:
    """All tokens of a clip in raster order, on every rank, from each rank's part of `layout`."""
    assert isinstance(layout, Shared)
    assert layout.collect is not None
    return layout.collect(rows)


def _divide(geometry: Geometry, group: dist.ProcessGroup) -> tuple[Tensor, Geometry]:
    """The rows that this rank holds in the first layer, and its part of the geometry."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    owned = [_assign(layout, ranks) for layout in geometry.layouts]
    held = [_lend(layout, rows) for layout, rows in zip(geometry.layouts, owned, strict=True)]
    every = torch.arange(len(geometry.layouts[0].video))
    parts: list[PackedLayout] = []
    for this, layout in enumerate(geometry.layouts):
        part = layout.only(held[this][rank].to(layout.video.device))
        share = part.text.shape[0] / layout.text.shape[0] if len(owned[this][rank]) else 0.0
        parts.append(
            Shared(
                part.order, part.lengths, part.video, part.text, part.rotation,
                weight=share,
                exchange=Exchange.between(owned[1 - this], held[this], group),
                collect=Exchange.between(owned[this], [every] * ranks, group),
                group=group,
            )
        )  # fmt: skip
    return held[0][rank], Geometry((parts[0], parts[1]), geometry.text_rotation)


def _assign(layout: PackedLayout, ranks: int) -> list[Tensor]:
    """Rows of the tokens each rank takes: whole windows, the largest first to whoever has least."""
    window = layout.window.cpu()
    sizes = torch.bincount(window).tolist()
    load, owner = [0] * ranks, torch.empty(len(sizes), dtype=torch.long)
    for number in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        rank = min(range(ranks), key=lambda r: load[r])
        owner[number] = rank
        load[rank] += sizes[number]
    return [(owner[window] == rank).nonzero()[:, 0] for rank in range(ranks)]


def _lend(layout: PackedLayout, owned: list[Tensor]) -> list[Tensor]:
    """The rows each rank works on: its own windows, or a copy of the smallest one.

    A copy is lent where a mask leaves fewer windows than ranks; nobody reads its results.
    """
    window = layout.window.cpu()
    smallest = (window == torch.bincount(window).argmin()).nonzero()[:, 0]
    return [rows if len(rows) else smallest for rows in owned]
