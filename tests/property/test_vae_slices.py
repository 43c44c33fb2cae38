"""The autoencoder in slices equals the whole, and never looks ahead."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from made_models import TINY, make_clip, perturb, random
from torch import Tensor

from skipsr.backbones.seedvr2.config import VAEConfig
from skipsr.backbones.seedvr2.vae import VideoAutoencoder

CONFIGS = {
    "sees the base": TINY.vae,
    "as published": VAEConfig(
        channels=(8, 8, 12, 12), encoder_blocks=1, decoder_blocks=2, groups=4, latent_channels=4
    ),
    "time halved once": replace(TINY.vae, temporal_levels=1),
}
WHOLE = 1 << 10


@pytest.fixture(scope="module", params=CONFIGS)
def vae(request: pytest.FixtureRequest) -> VideoAutoencoder:
    torch.manual_seed(0)
    vae = VideoAutoencoder(CONFIGS[request.param])
    perturb(vae)
    return vae.eval().requires_grad_(False)


@pytest.fixture(params=[True, False], ids=["with gradients", "without"], autouse=True)
def gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without them layers write into what they read, and remember the past in another way."""
    with torch.set_grad_enabled(request.param):
        yield


def inputs(vae: VideoAutoencoder, frames: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Frames, latent, and base frames where the decoder wants them."""
    video = random(2, 3, frames, 16, 24, seed=1).clamp(-1, 1)
    latent = random(2, 4, (frames - 1) // vae.config.time + 1, 2, 3, seed=2)
    base = random(2, 3, frames, 16, 24, seed=3).clamp(-1, 1)
    return video, latent, base if vae.config.base_conditioned else None


# in one slice, in whole ones, and with a shorter one at the end
@pytest.mark.parametrize(
    ("frames", "slice_frames"), [(1, 4), (5, 12), (9, 4), (9, 8), (21, 8), (21, 12)]
)
def test_sliced_is_whole(vae: VideoAutoencoder, frames: int, slice_frames: int):
    video, latent, base = inputs(vae, frames)
    whole, sliced = vae.encode(video, WHOLE), vae.encode(video, slice_frames)
    torch.testing.assert_close(sliced.mean, whole.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sliced.log_variance, whole.log_variance, atol=1e-5, rtol=1e-5)
    decoded = vae.decode(latent, base, slice_frames)
    torch.testing.assert_close(decoded, vae.decode(latent, base, WHOLE), atol=1e-5, rtol=1e-5)
    assert decoded.shape == video.shape
    assert whole.mean.shape == latent.shape


def test_later_frames_leave_earlier_latents_alone(vae: VideoAutoencoder):
    video, _, _ = inputs(vae, 13)
    time = vae.config.time
    before = vae.encode(video, WHOLE).mean
    for latent_frame in (1, 2):
        changed = video.clone()
        changed[:, :, (latent_frame - 1) * time + 1 :] *= -0.5
        after = vae.encode(changed, WHOLE).mean
        assert torch.equal(after[:, :, :latent_frame], before[:, :, :latent_frame])
        assert not torch.allclose(after[:, :, latent_frame], before[:, :, latent_frame], atol=1e-3)


def test_later_latents_leave_earlier_frames_alone(vae: VideoAutoencoder):
    _, latent, base = inputs(vae, 13)
    before = vae.decode(latent, base, WHOLE)
    for latent_frame in (1, 2):
        changed = latent.clone()
        changed[:, :, latent_frame:] += 1
        after = vae.decode(changed, base, WHOLE)
        first = (latent_frame - 1) * vae.config.time + 1  # of the frames it stands for
        torch.testing.assert_close(after[:, :, :first], before[:, :, :first], atol=1e-6, rtol=0)
        assert not torch.allclose(after[:, :, first:], before[:, :, first:], atol=1e-3)


def test_samples_of_a_batch_do_not_mix(vae: VideoAutoencoder):
    video, latent, base = inputs(vae, 5)
    alone = vae.encode(video[1:]).mean
    torch.testing.assert_close(vae.encode(video).mean[1:], alone, atol=1e-5, rtol=1e-5)
    alone = vae.decode(latent[1:], None if base is None else base[1:])
    torch.testing.assert_close(vae.decode(latent, base)[1:], alone, atol=1e-5, rtol=1e-5)


def test_wrong_inputs_are_refused(vae: VideoAutoencoder):
    video, latent, base = inputs(vae, 5)
    with pytest.raises(ValueError, match=r"4 frames of 16x24 are not \dn\+1 frames"):
        vae.encode(video[:, :, :4])
    with pytest.raises(ValueError, match="5 frames of 12x24"):
        vae.encode(video[:, :, :, :12])
    with pytest.raises(ValueError, match="slices are multiples of"):
        vae.encode(video, 3)
    with pytest.raises(ValueError, match="this decoder"):
        vae.decode(latent, None if base is not None else video)


def test_an_untrained_correction_is_almost_none():
    torch.manual_seed(0)
    vae = VideoAutoencoder(TINY.vae)
    base = make_clip(5, 32, 32).frames.permute(1, 0, 2, 3)[None] * 2 - 1
    correction = vae.decode(random(1, 4, 2, 4, 4), base) - base
    assert 0 < correction.abs().mean() < 0.03
