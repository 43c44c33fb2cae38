"""Bytes that the networks take at once, by shapes, widths and dtypes: nothing is run.

`benchmarks/memory_plan.py` sets the law beside bytes of live tensors, counted call by call.
Kernels' workspaces are not in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skipsr.backbones.seedvr2.attention import TOKENS_TOGETHER
from skipsr.backbones.seedvr2.config import DiTConfig, SeedVR2Config, VAEConfig
from skipsr.backbones.seedvr2.cost_law import mlp_width
from skipsr.backbones.seedvr2.dit import Block, DiT
from skipsr.backbones.seedvr2.execution import TIGHTEST, CanvasPeaks
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.backbones.seedvr2.windows import windows
from skipsr.nn.causal import Bounds
from skipsr.nn.residence import pinned_bytes
from skipsr.nn.tails import HostMemory
from skipsr.weights.meta import on_meta

SLICE = 4  # frames of a slice of the autoencoder
_PICTURES = 6 * SLICE * 4 * 3  # bytes of a pixel: float32 pictures of a slice, when it is finished
_GUTTERS, _ALL_GUTTERS = 1.15, 1.25  # times what kept pixels take; the latter on every level


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Bytes of encode and of decode."""

    encode: int
    decode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderLaw:
    """Of the autoencoder, for pictures of so many pixels. What is added up is in channels of the
    finest level."""

    config: VAEConfig
    itemsize: int  # bytes of a number
    first: int = SLICE + 1  # frames of the first slice; a clip of one remembers nothing

    def tails(self, pixels: int, room: int | None = None) -> Peaks:
        """What causal layers remember, as far as it stays on the device: two frames of what each
        reads, one where time is halved. A tail stays if there is room beside those before it.

        Args:
            room: bytes; None: for all.
        """
        return Peaks(
            encode=_kept(self._encoder_tails(), pixels * self.itemsize, room),
            decode=_kept(self._decoder_tails(), pixels * self.itemsize, room),
        )

    def waiting(self, pixels: int, bounds: Bounds) -> int:
        """Bytes of the host's memory for tails that do not stay, of encode and then of decode."""
        taken = 0

        def empty(size: int) -> Tensor:
            nonlocal taken
            taken += size
            return torch.empty(size, dtype=torch.uint8, device="meta")

        host, like = HostMemory(empty), torch.empty(0, dtype=torch.uint8, device="meta")
        for tails in (self._encoder_tails(), self._decoder_tails()):
            memory = bounds.memory(host)
            for tail in tails:
                memory.take(like, (int(tail * pixels * self.itemsize),))
            del memory  # which gives its pieces back
        return taken

    def _encoder_tails(self) -> Iterator[float]:
        if self.config.base_conditioned or self.first == 1:
            return
        channels, last = self.config.channels, len(self.config.channels) - 1
        yield 2.0 * 3
        for level, width in enumerate(channels):
            area = 0.25**level
            yield 2 * area * channels[max(level - 1, 0)]
            yield from [2 * area * width] * (2 * self.config.encoder_blocks - 1)
            if last > level >= last - self.config.temporal_levels:
                yield area * width
        yield from [2 * 0.25**last * channels[-1]] * 5  # two blocks, and the last convolution

    def _decoder_tails(self) -> Iterator[float]:
        if self.first == 1:
            return
        channels, last = self.config.channels, len(self.config.channels) - 1
        yield 2 * 0.25**last * self.config.latent_channels
        yield from [2 * 0.25**last * channels[-1]] * 4
        for level in range(last, -1, -1):
            area, width = 0.25**level, channels[level]
            yield 2 * area * channels[min(level + 1, last)]
            yield from [2 * area * width] * (2 * self.config.decoder_blocks - 1)
            if level:  # read by the upsampler, at the next level
                yield 8 * area * width
            if self.config.base_conditioned and level < 2:
                yield 2.0 * 3  # of the base, which is folded at the coarser of the two
        yield 2.0 * channels[0]

    @property
    def _patches(self) -> int:
        """Bytes of a pixel, to encode patches: a slice and its mean in float32, then in order."""
        return 3 * (SLICE + 1) * (13 + 2 * self.itemsize)

    def whole(self, pixels: int) -> Peaks:
        """With whole layers, in the first slice; tails included.

        A layer's input is there as it came, normed with its tail, and what comes out. In the
        decoder that is the first block of the finest level, whose input waits with what that was
        made of, and beside its shortcut.
        """
        frames, tails = self.first, self.tails(pixels)
        if self.config.base_conditioned:  # of one frame pictures are most, and are in this as well
            frames = SLICE + 1
        fine, coarse, coarser = self.config.channels[:3]
        encode = fine * (3 * frames + 2) * self.itemsize
        if self.config.base_conditioned:
            encode = self._patches
        decode = (coarse + coarser / 4) * frames + fine * (4 * frames + 2)
        return Peaks(
            encode=tails.encode + pixels * encode,
            decode=tails.decode + int(pixels * decode * self.itemsize),
        )

    def canvases(self, pixels: int) -> CanvasPeaks:
        """Of decode on canvases. With norms the first frame is run whole, in bands."""
        _, coarse, coarser = self.config.channels[:3]
        unit = pixels * self.itemsize
        kept = unit * (_GUTTERS if self.config.groups else _ALL_GUTTERS)
        # about the upsampler to the finest level, beside what waits of coarser ones
        layers = {
            together: int(kept * (3 * coarse * together + 2 * (coarse + coarser)))
            for together in (SLICE, SLICE // 2, 1)
        }
        first = 0
        if self.config.groups:  # about that upsampler as well; of its canvas ten indices
            first = int(unit * (coarser / 4 + 2 * coarse)) + 80 * pixels + TIGHTEST.band
        always = pixels * _PICTURES + unit * coarser // 4  # the latter of the coarsest level, whole
        tails = int(kept * sum(self._decoder_tails()))
        return CanvasPeaks(first=first, always=always, layers=layers, tails=tails)

    def bounded(self, pixels: int, bounds: Bounds) -> Peaks:
        """In bands of rows, without tails.

        The first block of the finest level has its input, the result of its first convolution and
        that of its shortcut; outputs of coarser levels wait beside it, of which it is a part.
        """
        channels, frames = self.config.channels, bounds.frames
        fine, coarse = channels[:2]
        times, last = self.config.temporal_levels, len(channels) - 1
        held = 0.0
        for level in range(2, last + 1):
            doubled = level > last - times  # in time, by the upsampler that leads from it
            part = max(1, int(frames * 0.5 ** max(0, times - last + level)))
            held += channels[level] * 4 * 0.25**level * part * (1 + doubled)
        decode = held + frames * max(coarse + 2 * fine, 1.25 * coarse)
        encode = max(frames * 2 * fine + SLICE * fine / 4, SLICE * (fine / 2 + coarse) / 2)
        # a band as it is read, and the same in float32 before it is rounded
        band = bounds.band * (3.4 if self.itemsize < 4 else 2.5)
        pictures = _PICTURES * pixels
        encoded = int(pixels * encode * self.itemsize + band)
        if self.config.base_conditioned:
            encoded = pixels * self._patches
        return Peaks(
            encode=encoded + pictures // 3,
            decode=int(max(pixels * decode * self.itemsize + band, pictures)),
        )

    def workspace(self, pixels: int, bounds: Bounds | None) -> int:
        """What kernels of a convolution may take besides: a copy of what it reads and of what it
        gives. With it whole layers come to 27 GiB for 720p and the weights of 3B, as an H100 took.
        """
        return 2 * bounds.band if bounds is not None else self.copies(pixels, self.first)

    def copies(self, pixels: int, frames: int) -> int:
        """Of what the finest level's first convolution reads and gives."""
        fine, coarse = self.config.channels[:2]
        return pixels * (coarse * (frames + 2) + fine * frames) * self.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerLaw:
    """Of the transformer, without its weights."""

    config: DiTConfig
    itemsize: int  # bytes of a number
    text_tokens: int

    def peak(self, grid: tuple[int, int, int]) -> int:
        """Of a pass over a grid of tokens `(t, h, w)`, all of them kept."""
        config, itemsize = self.config, self.itemsize
        tokens, inner = grid[0] * grid[1] * grid[2], config.heads * config.head_dim
        shifted = sum(1 for _ in windows(grid, config.windows, shifted=True))
        rows = tokens + self.text_tokens * shifted
        together = min(tokens, TOKENS_TOGETHER)
        pairs = 3 * (config.rotary_dim // 2)
        # what a block gets, and the same normed; q, k and v; of some tokens these as projected,
        # normed, and turned in float32
        read = 2 * tokens * config.width * itemsize
        turning = together * inner * (6 * itemsize + 12 * 2 * pairs / config.head_dim)
        projecting = read + 3 * rows * inner * itemsize + int(turning)
        attending = read + 4 * rows * inner * itemsize
        # beside what a block gets what attention gave, and the sum
        refining = (
            3 * tokens * config.width + together * (mlp_width(config) + 2 * config.width)
        ) * itemsize
        angles = 2 * 2 * 4 * tokens * pairs
        places = 2 * 8 * (rows + tokens)
        cells = 4 * tokens * (config.in_channels + config.out_channels) * (4 + itemsize)
        return max(projecting, attending, refining) + angles + places + cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Bytes of a model's weights."""

    autoencoder: int
    transformer: int  # all of it
    blocks: int  # all of its blocks
    block: int  # the largest
    pinned: int  # all, in pinned memory of the host
    pinned_blocks: int
    opened: int  # of quantised matrices that are held as numbers at once


def weights_of(config: SeedVR2Config, itemsize: int, stored: int | None = None) -> Weights:
    """By the shapes of the networks, made on the meta device.

    Args:
        stored: bytes of a quantised transformer's file.
    """

    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters()) * itemsize

    with on_meta():
        transformer, autoencoder = DiT(config.dit), VideoAutoencoder(config.vae)
    share = 1.0 if stored is None else stored / count(transformer)

    def pinned(network: nn.Module, share: float = 1.0) -> int:
        return pinned_bytes(int(share * p.numel() * itemsize) for p in network.parameters())

    blocks = [int(share * count(block)) for block in transformer.blocks]
    first = transformer.blocks[0]
    assert isinstance(first, Block)
    return Weights(
        autoencoder=count(autoencoder),
        transformer=int(share * count(transformer)),
        blocks=sum(blocks),
        block=max(blocks),
        pinned=pinned(transformer, share) + pinned(autoencoder),
        pinned_blocks=pinned(transformer.blocks, share),
        opened=0 if stored is None else count(first.mlp.video),
    )


def _kept(tails: Iterator[float], unit: int, room: int | None) -> int:
    """Bytes of the tails that stay, each given for one byte a number and one pixel."""
    held = 0
    for tail in tails:
        more = int(tail * unit)
        if room is None or held + more <= room:
            held += more
    return held
