"""The causal video autoencoder: 8x in space, 4x in time, one latent frame for the first frame.

Clips pass in slices through a `Stream`, so memory does not grow with their length; slices equal the
whole.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.seedvr2.blocks import (
    DownBlock,
    Downsampler,
    MidBlock,
    UpBlock,
    Upsampler,
    activated,
    frame_norm,
)
from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.nn.box import box_mean
from skipsr.nn.causal import Bounds, CausalConv3d, Stream

_START_LOG_VARIANCE = -6.0
_FOLD = 2  # between the two finest levels


@dataclass(frozen=True, slots=True)
class Posterior:
    """Diagonal Gaussian over latents, both `b c t h w`; `mean` is the deterministic choice."""

    mean: Tensor
    log_variance: Tensor  # in [-30, 20]


class Encoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels, groups = config.channels, config.groups
        last = len(channels) - 1
        self.conv_in = CausalConv3d(3, channels[0], (3, 3, 3))
        self.down_blocks = nn.ModuleList(
            DownBlock(
                channels[max(level - 1, 0)],
                channels[level],
                config.encoder_blocks,
                groups,
                Downsampler(channels[level], time=level >= last - config.temporal_levels)
                if level < last
                else None,
            )
            for level in range(len(channels))
        )
        self.mid_block = MidBlock(channels[-1], groups)
        self.conv_norm_out = frame_norm(groups, channels[-1])
        self.conv_out = CausalConv3d(channels[-1], 2 * config.latent_channels, (3, 3, 3))
        assert self.conv_out.bias is not None
        # a wide posterior would drown what the latent says when training starts
        with torch.no_grad():
            self.conv_out.bias[config.latent_channels :] = _START_LOG_VARIANCE

        self.patch_in = PatchIn(config) if config.base_conditioned else None

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:  # b 3 t h w -> b 2c t' h' w'
        finest, *coarser = self.down_blocks
        x = _joined(
            finest(self.conv_in(part, stream), stream) for part in _parts(frames, stream, 1)
        )
        for block in coarser:
            x = block(x, stream)
        x = self.mid_block(x, stream)
        moments = activated(self.conv_norm_out, self.conv_out, x, stream)
        if self.patch_in is None:
            return moments
        mean, log_variance = moments.chunk(2, 1)
        return torch.cat((mean + self.patch_in(frames, stream), log_variance), 1)


class PatchIn(nn.Module):
    """A linear map from every patch of pixels to the mean of its latent cell.

    With `PatchOut` it makes a short way through the autoencoder, which learns long before the deep
    layers around it do. The first frame is a patch by itself, repeated in time.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.space, self.time = config.space, config.time
        values = 3 * self.time * self.space**2
        self.proj = CausalConv3d(values, config.latent_channels, (1, 1, 1))

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:  # b 3 t h w -> b c t' h/8 w/8
        if stream.begins(self):
            first = frames[:, :, :1].expand(-1, -1, self.time - 1, -1, -1)
            frames = torch.cat((first, frames), 2)
        patches = rearrange(
            frames,
            "b c (t frame) (h row) (w col) -> b (c frame row col) t h w",
            frame=self.time,
            row=self.space,
            col=self.space,
        )
        return self.proj(patches, stream)


class PatchOut(nn.Module):
    """A linear map from every latent cell to its patch of pixels; starts at zero."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.space, self.time = config.space, config.time
        values = 3 * self.time * self.space**2
        self.proj = CausalConv3d(config.latent_channels, values, (1, 1, 1))

    def forward(self, latent: Tensor, stream: Stream) -> Tensor:  # b c t h w -> b 3 t' 8h 8w
        frames = rearrange(
            self.proj(latent, stream),
            "b (c frame row col) t h w -> b c (t frame) (h row) (w col)",
            c=3,
            frame=self.time,
            row=self.space,
        )
        return frames[:, :, self.time - 1 :] if stream.begins(self) else frames


class Decoder(nn.Module):
    """Decoder that may add a residual to the base, the upsampled LR frames.

    With `base_conditioned` they join at the two finest levels. The finer level alone would see too
    little around a pixel; at the coarser one a convolution reaches twice as far.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels, groups = config.channels[::-1], config.groups
        last = len(channels) - 1
        self.temporal_levels = config.temporal_levels
        self.conv_in = CausalConv3d(config.latent_channels, channels[0], (3, 3, 3))
        self.mid_block = MidBlock(channels[0], groups)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                channels[max(level - 1, 0)],
                channels[level],
                config.decoder_blocks,
                groups,
                Upsampler(channels[level], time=level < config.temporal_levels)
                if level < last
                else None,
            )
            for level in range(len(channels))
        )
        self.conv_norm_out = frame_norm(groups, channels[-1])
        self.conv_out = CausalConv3d(channels[-1], 3, (3, 3, 3))
        self.base_in: nn.ModuleList | None = None
        if config.base_conditioned:
            # the input of the second finest level has the channels of the third
            self.base_in = nn.ModuleList(
                [
                    CausalConv3d(3 * _FOLD**2, channels[-3], (3, 3, 3)),
                    CausalConv3d(3, channels[-2], (3, 3, 3)),
                ]
            )
            self.patch_out = PatchOut(config)
            self._start_small()

    @torch.no_grad()
    def _start_small(self) -> None:
        """An untrained correction is almost none."""
        assert self.conv_out.bias is not None
        assert self.patch_out.proj.bias is not None
        self.conv_out.weight.normal_(std=0.005)
        self.conv_out.bias.zero_()
        self.patch_out.proj.weight.zero_()
        self.patch_out.proj.bias.zero_()

    def forward(self, latent: Tensor, base: Tensor | None, stream: Stream) -> Tensor:
        x = self.mid_block(self.conv_in(latent, stream), stream)
        done, parts = 0, list[Tensor]()
        for coarse in self._coarse(x, stream, 0):
            for part in _parts(coarse, stream, 1):
                seen = None if base is None else base[:, :, done : done + part.shape[2]]
                parts.append(self._fine(part, seen, stream))
                done += part.shape[2]
        x = _joined(parts)
        return x if base is None else base + x + self.patch_out(latent, stream)

    def _coarse(self, x: Tensor, stream: Stream, level: int) -> Iterator[Tensor]:
        """All levels but the two finest."""
        if level == len(self.up_blocks) - 2:
            yield x
            return
        for part in _parts(x, stream, 2 ** max(0, self.temporal_levels - level)):
            yield from self._coarse(self.up_blocks[level](part, stream), stream, level + 1)

    def _fine(self, x: Tensor, base: Tensor | None, stream: Stream) -> Tensor:
        """The two finest levels."""
        if base is not None and self.base_in is not None:
            x = x + self.base_in[0](_arrange(_fold(base), x.dtype), stream)
        x = self.up_blocks[-2](x, stream)
        if base is not None and self.base_in is not None:
            x = x + self.base_in[1](_arrange(base, x.dtype), stream)
        return activated(self.conv_norm_out, self.conv_out, self.up_blocks[-1](x, stream), stream)


class VideoAutoencoder(nn.Module):
    """Frames in [-1, 1] <-> latents.

    Clips have `4n + 1` frames and sides that are multiples of 8. `slice_frames` frames are
    processed at a time after the first one (the published setting is 4); it changes memory, not
    results.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(
        self, frames: Tensor, slice_frames: int = 4, bounds: Bounds | None = None
    ) -> Posterior:
        """Encode `b 3 t h w` in [-1, 1] into a posterior over `b c t' h/8 w/8`.

        Args:
            bounds: of the memory that it takes; without gradients.

        Raises:
            ValueError: for another number of frames or other sides than the class allows.
        """
        _, _, t, h, w = frames.shape
        space, time = self.config.space, self.config.time
        if (t - 1) % time or h % space or w % space:
            raise ValueError(
                f"{t} frames of {h}x{w} are not {time}n+1 frames with sides in steps of {space}"
            )
        if slice_frames < time or slice_frames % time:
            raise ValueError(f"slices are multiples of {time} frames, not {slice_frames}")
        if self.config.base_conditioned:
            frames = emphasise_detail(frames)
        stream = Stream(bounds)
        moments = torch.cat(
            [
                self.encoder(self._arrange(frames[:, :, a:b]), stream)
                for a, b in _slices(t, slice_frames, bounds)
            ],
            2,
        )
        mean, log_variance = moments.chunk(2, 1)
        return Posterior(mean, log_variance.clamp(-30, 20))

    def decode(
        self,
        latent: Tensor,
        base: Tensor | None = None,
        slice_frames: int = 4,
        bounds: Bounds | None = None,
    ) -> Tensor:
        """Decode `b c t' h' w'` into `b 3 t h w`, about [-1, 1].

        Args:
            latent: unscaled, as `encode` gives it.
            base: upsampled LR frames `b 3 t h w` in [-1, 1], exactly where the config says
                `base_conditioned`.
            bounds: see `encode`.
        """
        slices = self.decode_slices(latent, base, slice_frames, bounds)
        return torch.cat(list(slices), 2)

    def decode_slices(
        self,
        latent: Tensor,
        base: Tensor | None = None,
        slice_frames: int = 4,
        bounds: Bounds | None = None,
    ) -> Iterator[Tensor]:
        """What `decode` gives, slice by slice."""
        if (base is not None) != self.config.base_conditioned:
            raise ValueError(
                f"this decoder {'needs' if base is None else 'does not take'} base frames"
            )
        time = self.config.time
        stream = Stream(bounds)
        for a, b in _slices(latent.shape[2], slice_frames // time, bounds):
            part = (
                None
                if base is None
                else base[:, :, max(0, (a - 1) * time + 1) : (b - 1) * time + 1].to(latent.device)
            )
            yield self.decoder(self._arrange(latent[:, :, a:b]), part, stream)

    def _arrange(self, x: Tensor) -> Tensor:
        weight = self.encoder.conv_in.weight
        return _arrange(x.to(weight.device), weight.dtype)


def emphasise_detail(frames: Tensor) -> Tensor:
    """Input of an encoder whose decoder has the colours from the base: mostly local detail."""
    return frames / 4 + 4 * local_detail(frames)


def local_detail(frames: Tensor) -> Tensor:
    """`b c t h w` minus its mean over 7x7 pixels; borders replicated."""
    return frames - box_mean(frames, 3)


def _fold(frames: Tensor) -> Tensor:
    """`b c t (h 2) (w 2)` -> `b (c 2 2) t h w`: full detail at half the size."""
    return rearrange(frames, "b c t (h row) (w col) -> b (c row col) t h w", row=_FOLD, col=_FOLD)


def _arrange(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Channels last: the layout in which 3-D convolutions are fast."""
    return x.to(dtype, memory_format=torch.channels_last_3d)


def _slices(frames: int, step: int, bounds: Bounds | None) -> Iterator[tuple[int, int]]:
    """The first frame goes with the first `step` frames after it, or alone within bounds, then
    `step` at a time."""
    first = 1 + step if bounds is None else 1
    yield 0, min(first, frames)
    for start in range(first, frames, step):
        yield start, min(start + step, frames)


def _parts(x: Tensor, stream: Stream, times: int) -> Iterable[Tensor]:
    """`b c t h w` in pieces of as many frames as bounds allow, each of which becomes `times`."""
    return [x] if stream.bounds is None else x.split(max(1, stream.bounds.frames // times), 2)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Pieces of `b c t h w`, one after another."""
    every = list(parts)
    return every[0] if len(every) == 1 else torch.cat(every, 2)
