"""Flicker at the borders of a mask against a slow definition, and where it is known."""

import pytest
import torch
from made_models import random, random_mask
from torch import Tensor

from skipsr.metrics import MetricError
from skipsr.metrics.flicker import Flicker, border_flicker

CELL = (16, 16)


def slow_flicker(frames: Tensor, reference: Tensor, keep: Tensor, cell: tuple[int, int]) -> Flicker:
    """Pixel by pixel."""
    residual = 255 * (frames - reference)
    border: list[float] = []
    calm: dict[float, list[float]] = {0.0: [], 1.0: []}
    mixture: list[float] = []
    count, _, h, w = frames.shape

    def state(frame: int, y: int, x: int) -> bool:
        return bool(keep[frame, y // cell[0], x // cell[1]])

    def near(frame: int, y: int, x: int) -> bool:
        """Whether a pixel up to 8 away has the other state."""
        return any(
            state(frame, b, a) != state(frame, y, x)
            for b in {max(0, y - 8), y, min(h - 1, y + 8)}
            for a in {max(0, x - 8), x, min(w - 1, x + 8)}
        )

    for i in range(count - 1):
        change = (residual[i + 1] - residual[i]).abs().mean(0)
        one, other = i, i + 1
        for y in range(h):
            for x in range(w):
                states = (state(one, y, x) + state(other, y, x)) / 2
                if states == 0.5 or near(one, y, x) or near(other, y, x):
                    border.append(change[y, x].item())
                    mixture.append(states)
                else:
                    calm[states].append(change[y, x].item())
    kept, skipped = (sum(v) / len(v) for v in (calm[1.0], calm[0.0]))
    share = sum(mixture) / len(mixture)
    return Flicker(
        border=sum(border) / len(border),
        calm=share * kept + (1 - share) * skipped,
        share=len(border) / ((count - 1) * h * w),
    )


@pytest.mark.parametrize("cell", [(16, 16), (20, 24)])
def test_against_the_slow_definition(cell: tuple[int, int]):
    frames, reference = random(3, 3, 48, 64) * 0.1, random(3, 3, 48, 64, seed=1) * 0.1
    keep = random_mask((3, -(-48 // cell[0]), -(-64 // cell[1])), 0.5)
    keep[:, :, 2:] = True  # some calm pixels of both kinds
    keep[:, :2, :2] = False
    frames = frames * (1 + torch.linspace(0, 1, 64))  # so that places count differently
    expected = slow_flicker(frames, reference, keep, cell)
    found = border_flicker(frames, reference, keep, cell)
    assert found.border == pytest.approx(expected.border, rel=1e-5)
    assert found.calm == pytest.approx(expected.calm, rel=1e-5)
    assert found.share == pytest.approx(expected.share)


def half_kept(count: int = 5, h: int = 64, w: int = 96) -> tuple[Tensor, Tensor]:
    """A still reference, and a mask whose left half is kept."""
    keep = torch.zeros(count, h // 16, w // 16, dtype=torch.bool)
    keep[:, :, : w // 32] = True
    return torch.full((count, 3, h, w), 0.5), keep


def test_even_noise_does_not_show_borders():
    reference, keep = half_kept()
    found = border_flicker(reference + 0.05 * random(5, 3, 64, 96), reference, keep, CELL)
    assert found.border == pytest.approx(found.calm, rel=0.02)
    assert found.share == pytest.approx(16 / 96)


def test_restless_kept_regions_are_no_border_flicker():
    """Kept tokens carry detail and change more; that alone must not count."""
    reference, keep = half_kept()
    noise = 0.05 * random(5, 3, 64, 96)
    noise[..., 48:] *= 0.1
    found = border_flicker(reference + noise, reference, keep, CELL)
    assert found.border == pytest.approx(found.calm, rel=0.03)


def test_a_trembling_seam():
    reference, keep = half_kept()
    frames = reference.clone()
    frames[1::2, ..., 40:56] += 10 / 255
    found = border_flicker(frames, reference, keep, CELL)
    assert found.border == pytest.approx(10, rel=1e-4)
    assert found.calm == 0


def test_motion_of_the_reference_does_not_count():
    _, keep = half_kept()
    reference = torch.rand(5, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = border_flicker(reference + 0.1, reference, keep, CELL)
    assert found.border < 1e-3
    assert found.calm < 1e-3


def test_places_that_switch():
    """Kept in frame 0, skipped in 1 to 4, kept in 5 to 8: two steps of eight switch."""
    reference = torch.full((9, 3, 32, 32), 0.5)
    keep = torch.tensor([True] + [False] * 4 + [True] * 4)[:, None, None].expand(9, 2, 2)
    frames = reference.clone()
    frames[1:5] += 4 / 255  # what skipping changes
    found = border_flicker(frames, reference, keep, CELL)
    assert found.border == pytest.approx(4, rel=1e-4)
    assert found.calm == pytest.approx(0, abs=1e-4)
    assert found.share == pytest.approx(2 / 8)


def test_without_borders():
    reference = torch.full((5, 3, 32, 32), 0.5)
    frames = reference + 0.1 * random(5, 3, 32, 32)
    found = border_flicker(frames, reference, torch.ones(5, 2, 2, dtype=torch.bool), CELL)
    assert found.border == found.calm > 0
    assert found.share == 0


def test_sizes_that_are_no_multiples_of_a_token():
    reference = torch.full((2, 3, 40, 24), 0.5)
    keep = torch.tensor([[[True, True], [True, True], [False, False]]] * 2)
    found = border_flicker(reference, reference, keep, CELL)
    assert found.share == pytest.approx(16 / 40)


def test_refusals():
    frames = torch.zeros(5, 3, 32, 48)
    keep = torch.zeros(5, 2, 3, dtype=torch.bool)
    with pytest.raises(MetricError, match=r"is bool 5 2 3, not torch\.bool \(4, 2, 3\)"):
        border_flicker(frames, frames, keep[:4], CELL)
    with pytest.raises(MetricError, match=r"is bool 5 2 2, not torch\.bool \(5, 2, 3\)"):
        border_flicker(frames, frames, keep, (16, 24))
    with pytest.raises(MetricError, match=r"not torch\.float32"):
        border_flicker(frames, frames, keep.float(), CELL)
    with pytest.raises(MetricError, match="two frames"):
        border_flicker(frames[:1], frames[:1], keep[:1], CELL)
    keep[1] = True  # all places switch at the only step
    with pytest.raises(MetricError, match="no place away from a border"):
        border_flicker(frames[:2], frames[:2], keep[:2], CELL)
