"""Times, steps, guidance, against the formulas written out."""

import pytest
import torch
from made_models import random

from skipsr.backbones.seedvr2.config import PRESETS, Sampling, SeedVR2Config
from skipsr.backbones.seedvr2.frames import SIZES
from skipsr.clip import extend
from skipsr.nn import diffusion
from skipsr.nn.resize import resize_bicubic as resize


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 49, 50, 1000])
def test_timesteps(steps):
    times = diffusion.timesteps(steps)
    assert times.dtype == torch.float32
    assert times.tolist() == pytest.approx([1000 * (steps - i) / steps for i in range(steps)])
    assert times[0] == 1000
    assert times[-1] > 0


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_true_velocity_leads_to_the_latent(steps):
    latent, noise = random(2, 3, 4), random(2, 3, 4, seed=1)
    calls: list[float] = []

    def velocity(x, time):
        calls.append(float(time))
        on_the_way = latent + (noise - latent) * time / 1000
        torch.testing.assert_close(x, on_the_way, atol=1e-5, rtol=0)
        torch.testing.assert_close(diffusion.add_noise(latent, noise, time), on_the_way)
        return noise - latent

    out = diffusion.sample(velocity, noise, steps)
    torch.testing.assert_close(out, latent, atol=1e-5, rtol=0)
    assert calls == diffusion.timesteps(steps).tolist()


@pytest.mark.parametrize(("now", "then"), [(1000.0, 0.0), (750.0, 500.0), (0.0, 1000.0)])
def test_the_velocity_between_two_points_steps_from_one_to_the_other(now: float, then: float):
    start, end = random(2, 3, 4), random(2, 3, 4, seed=1)
    velocity = diffusion.velocity_between(start, end, now, then)
    torch.testing.assert_close(diffusion.step(start, velocity, now, then), end)


def test_guidance():
    positive, negative = random(5, 16), random(5, 16, seed=1)
    torch.testing.assert_close(diffusion.guide(positive, negative, 1.0), positive)
    torch.testing.assert_close(diffusion.guide(positive, negative, 0.0), negative)
    torch.testing.assert_close(
        diffusion.guide(positive, negative, 6.5),
        6.5 * positive - 5.5 * negative,
        atol=1e-5,
        rtol=1e-5,
    )
    full = diffusion.guide(positive, negative, 6.5, 1.0)
    torch.testing.assert_close(full.std(-1), positive.std(-1))
    plain, half = (diffusion.guide(positive, negative, 6.5, r) for r in (0.0, 0.5))
    torch.testing.assert_close(half, (plain + full) / 2, atol=1e-5, rtol=1e-5)


def test_the_shift_of_times():
    """One at 256x256, 3.2 at 1024x1024 for images, 5 for 145 frames of 720p; the ends stay."""
    time = torch.tensor([0.0, 250.0, 500.0, 1000.0])
    torch.testing.assert_close(diffusion.shift_timestep(time, (1, 32, 32)), time)
    large = diffusion.shift_timestep(time, (1, 128, 128))
    expected = [1000 * 3.2 * u / (1 + 2.2 * u) for u in (0, 0.25, 0.5, 1)]
    torch.testing.assert_close(large, torch.tensor(expected))
    video = diffusion.shift_timestep(time, (10, 32, 32))  # 37 frames of 256x256
    torch.testing.assert_close(video, time)
    long = diffusion.shift_timestep(time, (37, 90, 160))
    expected = [1000 * 5 * u / (1 + 4 * u) for u in (0, 0.25, 0.5, 1)]
    torch.testing.assert_close(long, torch.tensor(expected))


def test_condition_appends_ones():
    latent = random(2, 3, 4)
    seen = diffusion.condition(latent)
    assert torch.equal(seen[..., :4], latent)
    assert (seen[..., 4:] == 1).all()
    assert seen.shape == (2, 3, 5)


def test_configurations_that_contradict_themselves():
    tiny = PRESETS["tiny"]
    with pytest.raises(ValueError, match="guidance needs negative"):
        SeedVR2Config(
            dit=tiny.dit,
            vae=tiny.vae,
            predictor=tiny.predictor,
            sampling=Sampling(guidance=2.0),
            negative_tokens=0,
        )
    with pytest.raises(ValueError, match="the transformer"):
        SeedVR2Config(dit=PRESETS["3b"].dit, vae=tiny.vae, predictor=tiny.predictor)


@pytest.mark.parametrize(("frames", "padded"), [(1, 1), (2, 5), (5, 5), (6, 9), (9, 9), (49, 49)])
def test_frames_are_padded_to_4n_plus_1(frames, padded):
    assert SIZES.pad_frames(frames) == padded


def test_padding_repeats_the_borders():
    frames = random(3, 3, 4, 5)
    padded = extend(frames, 5, (6, 8))
    assert padded.shape == (5, 3, 6, 8)
    assert torch.equal(padded[:3, :, :4, :5], frames)
    assert torch.equal(padded[3], padded[2])
    assert torch.equal(padded[4], padded[2])
    assert (padded[:, :, 4:] == padded[:, :, 3:4]).all()
    assert (padded[..., 5:] == padded[..., 4:5]).all()
    assert extend(frames, 3, (4, 5)) is frames


def test_resizing_keeps_flat_pictures_and_range():
    flat = torch.full((1, 3, 7, 9), 0.3)
    torch.testing.assert_close(resize(flat, (21, 40)), torch.full((1, 3, 21, 40), 0.3))
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    large = resize(edge, (32, 32))
    assert large.min() >= 0
    assert large.max() <= 1
    torch.testing.assert_close(large, 1 - large.flip(-1), atol=1e-6, rtol=0)
    assert resize(edge, (8, 8)) is edge
