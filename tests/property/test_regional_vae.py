"""The autoencoder on the kept cells alone: that is the whole network with zeros between its layers
wherever nothing is kept."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from made_models import TINY, perturb, random
from torch import Tensor

from skipsr.backbones.seedvr2.blocks import FrameAttention
from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.backbones.seedvr2.regional import decode_regions, encode_regions
from skipsr.backbones.seedvr2.vae import VideoAutoencoder, emphasise_detail
from skipsr.nn.causal import CausalConv3d, Stream
from skipsr.skipping.regions import widen

CONFIGS = {
    "sees the base": TINY.vae,
    "sees none": replace(TINY.vae, sees_base=False),
    "time halved once": replace(TINY.vae, temporal_levels=1, encoder_blocks=2, decoder_blocks=2),
}
SIZES = ((48, 80), (72, 56), (16, 104))  # the second ends in half cells


@pytest.fixture(scope="module", params=CONFIGS)
def vae(request: pytest.FixtureRequest) -> VideoAutoencoder:
    return make(CONFIGS[request.param])


def make(config: VAEConfig) -> VideoAutoencoder:
    torch.manual_seed(0)
    vae = VideoAutoencoder(config)
    perturb(vae)
    return vae.eval().requires_grad_(False)


def shrinking(count: int, size: tuple[int, int], strip: int, seed: int) -> Tensor:
    """Masks `t rows columns`, some frames' equal to those before."""
    grid = (count, -(-size[0] // 16), -(-size[1] // 16))
    need = random(*grid, seed=seed) > 0.9
    need[1::3] = False
    later = need.flip(0).cummax(0).values.flip(0)
    return torch.stack([widen(keep, strip) for keep in later])


def inputs(
    vae: VideoAutoencoder, frames: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Frames, latent, and base frames where the decoder wants them."""
    height, width = size
    video = random(1, 3, frames, height, width, seed=1).clamp(-1, 1)
    latent = random(1, 4, (frames - 1) // vae.config.time + 1, height // 8, width // 8, seed=2)
    base = random(1, 3, frames, height, width, seed=3).clamp(-1, 1)
    return video, latent, base if vae.config.sees_base else None


class Masked(Stream):
    """Multiplies what every convolution reads by the masks."""

    def __init__(self, keeps: Tensor) -> None:
        super().__init__()
        self.keeps = keeps

    def mask(self, x: Tensor) -> Tensor:
        """For features `1 c t h w` of any level: `t h w`."""
        count, rows, columns = self.keeps.shape
        t, h, w = x.shape[2:]
        frames = torch.arange(t)
        if count > 1:
            frames = (frames + (t - 1) // (count - 1) - 1) // ((t - 1) // (count - 1))
        side = 2  # of a cell at this level
        while side * rows < h:
            side *= 2
        keep = self.keeps[frames]
        return keep.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :h, :w]

    def extend(self, conv: CausalConv3d, x: Tensor) -> Tensor:
        padded = conv.stride[1] == 2  # a downsampler's input, with zeros right and below
        inner = x[..., :-1, :-1] if padded else x
        masked = inner * self.mask(inner)
        return super().extend(conv, F.pad(masked, (0, 1, 0, 1)) if padded else masked)


def attend_to_kept(block: FrameAttention, x: Tensor, mask: Tensor) -> Tensor:
    """A frame's attention in which nothing looks at places that are skipped."""
    places = rearrange(x, "1 c t h w -> t 1 (h w) c")
    seen = mask.flatten(1)[:, None, None, :]
    out = F.scaled_dot_product_attention(
        block.to_q(places), block.to_k(places), block.to_v(places), seen
    )
    return x + rearrange(block.to_out[0](out), "t 1 (h w) c -> 1 c t h w", h=x.shape[3])


@pytest.fixture
def masked_attention(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return monkeypatch


def with_masks(patch: pytest.MonkeyPatch, keeps: Tensor) -> Masked:
    stream = Masked(keeps)
    patch.setattr(
        FrameAttention, "forward", lambda block, x: attend_to_kept(block, x, stream.mask(x))
    )
    return stream


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("strip", [1, 2, 5])
def test_regions_are_the_masked_network(
    vae: VideoAutoencoder, size: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch
):
    for count, seed in ((1, 0), (2, 1), (5, 2), (6, 3)):
        frames, latent, base = inputs(vae, (count - 1) * vae.config.time + 1, size)
        keeps = shrinking(count, size, strip, seed)
        encoded = encode_regions(vae, frames, keeps, strip)
        decoded = decode_regions(vae, latent, base, keeps, strip)
        with monkeypatch.context() as patch:
            stream = with_masks(patch, keeps)
            seen = emphasise_detail(frames) if vae.config.sees_base else frames
            mean = vae.encoder(seen, stream).chunk(2, 1)[0]
            mean = mean * stream.mask(mean)
            shown = vae.decoder(latent, base, with_masks(patch, keeps))
        shown = torch.where(stream.mask(shown), shown, 0 if base is None else base)
        torch.testing.assert_close(encoded, mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(decoded, shown, atol=1e-5, rtol=1e-5)
