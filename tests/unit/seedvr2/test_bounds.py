"""The autoencoder in little memory gives what it gives in much."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from made_models import TINY, perturb, random
from torch import Tensor

from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.nn.causal import Bounds, CausalConv3d, Stream, convolve3d

CONFIGS = {
    "sees the base": TINY.vae,
    "as published": VAEConfig(
        channels=(8, 8, 12, 12), encoder_blocks=1, decoder_blocks=2, groups=4, latent_channels=4
    ),
    "time halved once": replace(TINY.vae, temporal_levels=1),
}


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module", params=CONFIGS)
def vae(request: pytest.FixtureRequest) -> VideoAutoencoder:
    torch.manual_seed(0)
    vae = VideoAutoencoder(CONFIGS[request.param])
    perturb(vae)
    return vae.eval().requires_grad_(False)


@pytest.mark.parametrize(("rows", "frames"), [(2, 1), (1000, 4), (None, 4)])
@pytest.mark.parametrize("count", [1, 13])
def test_bands_and_few_frames_give_the_whole(
    vae: VideoAutoencoder, rows: int | None, frames: int, count: int
):
    """Which is run with gradients, where nothing is in bands or in place."""
    time = vae.config.time
    video = random(1, 3, count, 48, 56, seed=1).clamp(-1, 1)
    latent = random(1, 4, (count - 1) // time + 1, 6, 7, seed=2)
    base = random(1, 3, count, 48, 56, seed=3).clamp(-1, 1)
    base = base if vae.config.base_conditioned else None
    row = 8 * 3 * 56 * 4  # bytes
    bounds = None if rows is None else Bounds(band=rows * row, frames=frames, tails=0)
    slices = 2 * time
    with torch.inference_mode():
        mean = vae.encode(video, bounds=bounds).mean
        shown = vae.decode(latent, base, slices, bounds)
    close(mean, vae.encode(video).mean)
    close(shown, vae.decode(latent, base))


SHAPES = [
    (kernel, stride)
    for kernel in ((3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1))
    for stride in ((1, 1, 1), (2, 2, 2), (1, 2, 2))
    if kernel[0] >= stride[0] and kernel[1] >= stride[1]  # nothing is left out
]


@pytest.mark.parametrize(("kernel", "stride"), SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, 5, None])
def test_a_layer_in_bands_gives_what_it_gives_with_gradients(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], rows: int | None
):
    conv, video = CausalConv3d(4, 6, kernel, stride), random(2, 4, 9, 13, 10)
    bounds = None if rows is None else Bounds(band=rows * 2 * 4 * 6 * 10 * 4, frames=4, tails=0)
    for lengths in ([5, 4], [1, 4, 4], [9]):
        streams = Stream(), Stream(bounds)
        parts = video.split(lengths, 2)
        wanted = torch.cat([conv(part, streams[0]) for part in parts], 2)
        with torch.inference_mode():
            found = torch.cat([conv(part, streams[1]) for part in parts], 2)
        close(found, wanted.detach())


@pytest.mark.parametrize("alone", [True, False])
def test_of_a_clip_of_one_frame_nothing_is_remembered(alone: bool):
    conv, frame, stream = CausalConv3d(4, 6, (3, 3, 3)), random(1, 4, 1, 5, 7), Stream(alone=alone)
    with torch.inference_mode():
        found = conv(frame, stream)
    close(found, conv(frame, Stream()).detach())
    remembered = [tail.numel() for tail in stream._tails.values()]
    assert remembered == ([] if alone else [2 * 4 * 5 * 7])


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    list(product([(3, 3, 3), (1, 1, 1)], [(1, 1, 1), (2, 2, 2)], [True, False])),
)
def test_a_convolution_of_too_many_elements_is_split(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], pad: bool
):
    conv = CausalConv3d(4, 6, kernel, stride, pad=pad)
    x = random(1, 4, 5, 17, 9)
    padding = (0, kernel[1] // 2, kernel[2] // 2) if pad else (0, 0, 0)
    with torch.inference_mode():
        whole = convolve3d(x, conv.weight, conv.bias, stride, padding)
        for most in (1, 1500, x.numel()):
            split = convolve3d(x, conv.weight, conv.bias, stride, padding, most=most)
            torch.testing.assert_close(split, whole, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)])
def test_a_convolution_is_put_where_it_belongs(stride: tuple[int, int, int], add: bool, gaps: bool):
    conv = CausalConv3d(4, 6, (3, 3, 3))
    x = random(1, 4, 5, 12, 9)
    with torch.inference_mode():
        alone = convolve3d(x, conv.weight, conv.bias, stride, (0, 1, 1))
        t, h, w = alone.shape[2:]
        canvas = random(1, t, h + 2, w + 2, 6) if gaps else random(1, t, h, w, 6)
        before = canvas.clone()
        rows, columns = ((slice(1, -1),) * 2) if gaps else ((slice(None),) * 2)
        place, was = (each[:, :, rows, columns].movedim(-1, 1) for each in (canvas, before))
        convolve3d(x, conv.weight, conv.bias, stride, (0, 1, 1), place, add=add)
        torch.testing.assert_close(place, alone + was if add else alone, atol=1e-6, rtol=1e-5)
        place.copy_(was)
    assert torch.equal(canvas, before)  # nothing beside it was touched
