"""The autoencoder on the kept cells alone: that is the whole network with zeros between its layers
wherever nothing is kept."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from made_models import TINY, perturb, random
from torch import Tensor, nn

from skipsr.backbones.seedvr2 import canvas_levels
from skipsr.backbones.seedvr2.blocks import FrameAttention, FrameNorm, UpBlock, Upsampler
from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.backbones.seedvr2.regional import decode_regions, encode_regions
from skipsr.backbones.seedvr2.regional_tails import Bands
from skipsr.backbones.seedvr2.vae import Decoder, VideoAutoencoder
from skipsr.nn.causal import Bounds, CausalConv3d, Stream
from skipsr.skipping import canvas
from skipsr.skipping.canvas import CanvasPlan
from skipsr.skipping.canvas_moves import copied, halved, split
from skipsr.skipping.regions import widen

CONFIGS = {
    "sees the base": TINY.vae,
    "sees none": replace(TINY.vae, base_conditioned=False, encoder_blocks=1),
    "time halved once": replace(TINY.vae, temporal_levels=1, decoder_blocks=2),
    "sees none, time halved once": replace(
        TINY.vae, base_conditioned=False, temporal_levels=1, encoder_blocks=2
    ),
}
NORMS = {
    "as published": VAEConfig(
        channels=(8, 8, 12, 12), encoder_blocks=1, decoder_blocks=2, groups=4, latent_channels=4
    ),
    "norms, time as it is": VAEConfig(
        channels=(8, 8, 12, 12), groups=4, latent_channels=4, temporal_levels=0
    ),
}
WITH_NORMS = NORMS | {"norms, sees the base": replace(NORMS["as published"], base_conditioned=True)}
# size, rows of cells in a strip, latent frames; some end in half a cell or in part of a strip
CASES = [((48, 80), 1, 3), ((48, 56), 2, 2), ((72, 40), 2, 5), ((16, 104), 5, 1), ((80, 24), 3, 4)]


def make(config: VAEConfig) -> VideoAutoencoder:
    torch.manual_seed(0)
    vae = VideoAutoencoder(config)
    perturb(vae)
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=CONFIGS)
def vae(request: pytest.FixtureRequest) -> VideoAutoencoder:
    return make(CONFIGS[request.param])


def encoded(vae: VideoAutoencoder, frames: Tensor, keeps: Tensor, strip: int) -> Tensor:
    """By regions where an encoder has layers that could be skipped."""
    if vae.config.base_conditioned:
        return vae.encode(frames).mean
    return encode_regions(vae, frames, keeps, strip)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def shrinking(count: int, size: tuple[int, int], strip: int, seed: int) -> Tensor:
    """Masks `t rows columns`, some frames' equal to those before."""
    grid = (count, -(-size[0] // 16), -(-size[1] // 16))
    need = random(*grid, seed=seed) > 0.9
    need[1::3] = False
    later = need.flip(0).cummax(0).values.flip(0)
    return widen(later, strip)


def inputs(
    vae: VideoAutoencoder, count: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Frames, latent, and base frames where the decoder wants them."""
    height, width = size
    frames = (count - 1) * vae.config.time + 1
    video = random(1, 3, frames, height, width, seed=1).clamp(-1, 1)
    latent = random(1, 4, count, height // 8, width // 8, seed=2)
    base = random(1, 3, frames, height, width, seed=3).clamp(-1, 1)
    return video, latent, base if vae.config.base_conditioned else None


class Masked(Stream):
    """Multiplies what every convolution reads by the masks."""

    def __init__(self, keeps: Tensor) -> None:
        super().__init__()
        self.keeps = keeps

    def mask(self, x: Tensor) -> Tensor:
        """For features `1 c t h w` of any level: `t h w`."""
        count, rows, _ = self.keeps.shape
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


def with_masks(patch: pytest.MonkeyPatch, keeps: Tensor) -> Masked:
    stream = Masked(keeps)
    patch.setattr(
        FrameAttention, "forward", lambda block, x: attend_to_kept(block, x, stream.mask(x))
    )
    return stream


@pytest.mark.parametrize(("size", "strip", "count"), CASES)
def test_regions_are_the_masked_network(
    vae: VideoAutoencoder,
    size: tuple[int, int],
    strip: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
):
    frames, latent, base = inputs(vae, count, size)
    keeps = shrinking(count, size, strip, seed=strip)
    assert keeps.any()
    found = encoded(vae, frames, keeps, strip)
    decoded = decode_regions(vae, latent, base, keeps, strip)
    if not vae.config.base_conditioned:
        stream = with_masks(monkeypatch, keeps)
        mean = vae.encoder(frames, stream).chunk(2, 1)[0]
        close(found, mean * stream.mask(mean))
    stream = with_masks(monkeypatch, keeps)
    shown = vae.decoder(latent, base, stream)
    close(decoded, torch.where(stream.mask(shown), shown, 0 if base is None else base))


@pytest.mark.parametrize("config", (CONFIGS | NORMS).values(), ids=CONFIGS | NORMS)
def test_everything_is_the_network_and_nothing_the_base(config: VAEConfig):
    vae = make(config)
    frames, latent, base = inputs(vae, 3, (48, 80))
    keeps = torch.ones(3, 3, 5, dtype=torch.bool)
    close(encoded(vae, frames, keeps, 2), vae.encode(frames).mean)
    close(decode_regions(vae, latent, base, keeps, 2), vae.decode(latent, base))
    if not config.base_conditioned:
        assert not encode_regions(vae, frames, ~keeps, 2).any()
    assert torch.equal(
        decode_regions(vae, latent, base, ~keeps, 2),
        torch.zeros_like(frames) if base is None else base,
    )


@pytest.mark.parametrize("config", (CONFIGS | NORMS).values(), ids=CONFIGS | NORMS)
def test_a_whole_canvas_is_the_dense_network(config: VAEConfig):
    """Nothing is skipped before the last frame."""
    vae = make(config)
    frames, latent, base = inputs(vae, 4, (48, 72))
    keeps = torch.ones(4, 3, 5, dtype=torch.bool)
    keeps[-1, 2:] = False
    close(encoded(vae, frames, keeps, 2)[:, :, :3], vae.encode(frames).mean[:, :, :3])
    before = 2 * vae.config.time + 1
    decoded, dense = decode_regions(vae, latent, base, keeps, 2), vae.decode(latent, base)
    close(decoded[:, :, :before], dense[:, :, :before])


@pytest.mark.parametrize("name", [*CONFIGS, *NORMS])
def test_few_frames_at_a_time_give_the_same(name: str):
    vae = make((CONFIGS | NORMS)[name])
    keeps = shrinking(4, (48, 80), 2, seed=0)
    assert 0 < keeps[-1].sum() < keeps[0].sum()
    _, latent, base = inputs(vae, 4, (48, 80))
    expected = decode_regions(vae, latent, base, keeps, 2)
    for frames in (1, 2):
        bounds = Bounds(band=2**14, frames=frames, tails=0)
        close(decode_regions(vae, latent, base, keeps, 2, bounds=bounds), expected)


@pytest.mark.parametrize("config", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize(("size", "strip"), [((48, 80), 1), ((72, 40), 2), ((104, 24), 3)])
@pytest.mark.parametrize("band", [1, 100_000], ids=["a strip", "some"])
def test_a_first_frame_in_bands_is_the_same(
    config: VAEConfig,
    size: tuple[int, int],
    strip: int,
    band: int,
    monkeypatch: pytest.MonkeyPatch,
):
    """What later frames remember of it included, though they keep less and less."""
    vae, seen = make(config), list[int]()
    keeps = shrinking(4, size, strip, seed=0)
    assert 0 < keeps[-1].sum() < keeps[0].numel()
    _, latent, base = inputs(vae, 4, size)
    expected = decode_regions(vae, latent, base, keeps, strip)

    def counted(bands: Bands, rows: Tensor, top: int) -> None:
        seen.append(rows.shape[1])
        keep(bands, rows, top)

    keep = Bands.keep
    monkeypatch.setattr(Bands, "keep", counted)
    bounds = Bounds(band=band, frames=1, tails=0)
    close(decode_regions(vae, latent, base, keeps, strip, bounds=bounds), expected)
    assert (max(seen) == 16 * strip + 2) is (band == 1)


class Held(Masked):
    """What every layer reads, and norms and attention see, stands outside the masks as it was when
    it was last run. The first frame is run whole, and so is the decoder's coarsest level."""

    def __init__(self, keeps: Tensor, decoder: Decoder | None = None) -> None:
        super().__init__(torch.cat((torch.ones_like(keeps[:1]), keeps[1:])))
        self.whole, self.free = 0, None
        if decoder is not None:
            up = cast(Upsampler, cast(UpBlock, decoder.up_blocks[0]).upsamplers[0])  # type: ignore[index]
            self.whole, self.free = 2 * keeps.shape[1], up.conv  # it reads of a whole level

    def hold(self, x: Tensor) -> Tensor:
        """`1 c t h w` of any level."""
        if x.shape[3] <= self.whole:
            return x
        frames = [x[:, :, 0]]
        for now, kept in zip(x[:, :, 1:].unbind(2), self.mask(x)[1:], strict=True):
            frames.append(torch.where(kept, now, frames[-1]))
        return torch.stack(frames, 2)

    def extend(self, conv: CausalConv3d, x: Tensor) -> Tensor:
        if conv is not self.free:
            padded = conv.stride[1] == 2
            inner = self.hold(x[..., :-1, :-1] if padded else x)
            x = F.pad(inner, (0, 1, 0, 1)) if padded else inner
        return Stream.extend(self, conv, x)

    def norm(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Of each frame alone."""
        assert isinstance(norm, nn.GroupNorm)
        told = norm.num_groups, norm.weight, norm.bias, norm.eps
        return torch.stack([F.group_norm(frame, *told) for frame in self.hold(x).unbind(2)], 2)

    def attend(self, block: FrameAttention, x: Tensor) -> Tensor:
        normed = self.norm(block.group_norm, x)
        asking, seen = (rearrange(y, "1 c t h w -> t (h w) c") for y in (normed, self.hold(normed)))
        (out,) = block.in_parts(asking, seen, asking.shape[1])
        return x + rearrange(out, "t (h w) c -> 1 c t h w", h=x.shape[3])


def with_what_stands(patch: pytest.MonkeyPatch, held: Held) -> Held:
    patch.setattr(FrameNorm, "forward", lambda norm, x: held.norm(norm, x))
    patch.setattr(FrameAttention, "forward", lambda block, x: held.attend(block, x))
    return held


@pytest.mark.parametrize("config", WITH_NORMS.values(), ids=WITH_NORMS)
@pytest.mark.parametrize(("size", "strip", "whole"), [((48, 80), 1, 1), ((72, 40), 2, 2)])
def test_with_norms_it_is_the_network_in_which_what_is_skipped_stands(
    config: VAEConfig,
    size: tuple[int, int],
    strip: int,
    whole: int,
    monkeypatch: pytest.MonkeyPatch,
):
    vae = make(config)
    frames, latent, base = inputs(vae, 5, size)
    keeps = shrinking(6, size, strip, seed=1)[1:]
    if whole > 1:  # these are then one slice
        keeps[:whole] = True
    assert 0 < keeps[3].sum() < keeps[2].sum() < keeps[0].numel()
    found = encoded(vae, frames, keeps, strip)
    decoded = decode_regions(vae, latent, base, keeps, strip)
    if base is None:
        held = with_what_stands(monkeypatch, Held(keeps))
        mean = vae.encoder(frames, held).chunk(2, 1)[0]
        close(found, mean * Masked(keeps).mask(mean))
    shown = vae.decoder(latent, base, with_what_stands(monkeypatch, Held(keeps, vae.decoder)))
    close(decoded, torch.where(Masked(keeps).mask(shown), shown, 0 if base is None else base))


@pytest.mark.parametrize("config", WITH_NORMS.values(), ids=WITH_NORMS)
def test_with_norms_a_single_frame_is_run_whole_and_shown_where_it_is_kept(config: VAEConfig):
    vae = make(config)
    frames, latent, base = inputs(vae, 1, (72, 40))
    keeps = shrinking(1, (72, 40), 2, seed=0)
    assert 0 < keeps.sum() < keeps.numel()
    if base is None:
        mean = vae.encode(frames).mean
        close(encode_regions(vae, frames, keeps, 2), mean * Masked(keeps).mask(mean))
    dense = vae.decode(latent, base)
    wanted = torch.where(Masked(keeps).mask(dense), dense, 0 if base is None else base)
    close(decode_regions(vae, latent, base, keeps, 2), wanted)


@pytest.mark.parametrize("config", NORMS.values(), ids=NORMS)
def test_norms_see_what_was_skipped_as_it_was(config: VAEConfig):
    """Which is as it is, when nothing moves."""
    vae = make(config)
    keeps = shrinking(5, (72, 56), 2, seed=4)
    keeps[:, 0, 0] = keeps[:, 1, 0] = True
    frames, latent, _ = (x if x is None else x[:, :, :1] for x in inputs(vae, 1, (72, 56)))
    frames = frames.expand(-1, -1, 4 * vae.config.time + 1, -1, -1)
    latent = latent.expand(-1, -1, 5, -1, -1)
    mask = Masked(keeps).mask(latent)
    close(encode_regions(vae, frames, keeps, 2), vae.encode(frames).mean * mask)
    if not config.temporal_levels:  # else a latent frame stands for several, which differ
        dense = vae.decode(latent)
        dense = dense * Masked(keeps).mask(dense)
        close(decode_regions(vae, latent, None, keeps, 2), dense)


@pytest.mark.parametrize("name", CONFIGS | NORMS)
def test_what_is_moved_between_canvases_is_worked_out_once(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """For all layers of a level, and all parts of a slice."""
    vae, made_for = make((CONFIGS | NORMS)[name]), list[tuple[str, CanvasPlan, CanvasPlan]]()
    keeps = shrinking(4, (48, 80), 2, seed=0)
    frames, latent, base = inputs(vae, 4, (48, 80))

    def noted(move: Callable[..., Tensor], source: CanvasPlan, target: CanvasPlan, *rest: int):
        made_for.append((move.__name__, source, target))
        return move(source, target, *rest)

    for move in (copied, halved, split):
        monkeypatch.setattr(canvas_levels, move.__name__, partial(noted, move))
    encoded(vae, frames, keeps, 2)
    once = [(move, id(source), id(target)) for move, source, target in made_for]
    assert len(once) == len(set(once))
    made_for.clear()
    bounds = Bounds(band=2**14, frames=1, tails=0)
    decode_regions(vae, latent, base, keeps, 2, bounds=bounds)
    once = [(move, id(source), id(target)) for move, source, target in made_for]
    assert {move for move, _, _ in once} == {"copied", "split"}
    assert len(once) == len(set(once))


def test_wrong_masks_are_refused(vae: VideoAutoencoder):
    frames, latent, base = inputs(vae, 3, (48, 80))
    keeps = torch.ones(3, 3, 5, dtype=torch.bool)
    grows = keeps.clone()
    grows[0, :, 0] = False
    uneven = keeps.clone()
    uneven[:, 0, 0] = False
    wrong = {"these masks are": keeps[:, 1:] & False, "skipped before": grows, "differs": uneven}
    for message, masks in wrong.items():
        with pytest.raises(ValueError, match="patch" if base is not None else message):
            encode_regions(vae, frames, masks, 2)
        with pytest.raises(ValueError, match=message):
            decode_regions(vae, latent, base, masks, 2)


@pytest.mark.parametrize("name", [*CONFIGS, *NORMS])
def test_the_host_never_waits_for_the_device(name: str):
    """On `meta` whatever would ask the device for a number fails."""
    vae = make((CONFIGS | NORMS)[name]).to("meta")
    count, size = 4, (48, 80)
    keeps = shrinking(count, size, 2, seed=0)
    assert 0 < keeps[-1].sum() < keeps[0].sum()
    frames = torch.zeros(1, 3, (count - 1) * vae.config.time + 1, *size, device="meta")
    latent = encoded(vae, frames, keeps, 2)
    base = frames if vae.config.base_conditioned else None
    assert decode_regions(vae, latent, base, keeps, 2).shape == frames.shape


@pytest.mark.parametrize(("size", "strip", "count"), CASES)
@pytest.mark.parametrize("name", NORMS)
def test_slots_that_are_filled_up_change_nothing(
    name: str,
    size: tuple[int, int],
    strip: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
):
    """Off the CPU, where lists of slots have a fixed length."""
    vae = make(NORMS[name])
    keeps = shrinking(count, size, strip, seed=1)
    frames = random(1, 3, (count - 1) * vae.config.time + 1, *size)
    wanted = encode_regions(vae, frames, keeps, strip)
    shown = decode_regions(vae, wanted, None, keeps, strip)
    monkeypatch.setattr(canvas, "indices_where", filled_up)
    assert torch.equal(encode_regions(vae, frames, keeps, strip), wanted)
    assert torch.equal(decode_regions(vae, wanted, None, keeps, strip), shown)


def filled_up(mask: Tensor, most: int, spare: int) -> Tensor:
    return torch.nonzero_static(mask, size=most, fill_value=spare)[:, 0]


@pytest.mark.parametrize("name", [*CONFIGS, *NORMS])
@pytest.mark.parametrize(
    "bounds", [None, Bounds(band=1, frames=1, tails=0)], ids=["whole", "in bands"]
)
def test_memory_that_was_never_written_is_not_read(
    name: str, bounds: Bounds | None, monkeypatch: pytest.MonkeyPatch
):
    """Rims of canvases among it, and columns that belong to no run."""
    vae = make((CONFIGS | NORMS)[name])
    keeps = shrinking(5, (48, 80), 2, seed=1)[1:]
    assert 0 < keeps[2].sum() < keeps[1].sum() < keeps[1].numel()
    frames = random(1, 3, 3 * vae.config.time + 1, 48, 80)
    base = frames if vae.config.base_conditioned else None
    latent = encoded(vae, frames, keeps, 2)
    shown = decode_regions(vae, latent, base, keeps, 2, bounds=bounds)
    new_empty = Tensor.new_empty
    monkeypatch.setattr(
        Tensor, "new_empty", lambda *given, **told: new_empty(*given, **told).fill_(float("nan"))
    )
    assert torch.equal(encoded(vae, frames, keeps, 2), latent)
    assert torch.equal(decode_regions(vae, latent, base, keeps, 2, bounds=bounds), shown)
