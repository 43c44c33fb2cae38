"""Dense is a special case of sparse: all kept, some kept, none kept, against a slow reference."""

import itertools
from dataclasses import replace

import made_models
import pytest
import torch
from made_models import TRANSFORMERS, make_dit, random, random_mask
from slow_transformer import slow_velocity
from torch import Tensor

from skipsr.backbones.seedvr2.config import DiTConfig, Sampling
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.sampler import Conditioning, denoise
from skipsr.skipping.route import Route, from_cells, to_cells

GRIDS = [(1, 4, 6), (3, 5, 7), (4, 5, 6), (5, 2, 11), (2, 1, 1)]
TEXT = Conditioning(random(4, 32, seed=1), random(3, 32, seed=2))
GUIDED = Sampling(steps=3, guidance=2.5, rescale=0.3)


@pytest.fixture(scope="module", params=TRANSFORMERS)
def dit(request: pytest.FixtureRequest) -> DiT:
    return make_dit(TRANSFORMERS[request.param])


def latents(grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Noise and base of a token grid."""
    t, h, w = grid
    return random(t, 2 * h, 2 * w, 4, seed=3), random(t, 2 * h, 2 * w, 4, seed=4)


def slow_denoise(dit: DiT, noise: Tensor, base: Tensor, keep: Tensor, sampling: Sampling) -> Tensor:
    """Sampling as the spec words it, on the slow transformer; every cell is computed."""
    seen = torch.cat((base, torch.ones_like(base[..., :1])), -1)
    x = noise.double()
    times = [1000 * (1 - i / sampling.steps) for i in range(sampling.steps)] + [0.0]
    for now, then in itertools.pairwise(times):
        cells = to_cells(torch.cat((x, seen), -1))
        v = slow_velocity(dit, cells, TEXT.positive, now, keep)
        if sampling.guidance != 1:
            negative = slow_velocity(dit, cells, TEXT.negative, now, keep)
            guided = negative + sampling.guidance * (v - negative)
            ratio = v.std(-1, keepdim=True) / guided.std(-1, keepdim=True)
            v = sampling.rescale * guided * ratio + (1 - sampling.rescale) * guided
        x = x + from_cells(v) * (then - now) / 1000
    return x


def close(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-5 of what size the numbers have."""
    scale = max(1.0, theirs.abs().max().item())
    assert (ours.double() - theirs.double()).abs().max().item() <= 1e-5 * scale


@pytest.mark.parametrize("grid", GRIDS)
def test_keep_all_is_the_dense_network(dit: DiT, grid: tuple[int, int, int]):
    noise, base = latents(grid)
    everything = Route(torch.rand(grid, generator=torch.Generator().manual_seed(5)) >= 0)
    ours = denoise(dit, noise, base, TEXT, everything, Sampling())
    assert torch.equal(ours, denoise(dit, noise, base, TEXT, Route.dense(grid), Sampling()))
    close(ours, slow_denoise(dit, noise, base, everything.keep, Sampling()))


def test_keep_all_is_the_dense_network_guided_over_steps(dit: DiT):
    grid = (3, 4, 5)
    noise, base = latents(grid)
    ours = denoise(dit, noise, base, TEXT, Route.dense(grid), GUIDED)
    theirs = slow_denoise(dit, noise, base, torch.ones(grid, dtype=torch.bool), GUIDED)
    close(ours, theirs)


def masks(grid: tuple[int, int, int]) -> list[Tensor]:
    """Some of each kind: random ones, whole windows emptied, a single token, a single frame."""
    half = torch.ones(grid, dtype=torch.bool)
    half[..., : (grid[2] + 1) // 2] = False  # leaves the windows on the left without a token
    single = torch.zeros(grid, dtype=torch.bool)
    single[tuple(n // 2 for n in grid)] = True
    last = torch.zeros(grid, dtype=torch.bool)
    last[-1] = True
    few = random_mask(grid, 0.15, 6) | single
    return [few, random_mask(grid, 0.6, 7), half, single, last]


@pytest.mark.parametrize("grid", GRIDS[:4])
@pytest.mark.parametrize("which", range(5))
def test_kept_tokens_see_kept_keys_only(dit: DiT, grid: tuple[int, int, int], which: int):
    keep = masks(grid)[which]
    assert keep.any()
    noise, base = latents(grid)
    route = Route(keep)
    ours = denoise(dit, noise, base, TEXT, route, Sampling())
    theirs = slow_denoise(dit, noise, base, keep, Sampling())
    close(route.pack(to_cells(ours)), route.pack(to_cells(theirs)))
    skipped = Route(~keep)
    assert torch.equal(skipped.pack(to_cells(ours)), skipped.pack(to_cells(base)))


def test_kept_tokens_see_kept_keys_only_guided_over_steps(dit: DiT):
    grid = (4, 5, 6)
    keep = random_mask(grid, 0.3, 8)
    noise, base = latents(grid)
    ours = denoise(dit, noise, base, TEXT, Route(keep), GUIDED)
    theirs = slow_denoise(dit, noise, base, keep, GUIDED)
    close(Route(keep).pack(to_cells(ours)), Route(keep).pack(to_cells(theirs)))


def test_skipping_matters():
    """The reference would be worth little if the mask changed nothing."""
    dit = make_dit()
    grid = (3, 5, 7)
    noise, base = latents(grid)
    route = Route(random_mask(grid, 0.5, 9))
    sparse = denoise(dit, noise, base, TEXT, route, Sampling())
    dense = denoise(dit, noise, base, TEXT, Route.dense(grid), Sampling())
    difference = route.pack(to_cells(sparse)) - route.pack(to_cells(dense))
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("steps", [1, 4])
def test_keep_none_is_the_base_and_calls_no_transformer(
    steps: int, monkeypatch: pytest.MonkeyPatch
):
    dit = make_dit()

    def refuse(*_: object) -> None:
        raise AssertionError("the transformer was called")

    monkeypatch.setattr(dit, "forward", refuse)
    noise, base = latents((3, 4, 5))
    sampling = Sampling(steps=steps)
    out = denoise(dit, noise, base, TEXT, Route(torch.zeros(3, 4, 5, dtype=torch.bool)), sampling)
    assert torch.equal(out, base)
    with pytest.raises(AssertionError, match="was called"):
        denoise(dit, noise, base, TEXT, Route.dense((3, 4, 5)), sampling)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_skipped_content_has_no_influence(dit: DiT, share: float):
    grid = (4, 5, 7)
    keep = random_mask(grid, share, 10)
    noise, base = latents(grid)
    route, skipped = Route(keep), ~keep.repeat_interleave(2, 1).repeat_interleave(2, 2)
    before = denoise(dit, noise, base, TEXT, route, GUIDED)
    noise[skipped], base[skipped] = 100.0, -100.0
    after = denoise(dit, noise, base, TEXT, route, GUIDED)
    assert torch.equal(route.pack(to_cells(before)), route.pack(to_cells(after)))
    assert (after[skipped] == -100).all()


def test_order_inside_packed_sequences_is_irrelevant(dit: DiT):
    """Shuffle the places inside each window's sequence: every token must get the same result."""
    grid = (4, 6, 7)
    route = Route(random_mask(grid, 0.5, 11))
    noise, base = latents(grid)
    cells = route.pack(to_cells(torch.cat((noise, base, torch.ones_like(base[..., :1])), -1)))
    geometry = dit.geometry(route, 4)
    generator = torch.Generator().manual_seed(12)

    def shuffled(layout):  # type: ignore[no-untyped-def]
        bounds = layout.lengths.cumulative.tolist()
        pieces = [
            a + torch.randperm(b - a, generator=generator) for a, b in itertools.pairwise(bounds)
        ]
        source = torch.cat(pieces)  # the old place of what stands at each new place
        place = source.argsort()
        return replace(
            layout, order=layout.order[source], video=place[layout.video], text=place[layout.text]
        )

    other = replace(geometry, layouts=tuple(shuffled(layout) for layout in geometry.layouts))
    assert not torch.equal(other.layouts[0].order, geometry.layouts[0].order)
    time = torch.tensor(700.0)
    close(dit(cells, TEXT.positive, time, other), dit(cells, TEXT.positive, time, geometry))


def test_the_made_transformers_use_several_windows():
    """Otherwise the tests above would say nothing of windows."""
    from skipsr.backbones.seedvr2.windows import windows

    config: DiTConfig
    for config in TRANSFORMERS.values():
        for grid in GRIDS[1:4]:
            assert len(list(windows(grid, config.windows, shifted=False))) >= 4
            assert len(list(windows(grid, config.windows, shifted=True))) >= 6
    assert made_models.LIKE_7B.rotary == "pixel"
