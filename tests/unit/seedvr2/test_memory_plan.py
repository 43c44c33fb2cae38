"""What fits into which memory is known beforehand, and every way gives the same picture."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from live_bytes import counting
from made_models import TINY, make_clip, make_model

from skipsr.backbones.contract import Upscaled, arrange
from skipsr.backbones.seedvr2.assemble import place_networks
from skipsr.backbones.seedvr2.clip_masks import ClipMasks
from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.execution import CanvasPeaks, CanvasRoom, Execution
from skipsr.backbones.seedvr2.limits import limits_of
from skipsr.backbones.seedvr2.memory_law import AutoencoderLaw, TransformerLaw
from skipsr.backbones.seedvr2.memory_plan import LONGEST, WindowPlanner
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.errors import SettingsError
from skipsr.limits import MemoryPlan
from skipsr.nn.causal import Bounds
from skipsr.nn.residence import Residence
from skipsr.pipeline.plan import plan_windows
from skipsr.settings import JobSettings, SkipSettings
from skipsr.skipping.route import Route
from skipsr.weights.place import Placement

GIB = 2**30
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "1440p": (1440, 2560), "4K": (2160, 3840)}
TIGHT = Bounds(band=2**15, frames=1, tails=0)
CPU = Placement(device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def laws() -> dict[str, WindowPlanner]:
    return {name: WindowPlanner(PRESETS[name], "cuda", 2) for name in ("3b", "7b")}


@pytest.mark.parametrize(
    ("model", "size", "memory"),
    [("3b", "1080p", 12), ("3b", "720p", 8), ("3b", "4K", 24), ("7b", "720p", 16)],
)
def test_what_people_have_is_enough(
    laws: dict[str, WindowPlanner], model: str, size: str, memory: int
):
    plan = laws[model].fit(memory * GIB, SIZES[size], SIZES[size], None, LONGEST)
    assert plan is not None
    assert plan.peak <= memory * GIB
    assert plan.window >= 9
    assert len(plan.reasons) >= 3


@pytest.mark.parametrize(
    ("model", "memory", "share", "residence"),
    [("7b", 23, 0.5, "device"), ("3b", 15.2, 0.28, "device"), ("7b", 11.3, 0.28, "in turn")],
)
def test_what_is_quantised_takes_no_more_than_its_file(
    laws: dict[str, WindowPlanner], model: str, memory: float, share: float, residence: Residence
):
    """Shares of sixteen bits: fp8 half of them, Q4_K 0.28. In sixteen bits it would not be so."""
    weights, size, budget = laws[model]._weights, SIZES["720p"], int(memory * GIB)
    law = WindowPlanner(PRESETS[model], "cuda", 2, stored=int(share * weights.transformer))
    assert law._weights.transformer == pytest.approx(share * weights.transformer, rel=1e-6)
    assert 0.05 * GIB < law._weights.opened < 0.5 * GIB
    plans = [one.fit(budget, size, size, None, LONGEST) for one in (law, laws[model])]
    residences = [plan.residence if plan else None for plan in plans]
    assert residences[0] == residence
    assert residences[1] not in (residence, None)


def test_more_memory_gives_no_shorter_windows(laws: dict[str, WindowPlanner]):
    for size in SIZES.values():
        plans = [laws["7b"].fit(n * GIB, size, size, None, LONGEST) for n in (8, 16, 24, 80)]
        windows = [plan.window if plan else 0 for plan in plans]
        assert windows == sorted(windows)
    assert laws["3b"].fit(80 * GIB, SIZES["720p"], SIZES["720p"], None, LONGEST).window == 101  # type: ignore[union-attr]


def test_too_little_is_refused_with_what_would_do():
    size = SIZES["1080p"]
    limits = limits_of(PRESETS["3b"], "cuda", 2)
    with pytest.raises(SettingsError, match=r"windows of 5 frames.*at least (\d+)MiB") as told:
        plan_windows(size, size, limits, JobSettings(scale=1, max_memory="3GiB"))
    least = str(told.value).split("at least ")[1].split(",")[0]
    window, _, plan = plan_windows(size, size, limits, JobSettings(scale=1, max_memory=least))
    assert window >= 5
    assert plan is not None
    with pytest.raises(SettingsError, match="windows of 101 frames"):
        plan_windows(size, size, limits, JobSettings(scale=1, max_memory="4GiB", window=101))


def test_a_processor_has_its_own_windows():
    """As long as suits it, unless less memory is told."""
    limits, size = limits_of(PRESETS["nano"], "cpu", 4), (360, 640)
    roomy, _, plan = plan_windows((90, 160), size, limits, JobSettings(max_memory="32GiB"))
    assert plan is not None
    assert (roomy, plan.execution) == (25, Execution())
    _, _, plan = plan_windows((90, 160), size, limits, JobSettings(max_memory="1.3GiB"))
    assert plan is not None
    assert plan.peak < 1.3 * GIB
    assert plan.execution != Execution()


@pytest.mark.parametrize(
    ("told", "free", "roomy"), [("32GiB", 64, True), ("32GiB", 1, False), ("1.7GiB", 64, False)]
)
def test_freed_memory_is_kept_where_half_as_much_again_is_there(told: str, free: int, roomy: bool):
    limits, settings = limits_of(PRESETS["nano"], "cpu", 4), JobSettings(max_memory=told)
    _, _, plan = plan_windows((90, 160), (360, 640), limits, settings, free=free * GIB)
    assert plan is not None
    assert plan.roomy == roomy


@pytest.fixture(scope="module")
def whole() -> Upscaled:
    """With all memory there is."""
    upscaler = SeedVR2Upscaler("seedvr2:tiny", make_model(), SkipSettings(dense=True))
    return upscaler.upscale(make_clip(7, 12, 20), (48, 80))


@pytest.mark.parametrize("weights", ["device", "in turn", "streamed"])
@pytest.mark.parametrize("bounds", [None, TIGHT])
def test_every_way_gives_the_same_frames(
    whole: Upscaled, weights: Residence, bounds: Bounds | None
):
    model = make_model()
    plan = MemoryPlan(window=9, stages={}, execution=Execution(weights=weights, bounds=bounds))
    place_networks(model, CPU, plan)
    upscaler = SeedVR2Upscaler("seedvr2:tiny", model, SkipSettings(dense=True))
    upscaler.arrange(plan)
    for _ in range(2):  # weights come and go
        found = upscaler.upscale(make_clip(7, 12, 20), (48, 80))
        torch.testing.assert_close(found.clip.frames, whole.clip.frames, atol=1e-5, rtol=1e-5)


def test_skipped_cells_stay_plain_within_bounds():
    clip, size = make_clip(5, 24, 40), (96, 160)
    clip.frames[..., :20] = 0.5
    upscaler = SeedVR2Upscaler("seedvr2:tiny", make_model(), SkipSettings(quality=0.3))
    usual = upscaler.upscale(clip, size)
    upscaler.arrange(MemoryPlan(window=5, stages={}, execution=Execution(bounds=TIGHT)))
    found = upscaler.upscale(clip, size)
    plain = upscaler.upsample(clip, size).frames
    assert 0 < usual.computed < 1
    assert found.computed == usual.computed
    here, there = (one.clip.frames == plain for one in (found, usual))
    assert 0 < here.float().mean() < 1
    # of what was refined a pixel may round to the plain one
    assert (here != there).float().mean() < 1e-3


def test_decoding_skips_within_bounds_where_canvases_fit():
    clip, size = make_clip(9, 24, 40), (96, 160)
    clip.frames[..., :20] = 0.5
    upscaler = SeedVR2Upscaler("seedvr2:tiny", make_model(), SkipSettings(quality=0.3))
    usual = upscaler.upscale(clip, size).compute_map.stages
    assert 0 < usual["decode"] < 0.9
    found: list[Upscaled] = []
    for memory in (90, 10):
        peaks = CanvasPeaks(first=0, always=0, layers={4: 100}, tails=0)
        room = CanvasRoom(memory=memory, peaks=peaks)
        execution = Execution(bounds=TIGHT, canvases=room)
        upscaler.arrange(MemoryPlan(window=9, stages={}, execution=execution))
        found.append(upscaler.upscale(clip, size))
    assert found[0].compute_map.stages == usual
    assert found[1].compute_map.stages == usual | {"decode": 1.0}
    spent = [one.compute_map.spent for one in found]
    assert spent[0] < spent[1] < 1  # type: ignore[operator]


def test_the_more_is_kept_the_fewer_frames_are_run_together():
    peaks = CanvasPeaks(first=20, always=0, layers={4: 100, 2: 60, 1: 40}, tails=80)
    room = CanvasRoom(memory=60, peaks=peaks, away=12, together=2)
    chosen = [room.bounds(share) for share in (0.05, 0.2, 0.4, 0.5, 0.55, 0.6)]
    # in the last 12 bytes would have to cross the bus for a frame, whichever way, instead of 6
    expected = [(4, 40), (4, 40), (2, 36), (1, 40), (1, 38), None]
    assert [bounds and (bounds.frames, bounds.tails) for bounds in chosen] == expected
    assert (room.most, room.peak) == (0.55, 60)


@pytest.mark.parametrize(
    ("memory", "most", "peak"), [(4, 0.0, 0), (5, 0.05, 5), (59, 0.55, 55), (1000, 0.9, 90)]
)
def test_the_most_that_fits_is_told_in_twentieths(memory: int, most: float, peak: int):
    peaks = CanvasPeaks(first=0, always=0, layers={1: 100}, tails=0)
    room = CanvasRoom(memory=memory, peaks=peaks)
    assert (room.most, room.peak) == (most, peak)
    assert room.bounds(0.95) is None  # so much is run whole


def test_canvases_are_for_what_is_kept_after_the_first_frame():
    """That is decoded whole, and of the others the one that keeps most must fit."""
    peaks = CanvasPeaks(first=0, always=0, layers={1: 100}, tails=0)
    execution = Execution(bounds=TIGHT, canvases=CanvasRoom(memory=50, peaks=peaks))
    kept = torch.ones(3, 2, 2, dtype=torch.bool)
    kept[2] = False
    assert execution.on_canvases(kept) is None
    kept[1, 0] = False
    assert execution.on_canvases(kept) == replace(TIGHT, band=2**26)
    assert execution.on_canvases(kept[:1]) is None
    assert Execution(bounds=TIGHT).on_canvases(kept) is None


@pytest.mark.parametrize(
    ("memory", "size", "kept"),
    [
        *((8, "720p", 0.5), (16, "720p", 0.9), (8, "1080p", 0.4), (24, "1080p", 0.6)),
        *((12, "1440p", 0.35), (24, "4K", 0.3)),
    ],
)
def test_what_people_have_lets_decoding_skip(
    laws: dict[str, WindowPlanner], memory: int, size: str, kept: float
):
    plan = laws["3b"].fit(memory * GIB, SIZES[size], SIZES[size], None, LONGEST)
    assert plan is not None
    assert isinstance(plan.execution, Execution)
    assert plan.execution.canvases is not None
    assert plan.execution.canvases.most >= kept
    assert plan.peak <= memory * GIB
    assert f"at most {plan.execution.canvases.most:.0%}" in plan.reasons[-1]


def test_whole_layers_come_before_weights_that_stay(laws: dict[str, WindowPlanner]):
    """Bands cost more time than weights that cross the bus once a window."""
    plan = laws["3b"].fit(12 * GIB, (480, 854), (480, 854), None, LONGEST)
    assert plan is not None
    assert plan.execution == Execution(weights="in turn")


def test_a_job_without_a_plan_does_not_run_by_that_of_the_job_before():
    upscaler = SeedVR2Upscaler("seedvr2:tiny", make_model(), SkipSettings(dense=True))
    bounded = MemoryPlan(window=5, stages={}, execution=Execution(bounds=TIGHT))
    clip = make_clip(1, 16, 16)
    arrange(upscaler, bounded)
    assert upscaler._run_as(clip, (32, 32)).bounds == TIGHT
    arrange(upscaler, None)
    assert upscaler._run_as(clip, (32, 32)) == Execution()


def test_weights_are_in_the_hosts_memory_while_they_wait():
    model = make_model()
    held = [p.data_ptr() for p in model.dit.parameters()]
    shown = deepcopy(model).dit.state_dict()
    plan = MemoryPlan(window=5, stages={}, execution=Execution(weights="streamed"))
    place_networks(model, CPU, plan)
    copies: list[int] = []
    last = model.dit.blocks[-1]
    last.register_forward_pre_hook(
        lambda block, _: copies.append(next(block.parameters()).data_ptr())
    )
    dense = SeedVR2Upscaler("seedvr2:tiny", model, SkipSettings(dense=True))
    dense.upscale(make_clip(1, 16, 16), (32, 32))
    assert copies
    assert copies[0] not in held
    assert [p.data_ptr() for p in model.dit.parameters()] == held
    torch.testing.assert_close(dict(model.dit.state_dict()), dict(shown))


@pytest.mark.parametrize("bounds", [None, Bounds(band=2**27, frames=2, tails=2**40)])
def test_the_autoencoders_law_is_what_is_counted(bounds: Bounds | None):
    config, (height, width) = PRESETS["3b"].vae, (512, 768)
    law, pixels = AutoencoderLaw(config=config, itemsize=2), height * width
    tails = law.tails(pixels)
    peaks = law.whole(pixels) if bounds is None else law.bounded(pixels, bounds)
    more = (0, 0) if bounds is None else (tails.encode, tails.decode)
    with torch.device("meta"):
        vae = VideoAutoencoder(config).bfloat16().requires_grad_(False)
        latent = torch.empty(1, 16, 2, height // 8, width // 8)
        frames = torch.empty(1, 3, 5, height, width)
    with counting() as live:
        vae.decode(latent, bounds=bounds)
    assert (peaks.decode + more[1]) / live.peak == pytest.approx(1, abs=0.1)
    assert live.largest < 2**31
    with counting() as live:
        vae.encode(frames, bounds=bounds)
    assert (peaks.encode + more[0]) / live.peak == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kept", [0.25, 0.75])
@pytest.mark.parametrize(("frames", "tails"), [(4, 2**40), (2, 0), (1, 2**40)])
def test_the_law_of_canvases_is_what_is_counted(kept: float, frames: int, tails: int):
    config, (height, width) = PRESETS["3b"].vae, (512, 768)
    small = replace(TINY.dit, in_channels=33, out_channels=16)
    keep = torch.zeros(3, height // 16, width // 16, dtype=torch.bool)
    keep.view(3, -1, 3, 16)[..., : round(16 * kept)] = True  # in each strip three runs
    with torch.device("meta"):
        model = SeedVR2(replace(PRESETS["3b"], dit=small)).bfloat16().requires_grad_(False)
        latent = torch.empty(3, height // 8, width // 8, 16)
        source = torch.empty(1, 3, 9, height, width)
    model.vae.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    upscaler = SeedVR2Upscaler("seedvr2:tiny", model, SkipSettings(dense=True))
    masks = ClipMasks(keep, keep, [None] * 9)
    bounds = Bounds(band=2**26, frames=frames, tails=tails)
    with counting() as live:
        for _ in upscaler._refined(latent, source, bounds, masks):
            pass
    law, pixels = AutoencoderLaw(config=config, itemsize=2), height * width
    told = law.canvases(pixels).within(kept, bounds)
    assert told / live.peak == pytest.approx(1.03, abs=0.1)
    assert live.largest < 2**31


@pytest.mark.parametrize("name", ["3b", "7b"])
def test_the_transformers_law_is_what_is_counted(name: str):
    config = replace(PRESETS[name], dit=replace(PRESETS[name].dit, layers=2, separate_layers=1))
    law = TransformerLaw(config=config.dit, itemsize=2, text_tokens=58)
    for grid in ((1, 45, 80), (9, 45, 80)):
        with torch.device("meta"):
            model = SeedVR2(config).bfloat16().requires_grad_(False)
        with counting() as live:
            route = Route.dense(grid)
            geometry = model.dit.geometry(route, 58)
            cells = torch.empty(route.kept, 4, 33, dtype=torch.bfloat16, device="meta")
            model.dit(cells, model.text.positive, torch.empty((), device="meta"), geometry)
        assert law.peak(grid) / live.peak == pytest.approx(1, abs=0.1)


def test_memory_that_is_just_enough_is_used(laws: dict[str, WindowPlanner]):
    """The card's as well as the host's."""
    law, size = laws["3b"], SIZES["720p"]
    plan = law.fit(80 * GIB, size, size, None, 25)
    assert plan is not None
    assert (plan.window, plan.execution) == (25, Execution())
    assert plan.reasons[:2] == (
        "window: 25 frames, 7 of the latent; as many as are of use",
        "weights: all 6.8 GiB stay on the device",
    )
    assert law.fit(plan.peak, size, size, None, 25, host=plan.host) == plan
    for memory, host in ((plan.peak - 1, plan.host), (plan.peak, plan.host - 1)):
        less = law.fit(memory, size, size, None, 25, host=host)
        assert less is not None
        assert (less.window, less.execution) != (25, Execution())


@pytest.mark.parametrize(("model", "size"), [("3b", "1080p"), ("7b", "720p"), ("3b", "4K")])
def test_the_least_memory_is_enough_and_little_less_is_not(
    laws: dict[str, WindowPlanner], model: str, size: str
):
    law, sides = laws[model], SIZES[size]
    least = law.least(sides, sides, None)
    plan = law.fit(least, sides, sides, None, LONGEST)
    assert plan is not None
    assert law.fit(int(0.97 * least), sides, sides, None, LONGEST) is None


def test_where_canvases_do_not_fit_frames_are_decoded_whole(
    laws: dict[str, WindowPlanner], monkeypatch: pytest.MonkeyPatch
):
    """Of no model here: their canvases take less than a bounded encoder does."""
    peaks = CanvasPeaks(first=2**40, always=0, layers={4: 0, 2: 0, 1: 0}, tails=0)
    monkeypatch.setattr(AutoencoderLaw, "canvases", lambda *_: peaks)
    plan = laws["3b"].fit(8 * GIB, SIZES["720p"], SIZES["720p"], None, LONGEST)
    assert plan is not None
    assert isinstance(plan.execution, Execution)
    assert plan.execution.bounds is not None
    assert plan.execution.canvases is None
    assert plan.reasons[-1].startswith("skipping: frames are decoded whole")


@pytest.mark.parametrize(("memory", "band"), [(6, 192), (8, 256), (16, 512), (24, 512)])
def test_bands_are_a_share_of_the_memory_up_to_a_size(
    laws: dict[str, WindowPlanner], memory: int, band: int
):
    """Fewer are faster."""
    plan = laws["3b"].fit(memory * GIB, SIZES["1080p"], SIZES["1080p"], 9, LONGEST)
    assert plan is not None
    assert any(f"in bands of rows of {band} MiB" in reason for reason in plan.reasons)


def test_on_a_processor_pictures_count_as_well():
    """Each frame's source and result are there at least, in float32."""
    law, size = WindowPlanner(PRESETS["nano"], "cpu", 4), (360, 640)
    short, long = (law.live(frames, size, Execution(bounds=TIGHT)) for frames in (25, 101))
    for stage in short:
        assert long[stage] - short[stage] > (101 - 25) * 2 * 12 * 360 * 640
    assert law.budget(None) is None
    assert 5 * GIB < law.budget(10 * GIB) < 9 * GIB  # type: ignore[operator]


def test_the_smallest_pictures_take_what_kernels_and_python_do(laws: dict[str, WindowPlanner]):
    """And some memory is lost between blocks."""
    law = WindowPlanner(TINY, "cuda", 2)
    assert min(law.stages(5, (16, 16), Execution()).values()) > 250 * 2**20
    live = laws["3b"].live(25, SIZES["4K"], Execution())
    assert laws["3b"].stages(25, SIZES["4K"], Execution())["denoise"] > 1.05 * live["denoise"]


def test_of_streamed_weights_two_blocks_are_on_the_device(laws: dict[str, WindowPlanner]):
    law, weights = laws["7b"], laws["7b"]._weights
    whole, streamed = (
        law.live(9, SIZES["720p"], Execution(weights=each, bounds=TIGHT))["denoise"]
        for each in ("device", "streamed")
    )
    assert whole - streamed == weights.blocks - 2 * weights.block


def test_decoding_takes_what_the_larger_of_both_ways_does(laws: dict[str, WindowPlanner]):
    """Frames may be decoded whole, or on canvases."""
    law, size = laws["3b"], SIZES["1080p"]
    plan = law.fit(12 * GIB, size, size, None, LONGEST)
    assert plan is not None
    assert isinstance(plan.execution, Execution)
    assert plan.execution.canvases is not None
    whole = law.stages(plan.window, size, replace(plan.execution, canvases=None))["decode"]
    assert whole < plan.stages["decode"] <= 12 * GIB
    none = replace(plan.execution, canvases=replace(plan.execution.canvases, memory=0))
    assert law.stages(plan.window, size, none)["decode"] == whole


def test_nano_is_planned_too():
    assert TINY.vae.base_conditioned
    law = WindowPlanner(PRESETS["nano"], "cuda", 2)
    plan = law.fit(2 * GIB, (180, 320), (720, 1280), None, LONGEST)
    assert plan is not None
    assert plan.window > 25
