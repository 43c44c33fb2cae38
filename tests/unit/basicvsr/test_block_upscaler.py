"""The upscaler that skips blocks: sizes, settings, and that its compute map is true."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip, perturb
from torch import Tensor

from skipsr.backbones.basicvsr.block_skipping import BlockSkippingUpscaler
from skipsr.backbones.basicvsr.calibrate import calibrate, threshold_for
from skipsr.backbones.basicvsr.config import PRESETS, RoutingConfig
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.options import BasicVSROptions
from skipsr.errors import SettingsError, WeightsError
from skipsr.loading import load_upscaler
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.train.run import export

SIZE = (18, 25)  # with tiles of 8: three rows of 6, four columns of 7
CLIP = make_clip(4, *SIZE, start=3)
BLOCKS = BasicVSROptions(skip="blocks")


def make_network(usual: float = 1.0) -> BasicVSR:
    """`usual` is what it spends unless told otherwise."""
    torch.manual_seed(0)
    routing = RoutingConfig(tile=8, reference="depth", budget=usual)
    model = BasicVSR(replace(PRESETS["tiny"], routing=routing))
    perturb(model)
    perturb(model.routers(), seed=1, spread=3.0)
    return model.eval().requires_grad_(False)


@cache
def thresholds() -> Tensor:
    """Found on `CLIP` itself."""
    return calibrate(make_network(), [CLIP.frames]).clone()


def make_model(usual: float = 1.0) -> BasicVSR:
    model = make_network(usual)
    model.calibration.copy_(thresholds())
    return model


def upscaler(usual: float = 1.0, **skip: object) -> BlockSkippingUpscaler:
    return BlockSkippingUpscaler(
        "basicvsr:tiny",
        make_model(usual),
        SkipSettings(**skip),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("size", [(72, 100), (36, 50), (100, 81), (18, 25), (7, 9)])
def test_other_sizes_are_resized_from_four_times(size: tuple[int, int]):
    model = upscaler()
    found = model.upscale(CLIP, size)
    assert found.clip.start == 3
    large = make_model()(CLIP.frames[None])[0]
    expected = F.interpolate(large, size, mode="bicubic", antialias=True, align_corners=False)
    if size == (72, 100):
        expected = large
    torch.testing.assert_close(found.clip.frames, expected.clamp(0, 1), atol=1e-5, rtol=0)
    assert found.compute_map.units_run == found.compute_map.units_total == 2 * 3 * 4 * 3 * 4
    assert found.computed == 1


def test_a_seed_changes_nothing():
    model = upscaler(budget=0.6)
    one, other = (model.upscale(CLIP, (40, 60), seed=seed) for seed in (0, 7))
    assert torch.equal(one.clip.frames, other.clip.frames)


@pytest.mark.parametrize("size", [(72, 100), (31, 47)])
@pytest.mark.parametrize(
    "skip", [{"dense": True}, {"threshold": 0.4}, {"threshold": 1.0}, {"budget": 0.6}]
)
def test_work_is_what_upscaling_reports(skip: dict[str, object], size: tuple[int, int]):
    model = upscaler(**skip)
    done, foretold = model.upscale(CLIP, size).compute_map, model.compute_map(CLIP, size)
    assert torch.equal(done.fractions, foretold.fractions)
    assert (done.cell_size, done.units_run, done.units_total) == (
        foretold.cell_size, foretold.units_run, foretold.units_total,
    )  # fmt: skip
    assert done.fractions.shape == (4, 3, 4)
    assert done.units_total == 2 * 3 * done.fractions.numel()
    assert done.units_run == pytest.approx(done.fractions.sum().item() * 2 * 3, abs=0.01)
    assert done.cell_size == (round(6 * size[0] / 18), round(7 * size[1] / 25))


def test_frames_of_both_ends_run_every_block_of_one_direction():
    """The first of each direction's order of travel; with a threshold of one nothing else runs."""
    share = upscaler(threshold=1.0).compute_map(CLIP, (72, 100)).fractions
    assert torch.equal(share, torch.tensor([0.5, 0.0, 0.0, 0.5])[:, None, None].expand(4, 3, 4))
    single = make_clip(1, *SIZE)
    assert (upscaler(threshold=1.0).compute_map(single, (72, 100)).fractions == 1).all()


def test_places_are_where_blocks_ran():
    """What moves in one corner alone is computed there."""
    model = make_model()
    assert model.router_backward is not None
    for router in (model.router_backward, model.router_forward):
        linear = router.fc  # type: ignore[union-attr]
        linear.weight.fill_(100.0)
        linear.bias.fill_(-50.0)
    with torch.no_grad():
        for parameter in model.spynet.parameters():
            parameter.zero_()  # everything stands still
    still = CLIP.frames[:1].repeat(4, 1, 1, 1)
    still[:, :, :6, :7] = torch.rand(4, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    clip = replace(CLIP, frames=still)
    computed = BlockSkippingUpscaler("x", model, SkipSettings(threshold=0.9)).compute_map(
        clip, (72, 100)
    )
    inner = computed.fractions[1:-1]
    assert (inner[:, 0, 0] > 0).all()
    assert inner[:, 0, 0].mean() > inner[:, 2, 3].mean()


# settings


def test_a_budget_spends_about_its_share():
    model = upscaler()
    shares = [upscaler(budget=b).compute_map(CLIP, (72, 100)).fraction for b in (0.5, 0.7, 0.9)]
    assert shares == sorted(shares)
    assert shares[0] < 0.8 < shares[2]
    assert model.compute_map(CLIP, (72, 100)).fraction == 1


def test_a_full_budget_and_a_threshold_of_zero_are_dense():
    frames = upscaler(dense=True).upscale(CLIP, (72, 100)).clip.frames
    for skip in ({"budget": 1.0}, {"threshold": 0.0}):
        found = upscaler(**skip).upscale(CLIP, (72, 100))
        assert found.computed == 1
        torch.testing.assert_close(found.clip.frames, frames, atol=1e-5, rtol=0)


def test_what_a_model_spends_unless_told():
    usual, asked, dense = (
        upscaler(usual=0.6, **skip).compute_map(CLIP, (72, 100)).units_run
        for skip in ({}, {"budget": 0.6}, {"dense": True})
    )
    assert usual == asked < dense


def without_routers(usual: float = 1.0) -> BasicVSR:
    model = make_model(usual)
    model.router_backward = model.router_forward = None
    return model


@pytest.mark.parametrize("skip", [{"threshold": 0.5}, {"threshold": 0.0}])
def test_a_threshold_needs_routers(skip: dict[str, float]):
    model = BlockSkippingUpscaler("x", without_routers(), SkipSettings(**skip))
    with pytest.raises(WeightsError, match="no routers: leave out `budget` and `threshold`"):
        model.upscale(CLIP, (72, 100))


def test_without_routers_every_block_runs_unless_told():
    model = BlockSkippingUpscaler("x", without_routers(usual=0.5), SkipSettings())
    assert model.upscale(CLIP, (72, 100)).computed == 1


def test_a_budget_needs_thresholds():
    model = make_model()
    model.calibration.zero_()
    with pytest.raises(WeightsError, match="not calibrated"):
        BlockSkippingUpscaler("x", model, SkipSettings(budget=0.5))


def test_a_budget_below_what_always_runs():
    with pytest.raises(SettingsError, match=r"`budget` 0.01 is less than what this model always"):
        upscaler(budget=0.01)


def test_the_budget_that_a_refusal_names_is_taken():
    calibration = torch.tensor([[0.643, 1.0], [1.0, 0.0]])
    with pytest.raises(SettingsError) as refused:
        threshold_for(calibration, 0.01)
    least = float(str(refused.value).split()[-1])
    assert threshold_for(calibration, least) == pytest.approx(1 - (least - 0.643) / 0.357)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return export(BasicVSR(PRESETS["tiny"]), tmp_path / "tiny.safetensors", {})


def test_settings_of_regions_are_refused(file: Path):
    runtime = RuntimeSettings(weights=file, device="cpu", dtype="float32")
    with pytest.raises(SettingsError, match="`tau` is not for skipped blocks"):
        load_upscaler("basicvsr:tiny", SkipSettings(tau=0.001), runtime, BLOCKS)


def test_dense_is_the_plain_network_whatever_is_skipped(file: Path):
    runtime = RuntimeSettings(weights=file, device="cpu", dtype="float32")
    patches = BasicVSROptions(skip="blocks", patches=True)
    found = load_upscaler("basicvsr:tiny", SkipSettings(dense=True), runtime, patches)
    plain = load_upscaler("basicvsr:tiny", SkipSettings(dense=True), runtime)
    assert torch.equal(
        found.upscale(CLIP, (72, 100)).clip.frames, plain.upscale(CLIP, (72, 100)).clip.frames
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_precision_is_that_of_parameters_alone(file: Path, dtype: str):
    runtime = RuntimeSettings(weights=file, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    model = load_upscaler("basicvsr:tiny", SkipSettings(threshold=0.5), runtime, BLOCKS)
    assert (model.dtype, model.device) == (dtype, "cpu")
    assert isinstance(model, BlockSkippingUpscaler)
    assert {b.dtype for b in model.model.buffers()} == {torch.float32}
    result = model.upscale(CLIP, (72, 100))
    assert result.clip.frames.dtype == torch.float32
    assert result.clip.frames.isfinite().all()
