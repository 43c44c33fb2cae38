"""Routes: packing and scattering are inverse, and positions say where a packed cell lies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_models import random, random_mask

from skipsr.skipping.route import Route, from_cells, to_cells

grids = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


@given(grid=grids, share=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]), seed=st.integers(0, 9))
def test_pack_and_scatter_are_inverse(grid, share, seed):
    route = Route(random_mask(grid, share, seed))
    cells, base = random(*grid, 3, seed=1), random(*grid, 3, seed=2)
    packed = route.pack(cells)
    assert packed.shape == (route.kept, 3)
    composed = route.scatter(packed, base)
    assert torch.equal(composed, torch.where(route.keep[..., None], cells, base))
    assert torch.equal(route.pack(composed), packed)


@given(grid=grids, share=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 9))
def test_a_latent_is_composed_of_kept_cells_and_its_own(grid, share, seed):
    t, h, w = grid
    route = Route(random_mask(grid, share, seed))
    latent, other = random(t, 2 * h, 2 * w, 3, seed=1), random(t, 2 * h, 2 * w, 3, seed=2)
    kept = route.keep.repeat_interleave(2, 1).repeat_interleave(2, 2)[..., None]
    composed = route.compose(route.pack(to_cells(other)), latent)
    assert torch.equal(composed, torch.where(kept, other, latent))


@given(grid=grids, share=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 9))
def test_positions_and_counts(grid, share, seed):
    route = Route(random_mask(grid, share, seed))
    expected = [
        [t, h, w]
        for t in range(grid[0])
        for h in range(grid[1])
        for w in range(grid[2])
        if route.keep[t, h, w]
    ]
    assert route.positions.tolist() == expected
    assert route.kept == len(expected)
    assert route.fraction == len(expected) / (grid[0] * grid[1] * grid[2])
    assert route.is_dense == (len(expected) == route.keep.numel())
    assert route.grid == grid


@given(
    grid=grids,
    budget=st.sampled_from([1e-6, 0.07, 0.3, 0.5, 0.999, 1.0]),
    levels=st.sampled_from([1, 3, 1000]),
)
def test_a_budget_keeps_the_highest_and_of_equals_the_first(grid, budget, levels):
    scores = torch.randint(0, levels, grid, generator=torch.Generator().manual_seed(0)) / levels
    flat = scores.flatten().tolist()
    best = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    count = next(n for n in range(1, len(flat) + 1) if n >= budget * len(flat) - 1e-9)
    kept = Route.from_budget(scores, budget).keep.flatten().nonzero()[:, 0].tolist()
    assert kept == sorted(best[:count])


def test_budgets_count_exactly():
    scores = torch.rand(100, 1, 1, generator=torch.Generator().manual_seed(0))
    kept = [Route.from_budget(scores, n / 100).kept for n in range(1, 101)]
    assert kept == list(range(1, 101))  # 0.07 * 100 is more than 7 in floating point


def test_scatter_keeps_the_base_dtype_and_lets_gradients_through():
    route = Route(random_mask((2, 3, 4), 0.5))
    cells = random(route.kept, 2).requires_grad_()
    out = route.scatter(cells, random(2, 3, 4, 2, seed=1).double())
    assert out.dtype == torch.float64
    out.sum().backward()
    assert torch.equal(cells.grad, torch.ones_like(cells))


def test_cells_hold_the_patch_row_by_row():
    latent = random(3, 4, 6, 5)
    cells = to_cells(latent)
    assert cells.shape == (3, 2, 3, 4, 5)
    for place, (dy, dx) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(cells[..., place, :], latent[:, dy::2, dx::2])
    assert torch.equal(from_cells(cells), latent)


@pytest.mark.parametrize(
    "keep", [torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3, 4), torch.ones(1, 2, 3, 4) > 0]
)
def test_other_masks_are_refused(keep):
    with pytest.raises(ValueError, match="a mask is bool t h w"):
        Route(keep)
