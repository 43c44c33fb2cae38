"""The autoencoder where the picture needs it, and nothing elsewhere: one mask for every latent
frame (DESIGN.md, "Regions").

The kept part of a slice lies on a canvas `t height width c` (`skipping.regions`), on which every
layer is one call. What a convolution reads is put into its gutters before: kept neighbours, zero
elsewhere. Masks only shrink, so that a causal layer has seen before what it sees now; its last
frames move from one canvas to the next.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.seedvr2.blocks import (
    Downsampler,
    FrameAttention,
    MidBlock,
    ResBlock,
    UpBlock,
    Upsampler,
)
from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.backbones.seedvr2.regional_norms import Carried, Statistics, affine
from skipsr.backbones.seedvr2.vae import (
    Decoder,
    Encoder,
    PatchIn,
    PatchOut,
    VideoAutoencoder,
    emphasise_detail,
)
from skipsr.nn.causal import CausalConv3d
from skipsr.skipping.regions import Plan, Regions

_CELL = 2  # latent cells a side
Fill = Callable[[Tensor], object]


class Layout:
    """What is kept in a slice, as canvases of all levels and the ways between them.

    Levels are told apart by the pixels that a cell has a side.
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
        keep: bool `rows columns`, on the CPU.
        size: of the picture, `(height, width)`, where a cell has `_CELL` pixels.
        whole: levels of up to so many pixels are run as a whole.
        """
        self.keep = keep
        self.leaving: Tensor | None = None  # cells that the current slice runs for the last time
        self._regions = Regions(keep, len(keep) if bool(keep.all()) else strip)
        self._all = Regions(torch.ones_like(keep), len(keep))
        self._size, self._device, self._whole = size, device, whole
        self._made: dict[tuple[str, int], Any] = {}

    def _once(self, what: str, pixels: int, make: Callable[[], Any]) -> Any:
        if (what, pixels) not in self._made:
            self._made[what, pixels] = make()
        return self._made[what, pixels]

    def _side(self, axis: int, pixels: int) -> int:
        return self._size[axis] * pixels // _CELL

    def _on_host(self, pixels: int) -> Plan:
        regions = self._all if pixels <= self._whole else self._regions
        return regions.at(pixels, (self._side(0, pixels), self._side(1, pixels)))

    def plan(self, pixels: int) -> Plan:
        return self._once("plan", pixels, lambda: self._on_host(pixels).to(self._device))

    def outside(self, pixels: int) -> Tensor:
        """Places of a canvas that stand for no kept pixel."""

        def make() -> Tensor:
            plan = self._on_host(pixels)
            rest = torch.ones(plan.shape[0] * plan.shape[1], dtype=torch.bool)
            rest[plan.body] = False
            return rest.nonzero()[:, 0].to(self._device)

        return self._once("outside", pixels, make)

    def left(self, pixels: int) -> Tensor:
        """Places of a canvas that the current slice runs for the last time."""
        plan = self._on_host(pixels)
        if self.leaving is None or pixels <= self._whole or not bool(self.leaving.any()):
            return plan.body[:0].to(self._device)
        leaving = self.leaving

        def make() -> Tensor:
            y, x = plan.source // self._side(1, pixels), plan.source % self._side(1, pixels)
            return plan.body[leaving[y // pixels, x // pixels]].to(self._device)

        return self._once("left", pixels, make)

    def split(self, pixels: int) -> Tensor:
        """From a level to the next finer one; see `Plan.split_to`."""

        def make() -> Tensor:
            finer = self._on_host(2 * pixels)
            split = self._on_host(pixels).split_to(finer, self._side(1, 2 * pixels))
            return split.to(self._device)

        return self._once("split", pixels, make)

    def halved(self, pixels: int) -> Tensor:
        """From a level to the next coarser one; see `Plan.halved_to`."""

        def make() -> Tensor:
            coarser = self._on_host(pixels // 2)
            halved = self._on_host(pixels).halved_to(coarser, self._side(1, pixels))
            return halved.to(self._device)

        return self._once("halved", pixels, make)


class Passage:
    """The way of one clip through encoder or decoder, slice by slice: layers on canvases, and what
    the causal ones saw last."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics
        self._layout: Layout | None = None
        self._tails: dict[CausalConv3d, tuple[int, Tensor]] = {}
        self._weights: dict[tuple[CausalConv3d, bool], Tensor] = {}

    @property
    def layout(self) -> Layout:
        assert self._layout is not None
        return self._layout

    def enter(self, layout: Layout) -> None:
        """Begin a slice. Nothing is kept in it that was not kept before."""
        before, self._layout = self._layout, layout
        if before is None or before is layout:
            return
        moves: dict[int, Tensor] = {}
        for conv, (pixels, tail) in self._tails.items():
            old, new = before.plan(pixels), layout.plan(pixels)
            if pixels not in moves:
                moves[pixels] = old.copied_to(new)
            moved = tail.flatten(1, 2).index_select(1, moves[pixels]).unflatten(1, new.shape)
            self._tails[conv] = pixels, moved

    def convolve(self, conv: CausalConv3d, fill: Fill, frames: int, pixels: int) -> Tensor:
        """A causal convolution over new frames and those before them.

        Args:
            fill: writes the frames into a canvas `frames height width c`, gutters included.

        Returns:
            `frames height width c`; what it says in the gutters means nothing.
        """
        taps, stride = conv.kernel_size[0], conv.stride[0]
        shape = self.layout.plan(pixels).shape
        _, tail = self._tails.get(conv, (0, None))
        alone = tail is None and frames == 1  # all taps see the same frame
        lead = 0 if alone else taps - 1 if tail is None else len(tail)
        seen = conv.weight.new_empty(lead + frames, *shape, conv.in_channels)
        fill(seen[lead:])
        if lead:
            seen[:lead] = seen[lead : lead + 1] if tail is None else tail
        if taps > 1:
            last = seen.expand(taps, -1, -1, -1) if alone else seen
            # a view would hold all frames
            self._tails[conv] = pixels, last[len(last) - (taps - stride) :].clone()
        return _convolve(seen, self._weight(conv, alone), conv.bias, conv.stride)

    def _weight(self, conv: CausalConv3d, alone: bool) -> Tensor:
        """A layer's weight in the order of a canvas; of all taps together for a frame `alone`."""
        if (conv, alone) not in self._weights:
            weight = conv.weight
            if alone:
                weight = weight.sum(2, keepdim=True, dtype=torch.float32).to(weight.dtype)
            self._weights[conv, alone] = weight.contiguous(memory_format=torch.channels_last_3d)
        return self._weights[conv, alone]

    def from_picture(self, conv: CausalConv3d, picture: Tensor, pixels: int) -> Tensor:
        """A convolution over frames `t h w c`."""
        plan = self.layout.plan(pixels)
        rows = picture.to(conv.weight.dtype).flatten(1, 2)

        def fill(out: Tensor) -> None:
            torch.index_select(rows, 1, plan.nearest, out=out.flatten(1, 2))
            _clean(plan, out)

        return self.convolve(conv, fill, len(picture), pixels)

    def activated(self, norm: nn.Module, conv: CausalConv3d, x: Tensor, pixels: int) -> Tensor:
        """Norm, SiLU, convolution."""
        plan = self.layout.plan(pixels)

        def fill(out: Tensor) -> None:
            if isinstance(norm, nn.GroupNorm):
                scale, shift = (v[:, None, None] for v in self._affine(norm, x, pixels))
                F.silu(torch.addcmul(shift, x, scale, out=out), inplace=True)
            else:
                torch.ops.aten.silu.out(x, out=out)
            _clean(plan, out)

        return self.convolve(conv, fill, len(x), pixels)

    def _affine(self, norm: nn.GroupNorm, x: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """A norm as scale and shift, `t c` each, in the type of `x`."""
        layout, plan = self.layout, self.layout.plan(pixels)
        x.flatten(1, 2).index_fill_(1, layout.outside(pixels), 0)
        mean, variance = self.statistics.of(norm, x, plan, layout.left(pixels))
        scale, shift = affine(norm, mean, variance)
        return scale.to(x.dtype), shift.to(x.dtype)

    def residual(self, block: ResBlock, x: Tensor, pixels: int) -> Tensor:
        y = self.activated(block.norm1, block.conv1, x, pixels)
        y = self.activated(block.norm2, block.conv2, y, pixels)
        return y.add_(x if block.conv_shortcut is None else _pointwise(block.conv_shortcut, x))

    def attend(self, block: FrameAttention, x: Tensor, pixels: int) -> Tensor:
        """Attention over the kept places of each frame."""
        plan = self.layout.plan(pixels)
        flat = x.flatten(1, 2)
        kept = places = flat.index_select(1, plan.body)  # t k c
        if isinstance(block.group_norm, nn.GroupNorm):
            scale, shift = (v[:, None] for v in self._affine(block.group_norm, x, pixels))
            places = torch.addcmul(shift, kept, scale)
        places = places[:, None]
        out = F.scaled_dot_product_attention(
            block.to_q(places), block.to_k(places), block.to_v(places)
        )
        flat.index_copy_(1, plan.body, kept + block.to_out[0](out[:, 0]))
        return x

    def middle(self, block: MidBlock, x: Tensor, pixels: int) -> Tensor:
        first, last = cast(Iterable[ResBlock], block.resnets)
        x = self.residual(first, x, pixels)
        x = self.attend(cast(FrameAttention, block.attentions[0]), x, pixels)
        return self.residual(last, x, pixels)

    def down(self, block: Downsampler, x: Tensor, pixels: int) -> Tensor:
        """To the canvas of the next coarser level."""
        plan = self.layout.plan(pixels)

        def fill(out: Tensor) -> None:
            _clean(plan, out.copy_(x))

        y = self.convolve(block.conv, fill, len(x), pixels).flatten(1, 2)
        y[:, 0] = 0  # `halved` points there where it is skipped
        y = y.index_select(1, self.layout.halved(pixels))
        return y.unflatten(1, self.layout.plan(pixels // 2).shape)

    def up(self, block: Upsampler, x: Tensor, pixels: int) -> Tensor:
        """To the canvas of the next finer level."""
        parts = _pointwise(block.upscale_conv, x).flatten(1, 2)  # t places (4 frame c)
        parts[:, self.layout.plan(pixels).zero] = 0
        order = torch.arange(len(x) * block.frames, device=x.device)
        if block.frames == 2 and block.conv not in self._tails:
            order = order[order != 1]  # the first latent frame stands for one frame
        t, frame = order // block.frames, order % block.frames
        rows = 4 * parts.shape[1] * t[:, None] + self.layout.split(pixels)
        rows = (rows * block.frames + frame[:, None]).flatten()
        parts = parts.view(-1, block.conv.in_channels)

        def fill(out: Tensor) -> None:
            torch.index_select(parts, 0, rows, out=out.flatten(0, 2))

        return self.convolve(block.conv, fill, len(order), 2 * pixels)


def encode_regions(
    vae: VideoAutoencoder,
    frames: Tensor,
    keeps: Tensor,
    strip: int,
    statistics: Statistics | None = None,
) -> Tensor:
    """The posterior's mean `1 c t' h/8 w/8` where it is kept, zero elsewhere.

    Args:
        frames: `1 3 t h w` in [-1, 1], as `VideoAutoencoder.encode` takes them.
        keeps: bool `t' rows columns` on the CPU, cells of 2x2 latent cells that are needed then or
            later: each frame's a part of the one's before, and the same within strips.
        strip: rows of cells in a strip.
        statistics: of the norms, if there are any; `Carried` if None.

    Raises:
        ValueError: for other masks, or what `VideoAutoencoder.encode` refuses.
    """
    config = vae.config
    if bool(keeps.all()):
        return vae.encode(frames).mean
    _, _, t, h, w = frames.shape
    space, time = config.space, config.time
    if (t - 1) % time or h % space or w % space:
        raise ValueError(
            f"{t} frames of {h}x{w} are not {time}n+1 frames with sides in steps of {space}"
        )
    grid = ((t - 1) // time + 1, h // space, w // space)
    seen = emphasise_detail(frames) if config.sees_base else frames
    latent = vae.encoder.conv_in.weight.new_zeros(*grid, config.latent_channels)
    run = Passage(statistics or Carried())
    for a, b, layout in _slices(_begun(keeps, config, run), strip, grid, frames.device, whole=0):
        run.enter(layout)
        part = _channels_last(seen[:, :, max(0, (a - 1) * time + 1) : (b - 1) * time + 1])
        _encode(vae.encoder, run, part, _CELL * space, latent[a:b])
    shown = _places(keeps[0], _CELL, grid[1:]).to(latent.device)
    latent[0] *= shown[..., None]
    return rearrange(latent, "t h w c -> 1 c t h w")


def decode_regions(
    vae: VideoAutoencoder,
    latent: Tensor,
    base: Tensor | None,
    keeps: Tensor,
    strip: int,
    statistics: Statistics | None = None,
) -> Tensor:
    """Frames `1 3 t h w`, about [-1, 1]; where nothing is kept the base, zero if there is none.

    With norms the coarsest level is run as a whole, since its attention looks everywhere; else
    latents are only read where they are kept.

    Args:
        latent: `1 c t' h' w'`, as `VideoAutoencoder.decode` takes it.
        base: upsampled LR frames `1 3 t h w` in [-1, 1], exactly where the config says `sees_base`.
        keeps, strip, statistics: see `encode_regions`.

    Raises:
        ValueError: for other masks, or what `VideoAutoencoder.decode` refuses.
    """
    config = vae.config
    if bool(keeps.all()) or (base is not None) != config.sees_base:
        return vae.decode(latent, base)
    space, time = config.space, config.time
    count, h, w = latent.shape[2:]
    frames, height, width = (count - 1) * time + 1, h * space, w * space
    if base is None:
        base = latent.new_zeros(()).expand(1, 3, frames, height, width)
    shown = torch.empty_like(_view_last(base), memory_format=torch.contiguous_format)
    shown.copy_(_view_last(base))
    run = Passage(statistics or Carried())
    whole = _CELL if config.groups else 0
    keeps_run = _begun(keeps, config, run)
    for a, b, layout in _slices(keeps_run, strip, (count, h, w), latent.device, whole=whole):
        run.enter(layout)
        out = shown[max(0, (a - 1) * time + 1) : (b - 1) * time + 1]
        _decode(vae.decoder, run, _channels_last(latent[:, :, a:b]), out)
    if not torch.equal(keeps_run[0], keeps[0]):
        kept = _places(keeps[0], _CELL * space, (height, width)).to(shown.device)
        shown[0] = torch.where(kept[..., None], shown[0], _view_last(base)[0])
    return rearrange(shown, "t h w c -> 1 c t h w")


def _encode(encoder: Encoder, run: Passage, frames: Tensor, pixels: int, out: Tensor) -> None:
    """Write the mean of one slice, `t h w c`, where it is kept.

    Args:
        frames: `t h w 3`.
    """
    x = run.from_picture(encoder.conv_in, frames, pixels)
    for block in encoder.down_blocks:
        for resnet in cast(Iterable[ResBlock], block.resnets):
            x = run.residual(resnet, x, pixels)
        for down in cast(Iterable[Downsampler], block.downsamplers or ()):
            x, pixels = run.down(down, x, pixels), pixels // 2
    x = run.middle(encoder.mid_block, x, pixels)
    x = run.activated(encoder.conv_norm_out, encoder.conv_out, x, pixels)
    plan = run.layout.plan(pixels)
    mean = x[..., : out.shape[3]].flatten(1, 2).index_select(1, plan.body)
    if encoder.patch_in is not None:
        mean += _patches_in(encoder.patch_in, frames, plan, len(out))
    out.flatten(1, 2).index_copy_(1, plan.source, mean)


def _decode(decoder: Decoder, run: Passage, latent: Tensor, out: Tensor) -> None:
    """Write one slice of frames where it is kept.

    Args:
        latent: `t h w c`.
        out: `t h w 3`; holds the base, if the decoder sees it.
    """
    pixels, base_in = _CELL, decoder.base_in
    x = run.from_picture(decoder.conv_in, latent, pixels)
    x = run.middle(decoder.mid_block, x, pixels)
    for level, block in enumerate(cast(Iterable[UpBlock], decoder.up_blocks), 1):
        if base_in is not None and (entry := level - len(decoder.up_blocks) + 1) >= 0:
            seen = out if entry else _folded(out)
            x += run.from_picture(cast(CausalConv3d, base_in[entry]), seen, pixels)
        for resnet in cast(Iterable[ResBlock], block.resnets):
            x = run.residual(resnet, x, pixels)
        for up in cast(Iterable[Upsampler], block.upsamplers or ()):
            x, pixels = run.up(up, x, pixels), pixels * 2
    x = run.activated(decoder.conv_norm_out, decoder.conv_out, x, pixels)
    plan = run.layout.plan(pixels)
    refined = x.flatten(1, 2).index_select(1, plan.body).to(out.dtype)
    flat = out.flatten(1, 2)
    if base_in is not None:
        _add_patches(decoder.patch_out, latent, run.layout.plan(_CELL), out)
        refined += flat.index_select(1, plan.source)
    flat.index_copy_(1, plan.source, refined)


def _patches_in(layer: PatchIn, frames: Tensor, plan: Plan, count: int) -> Tensor:
    """What `PatchIn` gives of frames `t h w 3`, for `count` latent frames and the places of `plan`
    that are kept: `t k c`."""
    missing = count * layer.time - len(frames)  # the first frame is a patch by itself
    frames = torch.cat((frames[:1].expand(missing, -1, -1, -1), frames))
    patches = rearrange(
        frames,
        "(t frame) (h row) (w col) c -> t (h w) (c frame row col)",
        frame=layer.time,
        row=layer.space,
        col=layer.space,
    )
    return _pointwise(layer.proj, patches.index_select(1, plan.source))


def _add_patches(layer: PatchOut, latent: Tensor, plan: Plan, out: Tensor) -> None:
    """Add what `PatchOut` gives of latents `t h w c` to frames `t h w 3`, where it is kept."""
    patches = rearrange(
        _pointwise(layer.proj, latent.flatten(1, 2).index_select(1, plan.source)),
        "t k (c frame row col) -> k (t frame) row col c",
        c=3,
        frame=layer.time,
        row=layer.space,
    )
    cells = out.unflatten(1, (-1, layer.space)).unflatten(3, (-1, layer.space))
    y, x = plan.source // latent.shape[2], plan.source % latent.shape[2]
    cells[:, y, :, x] += patches[:, -len(out) :].to(out.dtype)


def _begun(keeps: Tensor, config: VAEConfig, run: Passage) -> Tensor:
    """Masks with the first frame whole where the norms need it."""
    if not config.groups or not run.statistics.begins_whole:
        return keeps
    return torch.cat((torch.ones_like(keeps[:1]), keeps[1:]))


def _slices(
    keeps: Tensor, strip: int, grid: tuple[int, int, int], device: torch.device, *, whole: int
) -> Iterator[tuple[int, int, Layout]]:
    """Latent frames `[start, end)` and what is kept in them: the first two together if their masks
    are equal, each later one alone. Ends where nothing more is kept.

    Args:
        grid: latent cells, `(t, h, w)`.
        whole: see `Layout`.
    """
    count, h, w = grid
    cells = (count, -(-h // _CELL), -(-w // _CELL))
    if tuple(keeps.shape) != cells:
        raise ValueError(f"these masks are {tuple(keeps.shape)}, not {cells}")
    if bool((keeps[1:] & ~keeps[:-1]).any()):
        raise ValueError("a cell is kept that was skipped before")
    start = 0
    layout: Layout | None = None
    while start < count and bool(keeps[start].any()):
        end = start + 2 if start == 0 and torch.equal(keeps[:1], keeps[1:2]) else start + 1
        if layout is None or not torch.equal(keeps[start], layout.keep):
            layout = Layout(keeps[start], strip, (h, w), device, whole)
        layout.leaving = layout.keep & ~keeps[end] if end < count else None
        yield start, end, layout
        start = end


def _places(keep: Tensor, pixels: int, size: tuple[int, int]) -> Tensor:
    """Cells `rows columns` as pixels `h w`."""
    return keep.repeat_interleave(pixels, 0).repeat_interleave(pixels, 1)[: size[0], : size[1]]


def _clean(plan: Plan, canvas: Tensor) -> None:
    """Make a canvas what a convolution must find: kept neighbours in its gutters, else zero."""
    plan.refresh(plan.clear_rim(canvas))


def _folded(frames: Tensor) -> Tensor:
    """`t (h 2) (w 2) c` -> `t h w (c 2 2)`."""
    return rearrange(frames, "t (h row) (w col) c -> t h w (c row col)", row=2, col=2)


def _view_last(x: Tensor) -> Tensor:
    """`1 c t h w` -> `t h w c`."""
    return rearrange(x, "1 c t h w -> t h w c")


def _channels_last(x: Tensor) -> Tensor:
    """`1 c t h w` -> `t h w c`, contiguous."""
    return _view_last(x).contiguous()


def _pointwise(conv: CausalConv3d, x: Tensor) -> Tensor:
    """A 1x1x1 convolution of `... c`."""
    return F.linear(x.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]
) -> Tensor:  # t h w c -> t' h' w' c'
    """A convolution that pads with zeros in space only."""
    seen, padding = x.permute(3, 0, 1, 2)[None], (0, weight.shape[3] // 2, weight.shape[4] // 2)
    if x.is_cpu and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # torch leaves small or flat pictures to a way that is many times slower
        y = torch.ops.aten.mkldnn_convolution(seen, weight, bias, padding, stride, (1, 1, 1), 1)
    else:
        y = F.conv3d(seen, weight, bias, stride, padding)
    return y[0].permute(1, 2, 3, 0).contiguous()
