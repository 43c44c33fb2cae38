"""The host's memory beside a card's, and clips shorter than a window."""

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from live_bytes import counting

from skipsr.backbones.seedvr2 import memory_plan
from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.limits import limits_of
from skipsr.backbones.seedvr2.memory_law import AutoencoderLaw
from skipsr.backbones.seedvr2.regional import decode_region_slices
from skipsr.backbones.seedvr2.regional_layers import RegionalStream
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.errors import SettingsError
from skipsr.limits import Limits
from skipsr.nn.causal import Bounds
from skipsr.nn.tails import HostMemory
from skipsr.pipeline.plan import plan_windows
from skipsr.settings import JobSettings

GIB = 2**30
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
TIGHT = Bounds(band=2**15, frames=1, tails=0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Limits]:
    """Limits of 3B on a card of this machine with so many GiB."""

    def limits(gib: int) -> Limits:
        monkeypatch.setattr(memory_plan, "free_card_memory", lambda _: gib * GIB)
        monkeypatch.setattr(memory_plan, "taken_card_memory", lambda _: 0)
        return limits_of(PRESETS["3b"], "cuda:0", 2)

    return limits


def test_no_more_of_the_hosts_memory_is_planned_than_is_free(card: Callable[[int], Limits]):
    limits, source, size = card(12), (360, 640), SIZES["720p"]
    plans = [plan_windows(source, size, limits, JobSettings(), free=n * GIB) for n in (12, 64)]
    (tight, _, plan), (roomy, _, most) = plans
    assert plan is not None
    assert most is not None
    assert plan.host <= 0.8 * 12 * GIB < most.host
    assert 5 < tight < roomy


def test_too_little_of_the_hosts_memory_is_refused_with_what_would_do(
    card: Callable[[int], Limits],
):
    limits, source, size = card(12), (540, 960), SIZES["1080p"]
    wanted = r"windows of 5 frames.* need ([\d.]+) GiB of the host's memory .* 9\.6 GiB"
    with pytest.raises(SettingsError, match=wanted) as told:
        plan_windows(source, size, limits, JobSettings(), free=12 * GIB)
    least = float(str(told.value).split("need ")[1].split(" GiB")[0])
    free = int((least + 0.1) / 0.8 * GIB)
    assert plan_windows(source, size, limits, JobSettings(), free=free)[2] is not None
    with pytest.raises(SettingsError, match="`max_memory`"):
        plan_windows(source, size, limits, JobSettings(max_memory="10GiB"), free=12 * GIB)


def test_the_host_of_a_card_that_is_elsewhere_is_not_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_plan, "free_card_memory", lambda _: None)
    limits, settings = limits_of(PRESETS["3b"], "cuda", 2), JobSettings(max_memory="12GiB")
    _, _, plan = plan_windows((540, 960), SIZES["1080p"], limits, settings, free=12 * GIB)
    assert plan is not None
    assert plan.host > 12 * GIB


def test_what_is_pinned_by_this_process_counts_as_free(
    card: Callable[[int], Limits], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("skipsr.pipeline.plan.free_memory", lambda: 12 * GIB)
    monkeypatch.setattr(torch.cuda, "host_memory_stats", lambda: {"allocated_bytes.current": 2**36})
    _, _, plan = plan_windows((540, 960), SIZES["1080p"], card(12), JobSettings())
    assert plan is not None
    assert plan.host > 12 * GIB


@pytest.mark.parametrize(("frames", "overlap"), [(1, 0), (3, 1), (7, 1), (30, 5)])
def test_a_clip_is_planned_with_no_more_frames_than_it_has(
    card: Callable[[int], Limits], frames: int, overlap: int
):
    found = plan_windows(
        (360, 640), SIZES["720p"], card(80), JobSettings(), free=64 * GIB, frames=frames
    )
    assert found[:2] == (frames, overlap)
    assert found[2] is not None
    assert found[2].window == frames
    assert found[2].reasons[0].startswith(f"window: {frames} frame{'s' * (frames > 1)},")
    asked = JobSettings(window=101, overlap=9)
    again = plan_windows((360, 640), SIZES["720p"], card(80), asked, free=64 * GIB, frames=frames)
    assert again[0] == frames
    assert again[2] is not None
    assert again[2].peak == found[2].peak


def test_a_still_image_needs_no_room_for_earlier_frames(card: Callable[[int], Limits]):
    _, _, plan = plan_windows(
        (1080, 1920), SIZES["4K"], card(23), JobSettings(), free=16 * GIB, frames=1
    )
    assert plan is not None
    assert plan.peak <= 23 * GIB
    assert plan.host < 9 * GIB  # most of it weights
    assert not any("earlier frames" in reason for reason in plan.reasons)


@pytest.mark.parametrize("bounds", [None, replace(TIGHT, band=2**20)])
@pytest.mark.parametrize("name", ["3b", "nano"])
def test_of_one_frame_nothing_is_remembered(name: str, bounds: Bounds | None):
    config, (height, width) = PRESETS[name].vae, (256, 384)
    law, pixels = AutoencoderLaw(config=config, itemsize=2, first=1), height * width
    peaks = law.whole(pixels) if bounds is None else law.bounded(pixels, bounds)
    with torch.device("meta"):
        vae = VideoAutoencoder(config).bfloat16().requires_grad_(False)
        latent = torch.empty(1, config.latent_channels, 1, height // 8, width // 8)
        frames = torch.empty(1, 3, 1, height, width)
    assert law.tails(pixels).decode == law.tails(pixels).encode == 0
    with counting() as live:
        vae.decode(latent, frames if config.base_conditioned else None, bounds=bounds)
    assert live.peak <= peaks.decode
    with counting() as live:
        vae.encode(frames, bounds=bounds)
    assert live.peak <= peaks.encode


def test_of_one_frame_with_norms_parts_take_no_more_than_all_of_it():
    config, (height, width) = PRESETS["3b"], (256, 384)
    keep = torch.zeros(1, height // 16, width // 16, dtype=torch.bool)
    keep[..., : width // 32] = True
    with torch.device("meta"):
        vae = VideoAutoencoder(config.vae).bfloat16().requires_grad_(False)
        latent = torch.empty(1, 16, 1, height // 8, width // 8)
    with counting() as live:
        for _ in decode_region_slices(vae, latent, None, keep, 4):
            pass
    assert (
        live.peak
        <= AutoencoderLaw(config=config.vae, itemsize=2, first=1).whole(height * width).decode
    )


@pytest.mark.parametrize(("name", "tails"), [("3b", 2**20), ("nano", 0), ("nano", 2**20)])
def test_the_law_of_what_waits_on_the_host_is_what_is_taken_there(name: str, tails: int):
    """And masks take hardly more than frames that are decoded whole."""
    config, (height, width) = PRESETS[name].vae, (128, 192)
    law, pixels = AutoencoderLaw(config=config, itemsize=2), height * width
    away = law.tails(pixels).decode - law.tails(pixels, tails).decode
    bounds = Bounds(band=2**28, frames=4, tails=tails, away=away)
    with torch.device("meta"):
        vae = VideoAutoencoder(config).bfloat16().requires_grad_(False)
        latent = torch.empty(1, config.latent_channels, 2, height // 8, width // 8)
        frames = torch.empty(1, 3, 5, height, width)
    taken: list[int] = []

    def empty(size: int) -> torch.Tensor:
        taken.append(size)
        return torch.empty(size, dtype=torch.uint8, device="meta")

    vae.host_memory = HostMemory(empty)
    base = frames if config.base_conditioned else None
    with torch.no_grad():
        for _ in range(2):
            vae.encode(frames, bounds=bounds)
            vae.decode(latent, base, bounds=bounds)
        assert sum(taken) == law.waiting(pixels, bounds)
        assert away <= sum(taken) <= 1.3 * away
        for columns in (2, 5):
            keeps = torch.ones(2, height // 16, width // 16, dtype=torch.bool)
            keeps[1:, :, :columns] = False
            for _ in decode_region_slices(vae, latent, base, keeps, 4, bounds=bounds):
                pass
    assert sum(taken) <= 1.2 * law.waiting(pixels, bounds)


def test_a_traceback_that_is_kept_keeps_no_memory_of_the_host():
    """As a notebook keeps that of a cell that was interrupted."""
    config, (height, width) = PRESETS["3b"].vae, (128, 192)
    with torch.device("meta"):
        vae = VideoAutoencoder(config).bfloat16().requires_grad_(False)
        latent = torch.empty(1, config.latent_channels, 3, height // 8, width // 8)
        frames = torch.empty(1, 3, 9, height, width)
    away = AutoencoderLaw(config=config, itemsize=2).tails(height * width).decode
    bounds = Bounds(band=2**28, frames=4, tails=0, away=away)
    taken: list[int] = []

    def empty(size: int) -> torch.Tensor:
        taken.append(size)
        return torch.empty(size, dtype=torch.uint8, device="meta")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    keeps = torch.ones(3, height // 16, width // 16, dtype=torch.bool)
    keeps[1:, :, :2] = False
    vae.host_memory = HostMemory(empty)
    calls: tuple[Callable[[], object], ...] = (
        lambda: vae.encode(frames, bounds=bounds),
        lambda: vae.decode(latent, bounds=bounds),
        lambda: list(decode_region_slices(vae, latent, None, keeps, 4, bounds=bounds)),
    )
    with torch.no_grad():
        for call in calls:
            call()
        before, kept = list(taken), list[BaseException]()
        with (
            patch("skipsr.backbones.seedvr2.vae.activated", interrupt),
            patch.object(RegionalStream, "activated", interrupt),
        ):
            for call in calls:
                with pytest.raises(KeyboardInterrupt) as told:
                    call()
                kept.append(told.value)
        for call in calls:
            call()
    assert taken == before
