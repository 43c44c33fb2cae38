"""The upscaler: sizes, what it says it ran, repeated and still frames, settings."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip, perturb
from torch import Tensor

from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.cost import region_cost
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.loading import load_upscaler
from skipsr.settings import DType, RuntimeSettings, SkipSettings
from skipsr.skipping.need import Need
from skipsr.train.run import export

SIZE = (36, 50)
CLIP = make_clip(4, *SIZE, start=3)


def make_network() -> BasicVSR:
    torch.manual_seed(0)
    model = BasicVSR(PRESETS["tiny"])
    perturb(model)
    return model.eval().requires_grad_(False)


def upscaler(**skip: object) -> BasicVSRUpscaler:
    return BasicVSRUpscaler("basicvsr:tiny", make_network(), SkipSettings(**skip))  # type: ignore[arg-type]


def half_flat(count: int = 4) -> Clip:
    """Noise on the left, one colour on the right."""
    frames = torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    frames[..., 24:] = 0.5
    return Clip(frames)


@pytest.mark.parametrize("size", [(144, 200), (72, 100), (100, 81), (18, 25)])
@pytest.mark.parametrize("skip", [{"dense": True}, {"quality": 1.0}, {"budget": 1.0}])
def test_other_sizes_are_resized_from_four_times(size: tuple[int, int], skip: dict[str, object]):
    found = upscaler(**skip).upscale(CLIP, size)
    assert found.clip.start == 3
    expected = make_network()(CLIP.frames[None])[0]
    if size != (144, 200):
        expected = F.interpolate(
            expected, size, mode="bicubic", antialias=True, align_corners=False
        )
    torch.testing.assert_close(found.clip.frames, expected.clamp(0, 1), atol=1e-5, rtol=0)
    assert found.computed == 1


def test_a_seed_changes_nothing():
    one, other = (upscaler().upscale(CLIP, (40, 60), seed=seed) for seed in (0, 7))
    assert torch.equal(one.clip.frames, other.clip.frames)


@pytest.mark.parametrize("size", [(144, 200), (61, 97)])
@pytest.mark.parametrize("skip", [{}, {"dense": True}, {"budget": 0.5}, {"tau": 1e-3}])
def test_work_is_what_upscaling_reports(skip: dict[str, object], size: tuple[int, int]):
    model = upscaler(**skip)
    done, foretold = (
        model.upscale(half_flat(), size).compute_map,
        model.compute_map(half_flat(), size),
    )
    assert torch.equal(done.fractions, foretold.fractions)
    assert (done.cell_size, done.units_run, done.units_total) == (
        foretold.cell_size, foretold.units_run, foretold.units_total,
    )  # fmt: skip
    assert done.units_total == 4 * 9 * 13
    expected = tuple(-(-side // cell) for side, cell in zip(size, done.cell_size, strict=True))
    assert done.fractions.shape == (4, *expected)


def test_flat_places_are_the_plain_picture():
    """Noise needs the model, one colour does not."""
    model, clip = upscaler(), half_flat()
    found = model.upscale(clip, (144, 200))
    assert (found.compute_map.fractions[:, :, 9:] == 0).all()
    assert (found.compute_map.fractions[:, :, :4] == 1).all()
    plain = model.upsample(clip, (144, 200)).frames
    assert torch.equal(found.clip.frames[..., 144:], plain[..., 144:])
    dense = upscaler(dense=True).upscale(clip, (144, 200)).clip.frames
    torch.testing.assert_close(
        found.clip.frames[1:-1, :, 24:-24, 24:48], dense[1:-1, :, 24:-24, 24:48], atol=0.05, rtol=0
    )


def test_nothing_run_is_the_plain_picture():
    model = upscaler(tau=1.0)
    found = model.upscale(CLIP, (144, 200))
    assert found.computed == 0
    assert torch.equal(found.clip.frames, model.upsample(CLIP, (144, 200)).frames)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_frame_that_needs_nothing_stands_among_others(dtype: str):
    """As at a fade from black."""
    frames = half_flat(5).frames
    frames[:2] = torch.tensor([0.0, 0.3])[:, None, None, None]
    runtime = RuntimeSettings(dtype=dtype, device="cpu")  # type: ignore[arg-type]
    found = load_upscaler("skipvsr:nano", runtime=runtime).upscale(Clip(frames), (144, 200))
    assert (found.clip.frames[0] == 0).all()
    assert 0 < found.compute_map.spent < 1


def test_frames_that_repeat_are_computed_once():
    model = upscaler(dense=False)
    distinct = half_flat(3)
    repeated = Clip(distinct.frames[[0, 0, 1, 2, 2, 2]])
    once, again = (model.upscale(clip, (144, 200)) for clip in (distinct, repeated))
    assert torch.equal(again.clip.frames, once.clip.frames[[0, 0, 1, 2, 2, 2]])
    assert again.compute_map.units_run == once.compute_map.units_run
    assert again.compute_map.units_total == 2 * once.compute_map.units_total
    assert (again.compute_map.fractions[[1, 4, 5]] == 0).all()
    off = upscaler(reuse="off").upscale(repeated, (144, 200))
    assert (off.compute_map.fractions[1] == off.compute_map.fractions[0]).all()
    assert off.compute_map.units_run > again.compute_map.units_run


def noisy_corner(count: int = 5) -> Clip:
    """Texture that stands still, but for one corner."""
    draw = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 3, *SIZE, generator=draw).repeat(count, 1, 1, 1)
    frames[:, :, :8, :8] = torch.rand(count, 3, 8, 8, generator=draw)
    return Clip(frames)


def test_what_stands_still_is_shown_again():
    found = upscaler().upscale(noisy_corner(), (144, 200))
    assert found.compute_map.fractions[0].mean() > 0.9
    assert (found.compute_map.fractions[1:, :, 5:] == 0).all()
    assert (found.compute_map.fractions[1:, :2, :2] == 1).all()
    frames = found.clip.frames
    assert torch.equal(frames[0, :, :, 88:], frames[4, :, :, 88:])
    assert not torch.equal(frames[0, :, :32, :32], frames[4, :, :32, :32])
    off = upscaler(reuse="off").upscale(noisy_corner(), (144, 200))
    assert off.computed > 0.9
    best = upscaler(quality=1.0).compute_map(noisy_corner(), (144, 200)).fractions
    assert (best[0] == 1).all()
    assert (best[1:, :, 5:] == 0).all()


def test_a_cut_drops_what_was_shown():
    clip = noisy_corner(2)
    cut = Clip(torch.cat((clip.frames, 1 - clip.frames)))
    share = upscaler().upscale(cut, (144, 200)).compute_map.fractions
    assert share[1].mean() < 0.3
    assert share[2].mean() > 0.9


def test_budgets_and_speeds_spend_what_they_say():
    clip, size = make_clip(4, 160, 160), (640, 640)  # smaller frames are sooner run whole
    for budget in (0.4, 0.5, 0.6):
        found = upscaler(budget=budget, reuse="off").upscale(clip, size).compute_map
        assert found.spent == pytest.approx(budget, abs=0.03)
    for speed in (2.0, 1.2):
        model = upscaler(speed=speed, reuse="off")
        share = region_cost(model.model.config).of_frames(160 * 160).cells_in(1 / speed)
        assert model.compute_map(clip, size).fraction == pytest.approx(share, abs=0.03)


def test_a_budget_is_of_all_frames_though_repeats_cost_nothing():
    frames = make_clip(3, 64, 64).frames.repeat_interleave(2, 0)
    found = upscaler(budget=0.3).compute_map(Clip(frames), (256, 256))
    assert found.spent == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("dtype", "unit", "whole"),
    [
        ("bfloat16", True, True),
        ("bfloat16", False, False),
        ("float32", True, False),
    ],
)
def test_where_layers_run_by_a_unit_for_matrices_a_frame_is_sooner_whole(
    file: Path, monkeypatch: pytest.MonkeyPatch, dtype: DType, unit: bool, whole: bool
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": unit}, raising=False)
    clip = half_flat()
    clip.frames[..., 20:] = 0.5  # half with what is beside
    clip.frames[..., :20] = torch.rand(4, 3, 36, 20, generator=torch.Generator().manual_seed(1))
    model = load_upscaler(
        "basicvsr:tiny", SkipSettings(), RuntimeSettings(weights=file, device="cpu", dtype=dtype)
    )
    assert (model.upscale(clip, (144, 200)).computed == 1) is whole


def test_quality_trades_cells():
    shares = [
        upscaler(quality=q, reuse="off").upscale(half_flat(), (144, 200)).computed
        for q in (0, 0.5, 1)
    ]
    assert shares == sorted(shares)
    assert shares[2] == 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return export(BasicVSR(PRESETS["tiny"]), tmp_path / "tiny.safetensors", {})


def load(file: Path, skip: SkipSettings) -> BasicVSRUpscaler:
    runtime = RuntimeSettings(weights=file, device="cpu", dtype="float32")
    model = load_upscaler("basicvsr:tiny", skip, runtime)
    assert isinstance(model, BasicVSRUpscaler)
    return model


@pytest.mark.parametrize(
    ("skip", "message"),
    [
        (SkipSettings(speed=90), "`speed` 90 is out of reach"),
        (SkipSettings(budget=0.001), "`budget` 0.001 is less than"),
    ],
)
def test_settings_that_cannot_be_met(file: Path, skip: SkipSettings, message: str):
    with pytest.raises(SettingsError, match=message):
        load(file, skip)


def test_weights_without_a_head_go_by_what_is_lost(file: Path):
    """Skipping needs nothing of the weights."""
    found = load(file, SkipSettings()).upscale(half_flat(), (144, 200))
    assert 0.2 < found.computed < 0.9


@pytest.mark.usefixtures("no_matrix_unit")
def test_precision_is_that_of_parameters_alone(file: Path):
    runtime = RuntimeSettings(weights=file, device="cpu", dtype="bfloat16")
    model = load_upscaler("basicvsr:tiny", SkipSettings(), runtime)
    assert (model.dtype, model.device) == ("bfloat16", "cpu")
    clip = half_flat()
    clip.frames[..., 16:] = 0.5
    result = model.upscale(clip, (144, 200)).clip.frames
    exact = load(file, SkipSettings()).upscale(clip, (144, 200)).clip.frames
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, exact, atol=0.02, rtol=0)


def test_a_mask_of_ones_own_is_what_is_computed():
    """Of a clip so long that the predictor would look at some frames first; noise is skipped."""
    model, clip, size = upscaler(reuse="off"), half_flat(10), (144, 200)
    asked: list[tuple[int, ...]] = []

    def right(frames: Tensor) -> Tensor:
        asked.append(tuple(frames.shape))
        mask = torch.zeros(len(frames), 9, 13, dtype=torch.bool)
        mask[..., 8:] = True
        return mask

    model.need = right
    found = model.upscale(clip, size)
    assert asked == [(10, 3, *SIZE)]
    assert (found.compute_map.fractions[..., 8:] == 1).all()
    assert (found.compute_map.fractions[..., :8] == 0).all()
    plain = model.upsample(clip, size).frames
    assert torch.equal(found.clip.frames[..., :128], plain[..., :128])
    assert torch.equal(model.compute_map(clip, size).fractions, found.compute_map.fractions)


def test_a_mask_of_ones_own_is_obeyed_where_everything_would_be_computed():
    """As on a GPU, unless asked otherwise."""
    model, clip = upscaler(dense=True), half_flat()
    assert model.compute_map(clip, (144, 200)).fraction == 1
    model.need = lambda frames: torch.zeros(len(frames), 9, 13, dtype=torch.bool)
    assert model.compute_map(clip, (144, 200)).fraction == 0
    plain = model.upsample(clip, (144, 200)).frames
    assert torch.equal(model.upscale(clip, (144, 200)).clip.frames, plain)


def test_a_need_of_ones_own_meets_a_budget():
    """What is asked for holds for it as for the predictor's: here it wants the flat half."""
    model, clip = upscaler(reuse="off", budget=0.5), half_flat()

    def flat_first(frames: Tensor) -> Need:
        mean = torch.arange(13.0).expand(len(frames), 4, 9, 13) - 20
        return Need(mean, torch.ones_like(mean))

    model.need = flat_first
    found = model.compute_map(clip, (144, 200))
    assert found.spent == pytest.approx(0.5, abs=0.06)
    assert (found.fractions[..., -1] == 1).all()
    assert (found.fractions[..., 0] == 0).all()


@pytest.mark.parametrize("mask", [torch.ones(4, 9, 13), torch.ones(4, 9, 12, dtype=torch.bool)])
def test_a_mask_that_is_none_is_refused(mask: Tensor):
    model = upscaler()
    model.need = lambda _frames: mask
    with pytest.raises(ValueError, match=r"a mask of these frames is bool \(4, 9, 13\), not "):
        model.upscale(CLIP, (144, 200))


@pytest.mark.parametrize("shape", [(4, 4, 9, 12), (4, 1, 9, 13), (2, 4, 9, 13)])
def test_a_need_of_other_cells_heads_or_frames_is_refused(shape: tuple[int, ...]):
    model, wrong = upscaler(), torch.ones(shape)
    model.need = lambda _frames: Need(wrong, wrong)
    with pytest.raises(ValueError, match=r"the need of these frames is \(4, 4, 9, 13\), not "):
        model.compute_map(CLIP, (144, 200))


def test_what_is_neither_a_mask_nor_a_need_is_refused():
    model = upscaler()
    model.need = lambda _frames: np.ones((4, 9, 13), bool)  # type: ignore[assignment,return-value]
    with pytest.raises(TypeError, match="a mask is a tensor, or a Need, not of type ndarray"):
        model.compute_map(CLIP, (144, 200))
