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
        self, keep: Tensor, strip: int, size: tuple[int, int], cell: int, device: torch.device
    ) -> None:
        """Args:
        keep: bool `rows columns`, on the CPU.
        size: of the picture in pixels, `(height, width)`.
        cell: pixels that a cell has a side in the picture.
        """
        self.regions = Regions(keep, len(keep) if bool(keep.all()) else strip)
        self._size, self._cell, self._device = size, cell, device
        self._made: dict[tuple[str, int], Any] = {}

    def _once(self, what: str, pixels: int, make: Callable[[], Any]) -> Any:
        if (what, pixels) not in self._made:
            self._made[what, pixels] = make()
        return self._made[what, pixels]

    def _on_host(self, pixels: int) -> Plan:
        height, width = (side * pixels // self._cell for side in self._size)
        return self.regions.at(pixels, (height, width))

    def _width(self, pixels: int) -> int:
        return self._size[1] * pixels // self._cell

    def plan(self, pixels: int) -> Plan:
        return self._once("plan", pixels, lambda: self._on_host(pixels).to(self._device))

    def split(self, pixels: int) -> Tensor:
        """From a level to the next finer one; see `Plan.split_to`."""

        def make() -> Tensor:
            finer = self._on_host(2 * pixels)
            return self._on_host(pixels).split_to(finer, self._width(2 * pixels)).to(self._device)

        return self._once("split", pixels, make)

    def halved(self, pixels: int) -> Tensor:
        """From a level to the next coarser one; see `Plan.halved_to`."""

        def make() -> Tensor:
            coarser = self._on_host(pixels // 2)
            return self._on_host(pixels).halved_to(coarser, self._width(pixels)).to(self._device)

        return self._once("halved", pixels, make)


class Passage:
    """The way of one clip through encoder or decoder, slice by slice: layers on canvases, and what
    the causal ones saw last."""

    def __init__(self) -> None:
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
            torch.ops.aten.silu.out(x, out=out)
            _clean(plan, out)

        return self.convolve(conv, fill, len(x), pixels)

    def residual(self, block: ResBlock, x: Tensor, pixels: int) -> Tensor:
        y = self.activated(block.norm1, block.conv1, x, pixels)
        y = self.activated(block.norm2, block.conv2, y, pixels)
        return y.add_(x if block.conv_shortcut is None else _pointwise(block.conv_shortcut, x))

    def attend(self, block: FrameAttention, x: Tensor, pixels: int) -> Tensor:
        """Attention over the kept places of each frame."""
        plan = self.layout.plan(pixels)
        places = x.flatten(1, 2).index_select(1, plan.body)[:, None]  # t 1 k c
        out = F.scaled_dot_product_attention(
            block.to_q(places), block.to_k(places), block.to_v(places)
        )
        out = (places + block.to_out[0](out))[:, 0]
        x.flatten(1, 2).index_copy_(1, plan.body, out)
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


def encode_regions(vae: VideoAutoencoder, frames: Tensor, keeps: Tensor, strip: int) -> Tensor:
    """The posterior's mean `1 c t' h/8 w/8` where it is kept, zero elsewhere.

    Args:
        frames: `1 3 t h w` in [-1, 1], as `VideoAutoencoder.encode` takes them.
        keeps: bool `t' rows columns` on the CPU, cells of 2x2 latent cells that are needed then or
            later: each frame's a part of the one's before, and the same within strips.
        strip: rows of cells in a strip.

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
    count = (t - 1) // time + 1
    seen = emphasise_detail(frames) if config.sees_base else frames
    like = vae.encoder.conv_in.weight
    latent = like.new_zeros(count, h // space, w // space, config.latent_channels)
    passage, cell = Passage(), _CELL * space
    for a, b, layout in _slices(keeps, strip, (count, h, w), cell, frames.device):
        passage.enter(layout)
        part = _rows_last(seen[:, :, max(0, (a - 1) * time + 1) : (b - 1) * time + 1])
        _encode(vae.encoder, passage, part, cell, latent[a:b])
    return rearrange(latent, "t h w c -> 1 c t h w")


def decode_regions(
    vae: VideoAutoencoder, latent: Tensor, base: Tensor | None, keeps: Tensor, strip: int
) -> Tensor:
    """Frames `1 3 t h w`, about [-1, 1]; where nothing is kept the base, zero if there is none.

    Args:
        latent: `1 c t' h' w'`, as `VideoAutoencoder.decode` takes it; only read where it is kept.
        base: upsampled LR frames `1 3 t h w` in [-1, 1], exactly where the config says `sees_base`.
        keeps, strip: see `encode_regions`.

    Raises:
        ValueError: for other masks, or what `VideoAutoencoder.decode` refuses.
    """
    config = vae.config
    if bool(keeps.all()) or (base is not None) != config.sees_base:
        return vae.decode(latent, base)
    _, _, count, h, w = latent.shape
    space, time = config.space, config.time
    height, width, t = h * space, w * space, (count - 1) * time + 1
    if base is None:
        shown = latent.new_zeros(t, height, width, 3)
    else:
        shown = rearrange(base, "1 c t h w -> t h w c").clone(memory_format=torch.contiguous_format)
    passage, cell = Passage(), _CELL * space
    for a, b, layout in _slices(keeps, strip, (count, height, width), cell, latent.device):
        passage.enter(layout)
        out = shown[max(0, (a - 1) * time + 1) : (b - 1) * time + 1]
        _decode(vae.decoder, passage, _rows_last(latent[:, :, a:b]), out)
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


def _slices(
    keeps: Tensor, strip: int, size: tuple[int, int, int], cell: int, device: torch.device
) -> Iterator[tuple[int, int, Layout]]:
    """Latent frames `[start, end)` and what is kept in them: the first two together if their masks
    are equal, each later one alone. Ends where nothing more is kept.

    Args:
        size: latent frames, then height and width of the picture.
    """
    count, height, width = size
    grid = (count, -(-height // cell), -(-width // cell))
    if tuple(keeps.shape) != grid:
        raise ValueError(f"these masks are {tuple(keeps.shape)}, not {grid}")
    if bool((keeps[1:] & ~keeps[:-1]).any()):
        raise ValueError("a cell is kept that was skipped before")
    start = 0
    layout: Layout | None = None
    while start < count and bool(keeps[start].any()):
        together = start == 0 and count > 1 and torch.equal(keeps[0], keeps[1])
        if layout is None or not torch.equal(keeps[start], layout.regions.keep):
            layout = Layout(keeps[start], strip, (height, width), cell, device)
        yield start, start + 1 + together, layout
        start += 1 + together


def _clean(plan: Plan, canvas: Tensor) -> None:
    """Make a canvas what a convolution must find: kept neighbours in its gutters, else zero."""
    plan.refresh(plan.clear_rim(canvas))


def _folded(frames: Tensor) -> Tensor:
    """`t (h 2) (w 2) c` -> `t h w (c 2 2)`."""
    return rearrange(frames, "t (h row) (w col) c -> t h w (c row col)", row=2, col=2)


def _rows_last(x: Tensor) -> Tensor:
    """`1 c t h w` -> `t h w c`, contiguous."""
    return rearrange(x, "1 c t h w -> t h w c").contiguous()


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
