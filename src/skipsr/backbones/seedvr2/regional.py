"""The autoencoder on masked regions: one mask per latent frame (DESIGN.md, "Regions").

An autoencoder without norms is run as if everything outside the masks were zero in every layer.
With norms the first frame and the decoder's coarsest level are run as a whole, and later frames
take from them what they need to know of skipped cells (`regional_layers`).
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import cast

import torch
from einops import rearrange
from torch import Tensor

from skipsr.backbones.seedvr2.blocks import DownBlock, Downsampler, ResBlock, UpBlock, Upsampler
from skipsr.backbones.seedvr2.canvas_levels import CELL, CanvasLevels
from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.backbones.seedvr2.patches import PatchOut
from skipsr.backbones.seedvr2.regional_layers import RegionalStream, pointwise
from skipsr.backbones.seedvr2.regional_norms import Carried, Statistics
from skipsr.backbones.seedvr2.vae import Decoder, Encoder, VideoAutoencoder
from skipsr.nn.causal import Bounds, CausalConv3d
from skipsr.nn.transfer import send
from skipsr.skipping.route import over_pixels
from skipsr.timeline import check_causal


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
        ValueError: for other masks, an encoder of patches, or what `VideoAutoencoder.encode`
            refuses.
    """
    config, encoder = vae.config, vae.encoder
    if not isinstance(encoder, Encoder):
        raise ValueError("an encoder of patches has no layers to skip: encode whole frames")
    if bool(keeps.all()):
        return vae.encode(frames).mean
    _, _, t, h, w = frames.shape
    space, time = config.space, config.time
    check_causal(frames.shape, time, space)
    grid = ((t - 1) // time + 1, h // space, w // space)
    latent = encoder.conv_in.weight.new_zeros(*grid, config.latent_channels)
    run = RegionalStream(bool(config.groups), statistics or Carried())
    for a, b, levels, after in _slices(keeps, strip, grid, config, frames.device):
        run.enter(levels, after)
        _encode(encoder, run, _channels_last(frames[:, :, _frames(a, b, time)]), latent[a:b])
    if config.groups:
        latent[0] *= over_pixels(keeps[0], CELL, grid[1:]).to(latent.device)[..., None]
    return rearrange(latent, "t h w c -> 1 c t h w")


def decode_regions(
    vae: VideoAutoencoder,
    latent: Tensor,
    base: Tensor | None,
    keeps: Tensor,
    strip: int,
    statistics: Statistics | None = None,
    bounds: Bounds | None = None,
) -> Tensor:
    """Frames `1 3 t h w`, about [-1, 1]; where nothing is kept the base, zero if there is none.

    Args:
        latent: `1 c t' h' w'`, as `VideoAutoencoder.decode` takes it. Without norms it is only read
            where it is kept.
        base: upsampled LR frames `1 3 t h w` in [-1, 1], of a `base_conditioned` decoder.
        keeps, strip, statistics: see `encode_regions`.
        bounds: of memory, not for results. Bands only serve frames that are run whole.

    Raises:
        ValueError: for other masks, or what `VideoAutoencoder.decode` refuses.
    """
    slices = decode_region_slices(vae, latent, base, keeps, strip, statistics, bounds)
    return torch.cat(list(slices), 2)


def decode_region_slices(
    vae: VideoAutoencoder,
    latent: Tensor,
    base: Tensor | None,
    keeps: Tensor,
    strip: int,
    statistics: Statistics | None = None,
    bounds: Bounds | None = None,
) -> Iterator[Tensor]:
    """What `decode_regions` gives, slice by slice."""
    config = vae.config
    if bool(keeps.all()) or (base is not None) != config.base_conditioned:
        yield from vae.decode_slices(latent, base, bounds=bounds)
        return
    space, time = config.space, config.time
    count, h, w = latent.shape[2:]
    size = (h * space, w * space)

    def plain(start: int, end: int) -> Tensor:
        """What is shown where nothing is kept, `t h w 3`."""
        frames = _frames(start, end, time)
        if base is None:
            return latent.new_zeros(frames.stop - frames.start, *size, 3)
        seen = base[:, :, frames].to(latent.device)
        return rearrange(seen, "1 c t h w -> t h w c").clone(memory_format=torch.contiguous_format)

    def where_kept(first: Tensor) -> Tensor:
        """The first frame `h w 3`, which norms need whole; the plain one beside what is kept."""
        kept = over_pixels(send(keeps[0], first.device), CELL * space, size)
        return torch.where(kept[..., None], first, plain(0, 1)[0])

    if config.groups and count == 1:
        (only,) = vae.decode_slices(latent, base, bounds=bounds)
        yield rearrange(where_kept(rearrange(only, "1 c 1 h w -> h w c")), "h w c -> 1 c 1 h w")
        return
    frames = None if bounds is None else bounds.frames
    held = statistics or Carried()
    whole, end = CELL if config.groups else 0, 0
    slices = _slices(keeps, strip, (count, h, w), config, latent.device, whole)
    with closing(RegionalStream(bool(config.groups), held, bounds, vae.host_memory)) as run:
        for a, end, levels, after in slices:
            run.enter(levels, after)
            shown = plain(a, end)
            _decode(vae.decoder, run, _channels_last(latent[:, :, a:end]), shown, frames)
            if config.groups and a == 0:
                shown[0] = where_kept(shown[0])
            yield rearrange(shown, "t h w c -> 1 c t h w")
    if end < count:
        yield rearrange(plain(end, count), "t h w c -> 1 c t h w")


def _encode(encoder: Encoder, run: RegionalStream, frames: Tensor, out: Tensor) -> None:
    """Write the mean of one slice, `t h w c`, where it is kept.

    Args:
        frames: `t h w 3`.
    """
    pixels = CELL << (len(encoder.down_blocks) - 1)
    x = run.from_picture(encoder.conv_in, frames, pixels)
    for block in cast(Iterable[DownBlock], encoder.down_blocks):
        for resnet in cast(Iterable[ResBlock], block.resnets):
            x = run.residual(resnet, x, pixels)
        for down in cast(Iterable[Downsampler], block.downsamplers or ()):
            x, pixels = run.down(down, x, pixels), pixels // 2
    x = run.middle(encoder.mid_block, x, pixels)
    x = run.activated(encoder.conv_norm_out, encoder.conv_out, x, pixels)
    plan = run.levels.plan(pixels)
    mean = x[..., : out.shape[3]].flatten(1, 2).index_select(1, plan.kept_slots)
    out.flatten(1, 2).index_copy_(1, plan.kept_pixels, mean)


def _decode(
    decoder: Decoder, run: RegionalStream, latent: Tensor, out: Tensor, together: int | None
) -> None:
    """Write one slice of frames where it is kept.

    Args:
        latent: `t h w c`.
        out: `t h w 3`; holds the base, if the decoder sees it.
        together: most frames at a time at the two finest levels.
    """
    levels, after, base_in = run.levels, run.after, decoder.base_in
    *coarser, second, finest = cast(Iterable[UpBlock], decoder.up_blocks)
    pixels = CELL
    x = run.from_picture(decoder.conv_in, latent, pixels)
    x = run.middle(decoder.mid_block, x, pixels)
    for block in coarser:
        for resnet in cast(Iterable[ResBlock], block.resnets):
            x = run.residual(resnet, x, pixels)
        for up in cast(Iterable[Upsampler], block.upsamplers or ()):
            x, pixels = run.up(up, x, pixels), pixels * 2
    patches = None
    if base_in is not None:
        patches = _patches(decoder.patch_out, latent, levels.kept_latents, len(out))
    end, parts, coarse = 0, list(x.split(together or len(x))), pixels
    del x  # so that the last part is let go of with its first layer
    while parts:
        x, pixels = parts.pop(0), coarse
        start, end = end, end + len(x)
        shown = out[start:end]
        run.enter(levels, levels if parts else after)
        for entry, block in enumerate((second, finest)):
            if base_in is not None:
                seen = shown if entry else _folded(shown)
                x += run.from_picture(cast(CausalConv3d, base_in[entry]), seen, pixels)
            for resnet in cast(Iterable[ResBlock], block.resnets):
                x = run.residual(resnet, x, pixels)
            for up in cast(Iterable[Upsampler], block.upsamplers or ()):
                x, pixels = run.up(up, x, pixels), pixels * 2
        x = run.activated(decoder.conv_norm_out, decoder.conv_out, x, pixels)
        plan, flat = levels.plan(pixels), shown.flatten(1, 2)
        refined = x.flatten(1, 2).index_select(1, plan.kept_slots).to(out.dtype)
        if patches is not None:
            _add_patches(patches[:, start:end], levels.kept_latents, shown)
            refined += flat.index_select(1, plan.kept_pixels)
        flat.index_copy_(1, plan.kept_pixels, refined)


def _patches(layer: PatchOut, latent: Tensor, kept: Tensor, frames: int) -> Tensor:
    """What `PatchOut` gives of latents `t h w c` at kept places: `k frames row col c`."""
    patches = rearrange(
        pointwise(layer.proj, latent.flatten(1, 2).index_select(1, kept)),
        "t k (c frame row col) -> k (t frame) row col c",
        c=3,
        frame=layer.time,
        row=layer.space,
    )
    return patches[:, -frames:]


def _add_patches(patches: Tensor, kept: Tensor, out: Tensor) -> None:
    """Add patches of kept places, `k t row col c`, to frames `t h w c`."""
    cells = out.unflatten(1, (-1, patches.shape[2])).unflatten(3, (-1, patches.shape[3]))
    y, x = kept // cells.shape[3], kept % cells.shape[3]
    cells[:, y, :, x] += patches.to(out.dtype)


def _slices(
    keeps: Tensor,
    strip: int,
    grid: tuple[int, int, int],
    config: VAEConfig,
    device: torch.device,
    whole: int = 0,
) -> Iterator[tuple[int, int, CanvasLevels, CanvasLevels | None]]:
    """Slices of latent frames, `[start, end)`, the canvases on which they are run, and those of the
    next one.

    The first two frames are one slice if their masks are equal, each later one is its own. Ends
    where nothing more is kept.

    Args:
        grid: latent cells, `(t, h, w)`.
        whole: see `CanvasLevels`.
    """
    count, h, w = grid
    cells = (count, -(-h // CELL), -(-w // CELL))
    if tuple(keeps.shape) != cells:
        raise ValueError(f"these masks are {tuple(keeps.shape)}, not {cells}")
    if bool((keeps[1:] & ~keeps[:-1]).any()):
        raise ValueError("a cell is kept that was skipped before")
    if config.groups and bool(keeps.any()):
        keeps = torch.cat((torch.ones_like(keeps[:1]), keeps[1:]))
    start, levels = 0, None
    if bool(keeps[0].any()):
        levels = CanvasLevels(keeps[0], strip, (h, w), device, whole)
    while levels is not None:
        end = start + 2 if start == 0 and torch.equal(keeps[:1], keeps[1:2]) else start + 1
        after = None
        if end < count and bool(keeps[end].any()):
            same = torch.equal(keeps[end], levels.keep)
            after = levels if same else CanvasLevels(keeps[end], strip, (h, w), device, whole)
        yield start, end, levels, after
        start, levels = end, after


def _frames(start: int, end: int, time: int) -> slice:
    """The frames that latent frames `[start, end)` stand for."""
    return slice(max(0, (start - 1) * time + 1), (end - 1) * time + 1)


def _folded(frames: Tensor) -> Tensor:
    """`t (h 2) (w 2) c` -> `t h w (c 2 2)`."""
    return rearrange(frames, "t (h row) (w col) c -> t h w (c row col)", row=2, col=2)


def _channels_last(x: Tensor) -> Tensor:
    """`1 c t h w` -> `t h w c`, contiguous."""
    return rearrange(x, "1 c t h w -> t h w c").contiguous()
