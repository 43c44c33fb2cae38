"""Ways to skip tokens in the diffusion transformer (arXiv 2510.08799, Fig. 5a), to be compared.

All take the latent of the whole grid and give the velocity of the kept cells. With everything kept
all are the dense network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.seedvr2.dit import Block, DiT, Modulation
from skipsr.bench.settings import Mechanism
from skipsr.nn.attention import Lengths, flash_runs, varlen_attn
from skipsr.nn.packing import Geometry, PackedLayout
from skipsr.nn.rope import Rotation, rotate
from skipsr.skipping.route import Route

Times = tuple[Modulation, Modulation]
Layer = Callable[[Block, int, Tensor, Tensor, Times], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step over a clip: what is kept of it, and its layouts with and without the rest."""

    dit: DiT
    route: Route
    kept: Geometry
    whole: Geometry

    @staticmethod
    def of(dit: DiT, keep: Tensor, text_tokens: int) -> "Step":
        """
        Args:
            keep: bool `t h w`, tokens to refine, on the device of `dit`.
        """
        route, dense = Route(keep), Route(torch.ones_like(keep))
        return Step(
            dit=dit,
            route=route,
            kept=dit.geometry(route, text_tokens),
            whole=dit.geometry(dense, text_tokens),
        )

    @property
    def rows(self) -> Tensor:
        """Rows of the kept tokens among all, in raster order."""
        return self.route.keep.flatten().nonzero()[:, 0]

    def run(self, mechanism: Mechanism, cells: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        """Velocity of the kept cells, `k 4 c`.

        Args:
            cells: `n 4 c`, of the whole grid.
            text: `l text_width`.
            timestep: scalar in [0, 1000].
        """
        return _MECHANISMS[mechanism](self, cells, text, timestep)


def _route(step: Step, cells: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
    """Skipped tokens pass everything: the product's own way."""
    return step.dit(cells[step.rows], text, timestep, step.kept)


def _attention_only(step: Step, cells: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
    """Skipped tokens pass attention with its projections; norms and MLPs see all."""
    rows, whole, kept = step.rows, step.whole, step.kept

    def layer(
        block: Block, parity: int, video: Tensor, text: Tensor, time: Times
    ) -> tuple[Tensor, Tensor]:
        normed, normed_text = block.normed(video, text, time)
        attended, attended_text = block.attn(
            normed[rows], normed_text, kept.layouts[parity], whole.text_rotation
        )
        return _after_attention(block, (video, text), (attended, attended_text), rows, time)

    return _all_layers(step, cells, text, timestep, layer)


def _queries_only(step: Step, cells: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
    """Skipped tokens ask nothing in attention, but are keys and values; all else sees all."""
    rows = step.rows
    kept = step.route.keep.flatten()
    asking = [_Asking.of(layout, kept) for layout in step.whole.layouts]

    def layer(
        block: Block, parity: int, video: Tensor, text: Tensor, time: Times
    ) -> tuple[Tensor, Tensor]:
        normed = block.normed(video, text, time)
        layout, rotation = step.whole.layouts[parity], step.whole.text_rotation
        attended = _ask(block, normed, layout, rotation, asking[parity], rows)
        return _after_attention(block, (video, text), attended, rows, time)

    return _all_layers(step, cells, text, timestep, layer)


def _interleaved(step: Step, cells: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
    """Every second layer sees all tokens; skipped ones pass the others whole."""
    rows = step.rows

    def layer(
        block: Block, parity: int, video: Tensor, text: Tensor, time: Times
    ) -> tuple[Tensor, Tensor]:
        if parity == 0:
            return block(video, text, time, step.whole.layouts[0], step.whole.text_rotation)
        refined, text = block(
            video[rows], text, time, step.kept.layouts[1], step.kept.text_rotation
        )
        return video.index_copy(0, rows, refined), text

    return _all_layers(step, cells, text, timestep, layer)


_MECHANISMS: Mapping[Mechanism, Callable[[Step, Tensor, Tensor, Tensor], Tensor]] = (
    MappingProxyType(
        {
            "route": _route,
            "attention-only": _attention_only,
            "queries-only": _queries_only,
            "interleaved": _interleaved,
        }
    )
)


def _all_layers(step: Step, cells: Tensor, text: Tensor, timestep: Tensor, layer: Layer) -> Tensor:
    """`DiT.forward` over the whole grid with other layers."""
    dit = step.dit
    video, text = dit.vid_in(cells.flatten(1)), dit.txt_in(text)
    time = dit.emb_in.split(dit.emb_in(timestep))
    for number, block in enumerate(dit.blocks):
        assert isinstance(block, Block)
        video, text = layer(block, number % 2, video, text, time)
    video = video[step.rows]
    if dit.config.output_norm:
        video = dit.vid_out_ada(dit.vid_out_norm(video), time[0])
    return rearrange(dit.vid_out(video), "k (cells c) -> k cells c", cells=cells.shape[1])


def _after_attention(
    block: Block,
    streams: tuple[Tensor, Tensor],
    attended: tuple[Tensor, Tensor],
    rows: Tensor,
    time: Times,
) -> tuple[Tensor, Tensor]:
    """Add what was attended, of the video in `rows` alone, and then the MLPs of all."""
    video, text = streams
    own = block.ada.video
    video = video.index_copy(0, rows, block.add(video[rows], attended[0], own, time))
    video = block.add_mlp(video, block.mlp.video, own, time)
    if block.text_continues:
        text = block.add(text, attended[1], block.ada.text, time)
        text = block.add_mlp(text, block.mlp.text, block.ada.text, time)
    return video, text


@dataclass(frozen=True, slots=True)
class _Asking:
    """The packed places of a window layout that ask: those of kept tokens and of all text."""

    lengths: Lengths  # of their sequences
    video: Tensor  # where the kept tokens stand among them
    text: Tensor  # windows l, the same of the text

    @staticmethod
    def of(layout: PackedLayout, kept: Tensor) -> "_Asking":
        """
        Args:
            kept: bool, of every token in raster order.
        """
        asks = torch.ones(layout.lengths.total, dtype=torch.bool, device=kept.device)
        asks[layout.video] = kept
        number = asks.cumsum(0) - 1
        ends = number[layout.lengths.cumulative[1:].long() - 1] + 1
        return _Asking(
            lengths=Lengths.of(F.pad(ends, (1, 0)).diff().tolist(), kept.device),
            video=number[layout.video[kept]],
            text=number[layout.text],
        )


def _ask(
    block: Block,
    normed: tuple[Tensor, Tensor],
    layout: PackedLayout,
    text_rotation: Rotation | None,
    asking: _Asking,
    rows: Tensor,
) -> tuple[Tensor, Tensor]:
    """Attention in which some ask and all are asked: `k width` and the text, `l width`."""
    attn, heads = block.attn, block.attn.heads
    video, text = normed

    def project(x: Tensor, weights: nn.Linear, parts: slice) -> Tensor:
        """Of the joint projection the parts that are needed: `part n heads dim`."""
        weight = rearrange(weights.weight, "(part out) width -> part out width", part=3)[parts]
        bias = cast("Tensor | None", weights.bias)
        bias = None if bias is None else rearrange(bias, "(part out) -> part out", part=3)[parts]
        x = F.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
        return rearrange(x, "n (part heads dim) -> part n heads dim", part=len(weight), heads=heads)

    def turn(x: Tensor, rotation: Rotation | None) -> Tensor:
        return x if rotation is None else rotate(x, rotation)

    (q,) = project(video[rows], attn.proj_qkv.video, slice(0, 1))
    own = Rotation(layout.rotation.cos[rows], layout.rotation.sin[rows])
    q = turn(attn.norm_q.video(q), own)
    k, v = project(video, attn.proj_qkv.video, slice(1, 3))
    k = turn(attn.norm_k.video(k), layout.rotation)
    text_q, text_k, text_v = project(text, attn.proj_qkv.text, slice(0, 3))
    text_q = turn(attn.norm_q.text(text_q), text_rotation)
    text_k = turn(attn.norm_k.text(text_k), text_rotation)

    k, v = (torch.cat(pair)[layout.order] for pair in ((k, text_k), (v, text_v)))
    packed = torch.empty(asking.lengths.total, *q.shape[1:], dtype=q.dtype, device=q.device)
    packed[asking.video] = q
    packed[asking.text] = text_q.expand(len(asking.text), *text_q.shape)
    out = _attend(packed, k, v, asking.lengths, layout.lengths).flatten(1)
    return (
        attn.proj_out.video(out[asking.video]),
        attn.proj_out.text(out[asking.text].mean(0)),
    )


def _attend(q: Tensor, k: Tensor, v: Tensor, asking: Lengths, asked: Lengths) -> Tensor:
    """Attention inside each sequence, `n heads dim`, of which there are as many of both."""
    if q.is_cuda and q.dtype != torch.float32 and flash_runs(q.device):
        return varlen_attn(
            q, k, v, asking.cumulative, asked.cumulative, asking.longest, asked.longest
        )
    parts: list[Tensor] = []
    for one in zip(
        q.split(asking.filled), k.split(asked.filled), v.split(asked.filled), strict=True
    ):
        a, b, c = (x.transpose(0, 1)[None] for x in one)
        parts.append(F.scaled_dot_product_attention(a, b, c)[0].transpose(0, 1))
    return torch.cat(parts)
