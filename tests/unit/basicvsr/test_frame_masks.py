"""How many frames are looked at before masks are chosen, and which mask is whose."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from skipsr.backbones.basicvsr.frame_masks import FrameMasks, choose_masks
from skipsr.backbones.basicvsr.network import DIRECTIONS
from skipsr.skipping.decide import needed
from skipsr.skipping.dial import Dial, default_dial
from skipsr.skipping.need import HEADS, Need, head_of, load_need

MODEL = "skipvsr:nano"


@pytest.mark.parametrize(
    ("contrast", "asked", "kept"), [(1.0, [3], 1.0), (0.0, [3, 17], 0.0)], ids=["noise", "grey"]
)
def test_a_clip_that_needs_everything_is_asked_by_every_eighth_frame(
    contrast: float, asked: list[int], kept: float
):
    noise = torch.rand(20, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    frames = 0.5 + contrast * (noise - 0.5)
    predictor = load_need()
    seen: list[int] = []

    def note(_module: object, given: tuple[Tensor]) -> None:
        seen.append(len(given[0]))

    predictor.register_forward_pre_hook(note)
    masks = choose_masks(predictor, head_of(MODEL), frames, default_dial(MODEL), 0.85, reuse=False)
    assert seen == asked
    assert [mask.regions.fraction for mask in masks] == [kept] * 20


@pytest.mark.parametrize(("crossover", "whole"), [(0.5, True), (0.85, False)])
def test_a_frame_that_needs_much_is_run_whole(crossover: float, whole: bool):
    frames = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    frames[..., 40:] = 0.5
    masks = choose_masks(
        load_need(), head_of(MODEL), frames, default_dial(MODEL), crossover, reuse=False
    )
    assert [mask.regions.whole for mask in masks] == [whole] * 3


def test_each_frame_has_the_mask_of_its_own_need():
    frames = torch.rand(20, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    for i, frame in enumerate(frames):
        frame[:, :, 2 * i + 4 :] = 0.5  # what is noise grows from frame to frame
    predictor, head, dial = load_need(), head_of(MODEL), default_dial(MODEL)
    masks = choose_masks(predictor, head, frames, dial, 0.85, reuse=False)
    keeps = torch.stack([mask.regions.keep for mask in masks])
    expected = needed(predictor(frames), head, dial)
    assert torch.equal(keeps, expected)
    assert len({int(keep.sum()) for keep in keeps}) > 5


@pytest.mark.parametrize(("share", "count"), [(0.3, 8), (0.5, 8), (0.3, 12)])
def test_a_share_is_spent_on_what_moves(share: float, count: int):
    """The still half needs more, and costs nothing from the second frame on."""
    noise = torch.rand(count, 3, 48, 96, generator=torch.Generator().manual_seed(0))
    frames = torch.cat((noise[:1].expand_as(noise), 0.4 + 0.2 * noise), 3)
    dial = replace(default_dial(MODEL), share=share)
    masks = choose_masks(load_need(), head_of(MODEL), frames, dial, 0.85, reuse=True)
    keeps = torch.stack([mask.regions.keep for mask in masks]).float()
    assert keeps.mean().item() == pytest.approx(share, abs=0.02)
    assert keeps[1:, :, 28:].mean() > 0.8 * share


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_clip_of_one_colour_needs_nothing(level: float):
    frames = torch.full((3, 3, 48, 64), level)
    masks = choose_masks(
        load_need(), head_of(MODEL), frames, default_dial(MODEL), 0.85, reuse=False
    )
    assert not any(mask.regions.keep.any() for mask in masks)


def test_what_stands_still_is_run_once_and_stays_what_it_was():
    frames = torch.rand(1, 3, 48, 96, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1, 1)
    frames[..., 48:] = 0.5
    masks = choose_masks(load_need(), head_of(MODEL), frames, default_dial(MODEL), 0.85, reuse=True)
    first = masks[0].regions.keep
    assert 0 < first.sum() < first.numel()
    backward, forward = (
        [mask.regions_in(each).fraction > 0 for mask in masks] for each in DIRECTIONS
    )
    assert (forward, backward) == ([True, False, False], [False, False, True])
    assert torch.equal(masks[2].regions_in("backward").keep, first)
    for mask in masks:
        assert mask.refined is not None
        assert torch.equal(mask.refined, first)  # the other half shows the plain picture


def masks_of(needed_cells: Tensor) -> list[FrameMasks]:
    """Of a predictor that finds these to be needed, bool `t rows columns`."""
    mean = torch.where(needed_cells, 1e-2, 1e-8).log()[:, None].expand(-1, len(HEADS), -1, -1)
    need = Need(mean, torch.full_like(mean, 0.1))
    t, rows, columns = needed_cells.shape
    frames, dial = torch.zeros(t, 3, 4 * rows, 4 * columns), Dial(tau=1e-3)
    return choose_masks(lambda _: need, 0, frames, dial, 1.0, reuse=False)  # type: ignore[arg-type]


def test_a_cell_between_two_that_are_needed_is_run():
    row = torch.tensor([1, 0, 1, 0, 0, 1, 0, 0], dtype=torch.bool)
    (mask,) = masks_of(row.expand(1, 2, -1))
    assert mask.regions.keep.tolist() == [[1, 1, 1, 0, 0, 1, 0, 0]] * 2


def test_frames_that_keep_the_same_share_their_canvases():
    """Which are made but once."""
    cells = torch.zeros(8, 2, 6, dtype=torch.bool)
    cells[:3, :, 0] = cells[3:, :, 5] = True
    regions = [mask.regions for mask in masks_of(cells)]
    pairs = list(itertools.pairwise(regions))
    assert [a is b for a, b in pairs] == [torch.equal(a.keep, b.keep) for a, b in pairs]
    assert len({id(each) for each in regions}) == 3  # on average neither is needed around the cut
