"""Regions: layers on the canvas equal the masked network on the whole picture, for any mask, size
and cut; what is kept can be moved between levels."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from skipsr.skipping.canvas import CanvasPlan
from skipsr.skipping.canvas_moves import copied, doubled, halved
from skipsr.skipping.regions import Regions, widen

EXACT = {"atol": 1e-10, "rtol": 0}


def mask_pixels(keep: Tensor, pixels: int, size: tuple[int, int]) -> Tensor:
    grown = keep.repeat_interleave(pixels, 0).repeat_interleave(pixels, 1)
    return grown[: size[0], : size[1]].double()


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Regions, int, tuple[int, int], torch.Generator]:
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    pixels = draw(st.sampled_from((1, 2, 4, 8)))
    size = (
        rows * pixels - draw(st.integers(0, pixels - 1)),
        columns * pixels - draw(st.integers(0, pixels - 1)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    share = draw(st.sampled_from((0.0, 0.2, 0.5, 0.8, 1.0)))
    keep = torch.rand(rows, columns, generator=generator) < share
    regions = Regions.of(keep, draw(st.integers(1, 4)), gap=draw(st.integers(0, 2)))
    assert (regions.keep | ~keep).all()
    return regions, pixels, size, generator


def gather(plan: CanvasPlan, picture: Tensor) -> Tensor:
    """Kept pixels of `t h w c` and those around them on a canvas; zero outside the picture."""
    canvas = picture.flatten(1, 2).index_select(1, plan.nearest_pixel_of_slot)
    return canvas.index_fill_(1, plan.outside_slots, 0).unflatten(1, plan.shape)


def run_blocks(plan: CanvasPlan, picture: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
    """Residual blocks on a canvas that is refreshed, `1 h w c` back in the picture; zero where
    skipped."""
    rows, columns = plan.interior
    canvas = gather(plan, picture)
    for first, second in zip(convolutions[::2], convolutions[1::2], strict=True):
        between = plan.clear_rim(canvas.new_empty(1, *plan.shape, first.out_channels))
        x = F.conv2d(canvas.permute(0, 3, 1, 2), first.weight, first.bias)
        between[:, rows, columns] = F.relu(x).permute(0, 2, 3, 1)
        plan.refresh(between)
        x = F.conv2d(between.permute(0, 3, 1, 2), second.weight, second.bias)
        canvas[:, rows, columns] += x.permute(0, 2, 3, 1)
        plan.refresh(canvas)
    cells = canvas.flatten(1, 2).index_select(1, plan.kept_slots)
    out = torch.zeros_like(picture)
    out.flatten(1, 2).index_copy_(1, plan.kept_pixels, cells)
    return out


@given(pictures())
def test_layers_equal_the_masked_network(
    made: tuple[Regions, int, tuple[int, int], torch.Generator],
):
    regions, pixels, size, generator = made
    mask = mask_pixels(regions.keep, pixels, size)
    torch.manual_seed(0)
    ends = ((3, 5), (5, 3)) * 2
    convolutions = [nn.Conv2d(a, b, 3, padding=1).double() for a, b in ends]
    x = torch.randn(1, 3, *size, generator=generator, dtype=torch.float64) * mask
    expected = x
    for first, second in zip(convolutions[::2], convolutions[1::2], strict=True):
        expected = (expected + second(F.relu(first(expected)) * mask)) * mask
    with torch.no_grad():
        plan = regions.at(pixels, size)
        found = run_blocks(plan, x.permute(0, 2, 3, 1), convolutions)
    torch.testing.assert_close(found.permute(0, 3, 1, 2), expected.detach(), **EXACT)


@given(pictures())
def test_a_halving_layer_equals_the_masked_network(
    made: tuple[Regions, int, tuple[int, int], torch.Generator],
):
    """Zeros are added right and below only, as in the autoencoder's downsampler."""
    regions, pixels, _, generator = made
    pixels *= 2
    size = (regions.keep.shape[0] * pixels, regions.keep.shape[1] * pixels)
    half = (size[0] // 2, size[1] // 2)
    mask = mask_pixels(regions.keep, pixels, size)
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, stride=2).double()
    x = torch.randn(1, 3, *size, generator=generator, dtype=torch.float64) * mask
    finer, coarse = regions.at(pixels, size), regions.at(pixels // 2, half)
    with torch.no_grad():
        expected = conv(F.pad(x, (0, 1, 0, 1))) * mask_pixels(regions.keep, pixels // 2, half)
        canvas = gather(finer, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        small = F.conv2d(canvas, conv.weight, conv.bias, 2, padding=1).flatten(2)
    small[..., 0] = 0  # stands for what is skipped
    found = small[0].T[halved(finer, coarse, size[1])]
    expected = gather(coarse, expected.permute(0, 2, 3, 1)).flatten(0, 2)
    torch.testing.assert_close(found, expected, **EXACT)


@given(pictures())
def test_a_doubling_layer_moves_to_the_finer_canvas(
    made: tuple[Regions, int, tuple[int, int], torch.Generator],
):
    regions, pixels, size, generator = made
    fine = (2 * size[0], 2 * size[1])
    coarse, finer = regions.at(pixels, size), regions.at(2 * pixels, fine)
    x = torch.randn(1, 4, *size, generator=generator, dtype=torch.float64)
    x = x * mask_pixels(regions.keep, pixels, size)
    middle = gather(coarse, x.permute(0, 2, 3, 1))[:, *coarse.middle].permute(0, 3, 1, 2)
    split = F.pixel_shuffle(middle, 2)[0, 0].flatten()
    places = doubled(coarse, finer, fine[1])
    moved = torch.where(places >= 0, split[places.clamp_min(0)], 0.0)
    expected = gather(finer, F.pixel_shuffle(x, 2).permute(0, 2, 3, 1))[0, ..., 0].flatten()
    torch.testing.assert_close(moved, expected, **EXACT)


@given(pictures())
def test_a_canvas_holds_its_runs_and_is_as_wide_as_others(
    made: tuple[Regions, int, tuple[int, int], torch.Generator],
):
    """Kernels are made for each width, and rows a power of two apart share lines of a cache."""
    regions, pixels, size, _ = made
    height, width = regions.at(pixels, size).shape
    if regions.whole:
        assert (height, width) == (size[0] + 2, size[1] + 2)
        return
    edges = F.pad(regions.keep[:: regions.strip].int(), (1, 0)).diff(dim=1)
    used = pixels * int(regions.keep[:: regions.strip].sum()) + 2 * int((edges == 1).sum())
    assert height == min(regions.strip * pixels, size[0]) + 2
    assert width % 32 == 20
    assert used + 2 <= width < used + 2 + 32


@given(pictures())
def test_every_slot_is_of_one_kind(made: tuple[Regions, int, tuple[int, int], torch.Generator]):
    regions, pixels, size, _ = made
    plan = regions.at(pixels, size)
    slots, shown = torch.arange(len(plan.pixel_of_slot)), plan.pixel_of_slot
    known = (shown >= 0) & torch.isin(shown, plan.kept_pixels)  # kept, or a copy of what is
    assert torch.equal(shown[plan.source_of_slot[known]], shown[known])
    assert torch.isin(plan.source_of_slot[known], plan.kept_slots).all()
    assert (plan.source_of_slot[~known] == plan.zero).all()
    assert torch.equal(plan.outside_slots, slots[shown < 0])
    assert torch.equal(plan.skipped_slots, slots[(shown >= 0) & ~known])
    assert torch.equal(plan.unkept_slots, slots[~torch.isin(slots, plan.kept_slots)])


@given(pictures())
def test_what_one_canvas_shows_is_found_from_another(
    made: tuple[Regions, int, tuple[int, int], torch.Generator],
):
    regions, pixels, size, generator = made
    others = Regions.of(torch.rand(regions.keep.shape, generator=generator) < 0.5, 2)
    source, target = regions.at(pixels, size), others.at(pixels, size)
    found, wanted = copied(source, target), target.pixel_of_slot
    there = (wanted >= 0) & torch.isin(wanted, source.pixel_of_slot)
    assert torch.equal(source.pixel_of_slot[found[there]], wanted[there])
    assert (found[~there] == source.zero).all()
    kept = torch.isin(wanted, source.kept_pixels)
    assert torch.isin(found[kept], source.kept_slots).all()


@given(pictures())
def test_a_middle_is_padded_with_kept_neighbours(
    made: tuple[Regions, int, tuple[int, int], torch.Generator],
):
    regions, pixels, size, generator = made
    plan = regions.at(pixels, size)
    x = torch.randn(1, *size, 2, generator=generator, dtype=torch.float64)
    x = x * mask_pixels(regions.keep, pixels, size)[..., None]
    canvas = gather(plan, x)
    middle = canvas[:, *plan.middle].clone()
    assert middle.shape[1:3] == plan.middle_shape
    if plan.full:
        torch.testing.assert_close(middle, x, **EXACT)
        return
    meaningless = torch.ones(plan.middle_shape, dtype=torch.bool).flatten()
    meaningless[plan.middle_of_pixel[plan.kept_pixels]] = False
    middle.flatten(0, 2)[meaningless] = torch.nan
    torch.testing.assert_close(plan.padded(middle), canvas, **EXACT)
    torch.testing.assert_close(plan.padded(middle, torch.empty_like(canvas)), canvas, **EXACT)
    assert (middle[:, -1, -1] == 0).all()
    left = torch.full_like(canvas, torch.nan)
    left[:, *plan.middle] = middle
    plan.encloser(left)()
    torch.testing.assert_close(left, canvas, **EXACT)


def test_a_whole_picture_is_one_run_without_anything_to_refresh():
    regions = Regions.of(torch.ones(5, 7, dtype=torch.bool), 2)
    plan = regions.at(4, (18, 26))
    assert regions.whole
    assert plan.shape == (20, 28)
    assert len(plan.gutter_slots) == 0
    assert len(regions.runs) == 1


def test_an_empty_picture_has_no_kept_slots():
    regions = Regions.of(torch.zeros(5, 7, dtype=torch.bool), 2)
    plan = regions.at(4, (18, 26))
    assert regions.fraction == 0
    assert len(plan.kept_slots) == 0
    assert (plan.slot_of_pixel == plan.zero).all()


def test_from_the_crossover_on_the_picture_is_whole():
    keep = torch.ones(10, 10, dtype=torch.bool)
    keep[0, 0] = False
    assert Regions.of(keep, 1, crossover=0.98).whole
    assert not Regions.of(keep, 1, crossover=0.995).whole
    half = torch.tensor([[True, False]] * 2)
    assert Regions.of(half, 2, crossover=0.5).whole
    assert not Regions.of(half, 2).whole  # though one strip holds all rows
    assert Regions.of(half, 2, crossover=0.0).whole
    assert Regions.of(~half & half, 2, crossover=0.0).fraction == 0


def test_gaps_are_closed_up_to_a_width():
    keep = torch.tensor([[1, 0, 1, 0, 0, 1, 0]], dtype=torch.bool)
    assert Regions.of(keep, 1, gap=1).keep.tolist() == [[1, 1, 1, 0, 0, 1, 0]]
    assert Regions.of(keep, 1, gap=2).keep.tolist() == [[1, 1, 1, 1, 1, 1, 0]]


def test_masks_must_be_equal_within_strips():
    keep = torch.tensor([[True], [False]])
    assert widen(keep, 2).all()
    with pytest.raises(ValueError, match="differs within a strip of 2 rows"):
        Regions(keep, 2)
    for wrong in (keep.float(), keep[None], keep.to("meta")):
        with pytest.raises(ValueError, match="bool rows columns"):
            Regions(wrong, 1)
