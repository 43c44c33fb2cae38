"""The causal video autoencoder: 8x in space, 4x in time, one latent frame for the first frame.

Clips pass in slices through a `Stream`, so memory does not grow with their length; slices equal the
whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
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
from skipsr.backbones.seedvr2.patches import (
    START_LOG_VARIANCE,
    PatchEncoder,
    PatchOut,
    emphasise_detail,
)
from skipsr.nn.causal import Bounds, CausalConv3d, Stream
from skipsr.nn.tails import HostMemory
from skipsr.timeline import check_causal

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
        with torch.no_grad():
            self.conv_out.bias[config.latent_channels :] = START_LOG_VARIANCE

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:  # b 3 t h w -> b 2c t' h' w'
        finest, *coarser = self.down_blocks
        x = _joined(
            finest(self.conv_in(part, stream), stream) for part in _parts(frames, stream, 1)
        )
        for block in coarser:
            x = block(x, stream)
        x = self.mid_block(x, stream)
        return activated(self.conv_norm_out, self.conv_out, x, stream)


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
        self.encoder = PatchEncoder(config) if config.base_conditioned else Encoder(config)
        self.decoder = Decoder(config)
        self.host_memory = HostMemory()
        """Where tails wait that have no room on the device."""

    def encode(
        self, frames: Tensor, slice_frames: int = 4, bounds: Bounds | None = None
    ) -> Posterior:
        """Encode `b 3 t h w` in [-1, 1] into a posterior over `b c t' h/8 w/8`.

        Args:
            bounds: of the memory that it takes; without gradients.

        Raises:
            ValueError: for another number of frames or other sides than the class allows.
        """
        t, time = frames.shape[2], self.config.time
        check_causal(frames.shape, time, self.config.space)
        if slice_frames < time or slice_frames % time:
            raise ValueError(f"slices are multiples of {time} frames, not {slice_frames}")
        parts = (frames[:, :, a:b] for a, b in _slices(t, slice_frames, bounds))
        if self.config.base_conditioned:
            parts = map(emphasise_detail, parts)
        with closing(Stream(bounds, alone=t == 1, host=self.host_memory)) as stream:
            moments = torch.cat([self.encoder(self._arrange(part), stream) for part in parts], 2)
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
        alone = latent.shape[2] == 1
        with closing(Stream(bounds, alone=alone, host=self.host_memory)) as stream:
            for a, b in _slices(latent.shape[2], slice_frames // time, bounds):
                part = None
                if base is not None:
                    seen = base[:, :, max(0, (a - 1) * time + 1) : (b - 1) * time + 1]
                    part = seen.to(latent.device)
                yield self.decoder(self._arrange(latent[:, :, a:b]), part, stream)

    def _arrange(self, x: Tensor) -> Tensor:
        weight = self.decoder.conv_in.weight
        return _arrange(x.to(weight.device), weight.dtype)


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
