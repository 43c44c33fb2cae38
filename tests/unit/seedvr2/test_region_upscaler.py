"""The diffusion engine on regions: everything is the dense model, nothing is the plain picture bit
for bit; what stands still or repeats is computed once."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from skipsr.backbones.seedvr2.clip_masks import ClipMasks
from skipsr.backbones.seedvr2.composition import Composition
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.sampler import frame_noise
from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.need import NeedPredictor

LOW, SIZE = (24, 32), (96, 128)
ODD = (90, 119)


def noisy_left(count: int = 6) -> Clip:
    """Noise on the left, one colour on the right."""
    frames = torch.rand(count, 3, *LOW, generator=torch.Generator().manual_seed(0))
    frames[..., 16:] = 0.5
    return Clip(frames)


def made(model: SeedVR2, **skip: object) -> SeedVR2Upscaler:
    return SeedVR2Upscaler("seedvr2:tiny", model, SkipSettings(**skip))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [SIZE, ODD])
def test_everything_is_the_dense_model(tiny_model: SeedVR2, size: tuple[int, int]):
    clip = noisy_left()
    full, dense = (
        made(tiny_model, **skip).upscale(clip, size)
        for skip in ({"quality": 1.0, "reuse": "off"}, {"dense": True})
    )
    assert full.computed == dense.computed == 1
    torch.testing.assert_close(full.clip.frames, dense.clip.frames, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [SIZE, ODD])
def test_nothing_is_the_plain_picture_bit_for_bit(tiny_model: SeedVR2, size: tuple[int, int]):
    model, clip = made(tiny_model, tau=1.0), noisy_left()
    found = model.upscale(clip, size)
    assert found.computed == 0
    assert torch.equal(found.clip.frames, model.upsample(clip, size).frames)


def test_flat_places_are_the_plain_picture(tiny_model: SeedVR2):
    model, clip = made(tiny_model), noisy_left()
    found = model.upscale(clip, SIZE)
    assert found.compute_map.fractions.shape == (6, 6, 8)
    assert (found.compute_map.fractions[..., 5:] == 0).all()
    assert (found.compute_map.fractions[..., :3] == 1).all()
    plain = model.upsample(clip, SIZE).frames
    assert torch.equal(found.clip.frames[..., 80:], plain[..., 80:])
    assert not torch.equal(found.clip.frames[..., :48], plain[..., :48])
    assert set(found.compute_map.stages) == {"encode", "denoise", "decode"}
    foretold = model.compute_map(clip, SIZE)
    assert torch.equal(foretold.fractions, found.compute_map.fractions)
    assert (foretold.units_run, foretold.stages) == (
        found.compute_map.units_run,
        found.compute_map.stages,
    )


def fine(kind: str, count: int = 2) -> Clip:
    """Grey with what a picture of a quarter of the size does not show; it moves by a pixel."""
    x, y = torch.arange(64.0 + count), torch.arange(48.0)[:, None]
    patterns = {
        "noise": torch.randn(48, 64 + count, generator=torch.Generator().manual_seed(0)) / 5,
        "checkers": (x + y) % 2 - 0.5,
        "stripes": (x // 2 + 0 * y) % 2 - 0.5,
    }
    moved = torch.stack([patterns[kind][:, i : 64 + i] for i in range(count)])
    return Clip((0.5 + 0.1 * moved[:, None]).expand(-1, 3, -1, -1).contiguous())


def times(clip: Clip, scale: float) -> tuple[int, int]:
    return round(scale * clip.size[0]), round(scale * clip.size[1])


@pytest.mark.parametrize("scale", [1, 1.75, 2, 2.25, 4])
@pytest.mark.parametrize("kind", ["noise", "checkers", "stripes"])
def test_what_shrinking_hides_is_seen(tiny_model: SeedVR2, kind: str, scale: float):
    model, clip = made(tiny_model), fine(kind)
    assert (model.compute_map(clip, times(clip, scale)).fractions == 1).all()
    grey = Clip(torch.full_like(clip.frames, 0.5))
    assert (model.compute_map(grey, times(clip, scale)).fractions == 0).all()


@pytest.mark.parametrize(("scale", "times_read"), [(1, 2), (2, 2), (4, 1), (6, 1)])
def test_frames_are_read_twice_where_they_are_shrunk(
    tiny_model: SeedVR2, scale: int, times_read: int
):
    model, clip, read = made(tiny_model), fine("noise"), list[tuple[int, ...]]()
    assert isinstance(model.need, NeedPredictor)
    model.need.register_forward_hook(lambda _net, args, _need: read.append(args[0].shape))
    model.compute_map(clip, times(clip, scale))
    assert read == [(5, 3, 12 * scale, 16 * scale)] * times_read


@pytest.mark.parametrize("scale", [1, 1.5, 2, 4])
@pytest.mark.parametrize("kind", ["noise", "checkers"])
def test_fine_texture_that_moves_is_not_still(tiny_model: SeedVR2, kind: str, scale: float):
    model, clip = made(tiny_model, tau=1.0), fine(kind, 3)
    size = times(clip, scale)
    assert torch.equal(model.upscale(clip, size).clip.frames, model.upsample(clip, size).frames)


def test_frames_that_repeat_are_computed_once(tiny_model: SeedVR2):
    distinct = noisy_left(3)
    order = [0, 0, 0, 1, 2, 2]
    model = made(tiny_model)
    once, again = (model.upscale(Clip(f), SIZE) for f in (distinct.frames, distinct.frames[order]))
    assert torch.equal(again.clip.frames, once.clip.frames[order])
    assert again.compute_map.units_run == once.compute_map.units_run
    assert (again.compute_map.fractions[[1, 2, 5]] == 0).all()


def test_what_stands_still_is_shown_again(tiny_model: SeedVR2):
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 3, *LOW, generator=generator).repeat(9, 1, 1, 1)
    frames[:, :, :8, :8] = torch.rand(9, 3, 8, 8, generator=generator)
    found = made(tiny_model).upscale(Clip(frames), SIZE)
    assert found.compute_map.fractions[0].mean() > 0.9
    assert (found.compute_map.fractions[1:, :, 5:] == 0).all()
    assert (found.compute_map.fractions[1:, :2, :2] == 1).all()
    shown = found.clip.frames
    assert torch.equal(shown[0, :, :, 88:], shown[8, :, :, 88:])
    assert not torch.equal(shown[0, :, :32, :32], shown[8, :, :32, :32])


def test_a_cut_drops_what_was_shown(tiny_model: SeedVR2):
    frames = torch.rand(1, 3, *LOW, generator=torch.Generator().manual_seed(0))
    clip = Clip(torch.cat((frames, frames, 1 - frames, 1 - frames)))
    shown = made(tiny_model).upscale(clip, SIZE).clip.frames
    assert torch.equal(shown[0], shown[1])
    assert (shown[2] - shown[1]).abs().mean() > 0.05


@pytest.mark.parametrize("budget", [0.25, 0.5, 0.7])
def test_budgets_are_what_is_spent(tiny_model: SeedVR2, budget: float):
    """Though what a frame needs is run in all four frames of a token, and before."""
    noise = torch.rand(9, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    for i, frame in enumerate(noise):
        frame[:, :, : 4 * i] = 0.5
    found = made(tiny_model, budget=budget, reuse="off").compute_map(Clip(noise), (192, 256))
    assert found.spent == pytest.approx(budget, abs=0.04)


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_budget_is_spent_on_what_moves(tiny_model: SeedVR2, repeats: int):
    """The still half needs more, and costs nothing from the second frame on, as repeats do."""
    noise = torch.rand(9, 3, 48, 96, generator=torch.Generator().manual_seed(0))
    frames = torch.cat((noise[:1].expand_as(noise), 0.4 + 0.2 * noise), 3)
    clip = Clip(frames.repeat_interleave(repeats, 0))
    found = made(tiny_model, budget=0.3).compute_map(clip, (192, 768))
    assert found.spent == pytest.approx(0.3, abs=0.04)
    assert found.fractions[repeats:, :, 28:].mean() > 0.8 * 0.3


def test_what_is_not_for_tokens_is_refused(tiny_model: SeedVR2):
    for skip, message in (({"quality": 0.3}, "`quality` is not"), ({"speed": 2.0}, "`speed` is")):
        with pytest.raises(SettingsError, match=message):
            TokenSkippingUpscaler("x", tiny_model, SkipSettings(**skip))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="`speed` 50 is out of reach"):
        made(tiny_model, speed=50.0)


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, -(2**63)])
def test_every_seed_of_64_bits_draws_its_own_noise(seed: int):
    like = torch.zeros(2, 3, 4, 5)
    drawn = frame_noise(like, [2, 3], seed, stream=1)
    assert torch.equal(drawn, frame_noise(like, [2, 3], seed, stream=1))
    assert not torch.equal(drawn, frame_noise(like, [2, 3], 7, stream=1))


@pytest.mark.parametrize("seed", [0, 7, 10**12, -3])
def test_small_seeds_draw_what_they_always_drew(seed: int):
    generator = torch.Generator().manual_seed((seed * 2 + 1) * 1_000_003 + 2)
    expected = torch.randn(3, 4, 5, generator=generator)
    assert torch.equal(frame_noise(torch.zeros(2, 3, 4, 5), [2, 3], seed, stream=1)[0], expected)


def test_with_norms_the_first_frame_counts_as_decoded_whole():
    kept = torch.zeros(2, 2, 2, dtype=torch.bool)
    kept[:, 0, 0] = True
    masks = ClipMasks(kept, kept, [None] * 5)
    assert masks.decoded(whole_first=False) == pytest.approx(0.25)
    assert masks.decoded(whole_first=True) == pytest.approx((1 + 4 * 0.25) / 5)
    nothing = ClipMasks(kept & False, kept & False, [None] * 5)
    assert nothing.decoded(whole_first=True) == 0
    assert ClipMasks(kept, kept, [None] * 5, whole=True).decoded(whole_first=False) == 1


def test_borders_fade_towards_plain_cells_alone():
    """Four cells in a row: run, shown as before, plain as before, run; then the second is plain."""
    tokens = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 1]], dtype=torch.bool)[:, None]
    second, third = torch.zeros(2, 1, 4, dtype=torch.bool)
    second[0, 1], third[0, 2] = True, True
    masks = ClipMasks(tokens, tokens, [None, second | third, third, None])
    base, refined = torch.arange(4.0), torch.arange(4.0) + 10
    composed = Composition(masks, 4, torch.device("cpu")).next(
        *(levels.reshape(4, 1, 1, 1).expand(4, 3, 16, 64) for levels in (refined, base))
    )
    assert torch.equal(composed, composed[:, :1, :1].expand_as(composed))
    cells = composed[:, 0, 0].unflatten(1, (4, 16))
    fade = torch.tensor([1 / 3, 2 / 3] + [1.0] * 14)
    expected = [
        [torch.full((16,), 10.0), 10 * fade.flip(0), torch.zeros(16), torch.zeros(16)],
        [torch.full((16,), 11.0), cells[0, 1], torch.zeros(16), 1 + 10 * fade],
        [2 + 10 * fade.flip(0), torch.full((16,), 2.0), torch.zeros(16), 2 + 10 * fade],
        [3 + 10 * fade.flip(0), *torch.full((2, 16), 3.0), 3 + 10 * fade],  # nothing stands still
    ]
    torch.testing.assert_close(cells, torch.stack([torch.stack(row) for row in expected]))


@pytest.mark.parametrize("scale", [2, 4])  # at 2 a predictor reads frames in two ways
def test_a_mask_of_ones_own_is_what_is_computed(tiny_model: SeedVR2, scale: int):
    """Noise is skipped and grey is not, where the mask has it so."""
    model, clip = made(tiny_model, reuse="off"), fine("noise", 5)
    asked: list[tuple[int, ...]] = []

    def right(frames: Tensor) -> Tensor:
        asked.append(tuple(frames.shape))
        mask = torch.zeros(len(frames), 3 * scale, 4 * scale, dtype=torch.bool)
        mask[..., 2 * scale :] = True
        return mask

    model.need = right
    found = model.upscale(clip, times(clip, scale))
    half = 2 * scale
    assert asked == [(5, 3, 12 * scale, 16 * scale)]
    assert (found.compute_map.fractions[..., half:] == 1).all()
    assert (found.compute_map.fractions[..., :half] == 0).all()
    plain = model.upsample(clip, times(clip, scale)).frames
    assert torch.equal(found.clip.frames[..., : 16 * half], plain[..., : 16 * half])
    assert torch.equal(
        model.compute_map(clip, times(clip, scale)).fractions, found.compute_map.fractions
    )


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_where_layers_run_by_a_unit_for_matrices_a_window_is_sooner_decoded_whole(
    tiny_model: SeedVR2, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, unit: bool
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": unit}, raising=False)
    model = made(deepcopy(tiny_model).to(dtype), reuse="off")
    kept = torch.zeros(5, 6, 8, dtype=torch.bool)
    kept[..., :6] = True
    model.need = lambda frames: kept
    stages = model.compute_map(fine("noise", 5), SIZE).stages
    assert stages["denoise"] == 0.75
    assert stages["decode"] == (1.0 if unit and dtype == torch.bfloat16 else 0.75)


def test_a_mask_of_ones_own_is_obeyed_where_everything_would_be_computed(tiny_model: SeedVR2):
    model, clip = made(tiny_model, dense=True), fine("noise", 5)
    size = times(clip, 4)
    assert model.compute_map(clip, size).fraction == 1
    model.need = lambda frames: torch.zeros(len(frames), 12, 16, dtype=torch.bool)
    assert model.compute_map(clip, size).fraction == 0
    plain = model.upsample(clip, size).frames
    assert torch.equal(model.upscale(clip, size).clip.frames, plain)
