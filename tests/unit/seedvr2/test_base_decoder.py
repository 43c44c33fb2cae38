"""What the decoder that sees the base adds to the published one."""

import dataclasses

import pytest
import torch

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.patches import (
    START_LOG_VARIANCE,
    PatchEncoder,
    PatchOut,
    local_detail,
)
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.nn.causal import Stream

CONFIG = PRESETS["tiny"].vae


def test_local_detail_is_the_difference_to_the_mean_of_seven_by_seven():
    frames = torch.rand(1, 3, 2, 12, 13)
    detail = local_detail(frames)
    window = frames[0, 1, 1, 2:9, 3:10]
    torch.testing.assert_close(detail[0, 1, 1, 5, 6], frames[0, 1, 1, 5, 6] - window.mean())
    assert local_detail(torch.full((1, 3, 1, 9, 9), 0.7)).abs().max() < 1e-6


def test_patches_in_and_out_are_inverse_when_their_maps_are():
    config = dataclasses.replace(CONFIG, latent_channels=3 * 4 * 64)
    into, out = PatchEncoder(config), PatchOut(config)
    with torch.no_grad():
        for patch in (into, out):
            patch.proj.weight.copy_(torch.eye(3 * 4 * 64)[:, :, None, None, None])
            patch.proj.bias.zero_()
    frames = torch.rand(1, 3, 9, 16, 24)
    latent, log_variance = into(frames, Stream()).chunk(2, 1)
    assert latent.shape == (1, 768, 3, 2, 3)
    torch.testing.assert_close(out(latent, Stream()), frames)
    assert (log_variance == START_LOG_VARIANCE).all()


def test_base_frames_are_given_exactly_where_they_are_seen():
    vae = VideoAutoencoder(CONFIG)
    latent = torch.zeros(1, CONFIG.latent_channels, 1, 2, 2)
    with pytest.raises(ValueError, match="needs"):
        vae.decode(latent)
    plain = VideoAutoencoder(dataclasses.replace(CONFIG, base_conditioned=False))
    with pytest.raises(ValueError, match="does not take"):
        plain.decode(latent, torch.zeros(1, 3, 1, 16, 16))
