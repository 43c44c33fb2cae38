"""How far a window is, is told while it is at work, by what its stages take."""

from dataclasses import replace

import pytest
import torch
from made_models import LIKE_3B, LIKE_7B, TINY, make_model, random

from skipsr.backbones.seedvr2.config import SeedVR2Config
from skipsr.backbones.seedvr2.cost_law import stage_work
from skipsr.backbones.seedvr2.execution import Execution
from skipsr.backbones.seedvr2.regional import decode_regions
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.errors import Cancelled
from skipsr.limits import MemoryPlan
from skipsr.nn.causal import Bounds
from skipsr.settings import SkipSettings
from skipsr.skipping.route import Route
from skipsr.tracing import Trace, span

TIGHT = Bounds(band=2**17, frames=1, tails=0)
CONFIGS = {
    "sees the base": TINY,
    "as published": replace(
        TINY, vae=replace(TINY.vae, groups=4, base_conditioned=False, encoder_blocks=2)
    ),
    "time halved once": replace(TINY, vae=replace(TINY.vae, temporal_levels=1)),
}


def clip(count: int = 9) -> Clip:
    """Noise on the left, one colour on the right."""
    frames = torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    frames[..., 16:] = 0.5
    return Clip(frames)


def shares_of(upscaler: SeedVR2Upscaler) -> dict[str, list[float]]:
    """What is told of a clip, by stage."""
    told: dict[str, list[float]] = {}
    with Trace(lambda stage: told.setdefault(stage, []).append(trace.share)) as trace:
        upscaler.upscale(clip(), (96, 128))
    return told


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("bounds", [None, TIGHT], ids=["whole", "in bands"])
def test_the_autoencoder_takes_what_was_expected(config: SeedVR2Config, bounds: Bounds | None):
    model, frames = make_model(config), torch.rand(1, 3, 13, 48, 64)
    work = stage_work(config, config.sampling, frames.numel() // 3)
    assert (work["encode"] == 0) == config.vae.base_conditioned  # patches are next to nothing
    for stage in ("encode", "decode"):
        with Trace() as trace, span(stage), torch.inference_mode():
            trace.expect({stage: 2 * work[stage] or 1})
            if stage == "encode":
                latent = model.encode(frames, bounds)
            else:
                list(model.decode_slices(latent, frames, bounds))
        if work[stage]:
            assert trace.share == pytest.approx(0.5, abs=0.02), stage


def test_on_canvases_a_first_frame_in_bands_takes_what_it_takes_at_once():
    config, shares = CONFIGS["as published"], list[float]()
    vae, latent = make_model(config).vae, random(1, config.vae.latent_channels, 3, 6, 8)
    keeps = torch.ones(3, 3, 4, dtype=torch.bool)
    keeps[1:, :, 2:] = False
    for bounds in (None, Bounds(band=1, frames=1, tails=0)):
        with Trace() as trace, span("decode"), torch.inference_mode():
            trace.expect({"decode": stage_work(config, config.sampling, 9 * 48 * 64)["decode"]})
            decode_regions(vae, latent, None, keeps, 1, bounds=bounds)
        shares.append(trace.share)
    assert 0.4 < shares[0] < 0.8
    assert shares[1] == pytest.approx(shares[0], rel=1e-3)


@pytest.mark.parametrize("config", [LIKE_3B, LIKE_7B], ids=["like 3b", "like 7b"])
def test_the_transformer_takes_its_matrices(config):
    config = replace(TINY, dit=config)
    model, sampling = make_model(config), replace(config.sampling, steps=2, guidance=2.0)
    work = stage_work(config, sampling, 2 * 4 * 6 * 1024)
    matrices = sum(p.numel() for p in model.dit.blocks[0].parameters() if p.ndim == 2)
    video = matrices / 2  # text has as many of its own in the first block
    assert work["denoise"] == 48 * config.dit.layers * 4 * video
    route, told = Route.dense((2, 4, 6)), list[float]()
    with Trace(lambda _: told.append(trace.share)) as trace, span("denoise"):
        trace.expect({"denoise": work["denoise"] / 4})
        model.velocity(random(2, 8, 12, 4), random(2, 8, 12, 4), torch.tensor(1000.0), route)
    assert told[1:] == pytest.approx([(i + 1) / config.dit.layers for i in range(3)])


@pytest.mark.parametrize("groups", [0, 4], ids=["without norms", "with norms"])
@pytest.mark.parametrize("way", ["dense", "regions", "in bands"])
def test_a_window_is_told_in_many_steps_to_its_end(groups: int, way: str):
    config = CONFIGS["as published"] if groups else TINY
    skip = SkipSettings(dense=True) if way == "dense" else SkipSettings()
    upscaler = SeedVR2Upscaler("seedvr2:tiny", make_model(config), skip)
    if way == "in bands":
        plan = MemoryPlan(window=9, stages={}, reasons=(), execution=Execution(bounds=TIGHT))
        upscaler.arrange(plan)
    told = shares_of(upscaler)
    every = [share for shares in told.values() for share in shares]
    assert every == sorted(every)
    assert every[-1] == pytest.approx(1, abs=0.06)
    assert len(told["encode"]) > 10 or not groups
    assert len(told["denoise"]) >= 2
    assert len(told["decode"]) > 20


def test_a_window_can_be_cancelled_and_run_again(tiny_upscaler: SeedVR2Upscaler):
    whole = tiny_upscaler.upscale(clip(), (96, 128)).clip.frames

    def stop(_: str) -> None:
        if trace.share > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled), Trace(stop) as trace:
        tiny_upscaler.upscale(clip(), (96, 128))
    assert torch.equal(tiny_upscaler.upscale(clip(), (96, 128)).clip.frames, whole)
