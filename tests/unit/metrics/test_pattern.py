"""Screen-door patterns: as computed slowly, found where there is one and nowhere else."""

import numpy as np
import pytest
import torch
from torch import Tensor

from skipsr.metrics import METRICS, MetricError
from skipsr.metrics.pattern import pattern


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def grey(plane: np.ndarray) -> Tensor:
    """One frame `1 3 h w` of whole levels `h w`."""
    assert (plane == plane.round()).all()
    return torch.from_numpy(plane / 255).float().expand(1, 3, *plane.shape)


def slow_pattern(frames: Tensor) -> np.ndarray:
    """Tile by tile, phase by phase, in float64: `t rows columns`."""
    pixels = (255 * frames.double()).round().numpy()
    luma = np.einsum("tchw,c->thw", pixels, [0.299, 0.587, 0.114])
    t, h, w = luma.shape
    high, wide = min(96, h // 4 * 4), min(96, w // 4 * 4)
    luma = luma[:, : h // high * high, : w // wide * wide]
    padded = np.pad(luma, ((0, 0), (2, 1), (2, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), axis=(1, 2))
    detail = luma - windows.mean((-1, -2))
    found = np.empty((t, h // high, w // wide))
    for i, r, c in np.ndindex(*found.shape):
        tile = detail[i, high * r : high * (r + 1), wide * c : wide * (c + 1)]
        found[i, r, c] = np.std([np.median(tile[p::4, q::4]) for p in range(4) for q in range(4)])
    return found


@pytest.mark.parametrize(
    ("h", "w", "rows", "columns"),
    [(96, 96, 1, 1), (200, 300, 2, 3), (50, 130, 1, 1), (20, 37, 1, 1), (4, 7, 1, 1)],
)
def test_as_computed_slowly(h: int, w: int, rows: int, columns: int):
    frames = random(2, 3, h, w)
    expected = slow_pattern(frames)
    found = pattern(frames)
    assert found.shape == (2, rows, columns)
    assert torch.allclose(found.double(), torch.from_numpy(expected), atol=1e-3)
    assert METRICS["pattern"].measure(frames, None) == pytest.approx(
        {
            "pattern_worst": expected.max(),
            "pattern_mean": expected.mean(),
            "pattern_tiles": (expected > 0.5).mean(),
        },
        abs=1e-3,
    )


def test_a_flat_frame_has_none():
    found = METRICS["pattern"].measure(torch.full((2, 3, 200, 200), 0.4), None)
    assert found == pytest.approx(
        {"pattern_worst": 0, "pattern_mean": 0, "pattern_tiles": 0}, abs=1e-4
    )


@pytest.mark.parametrize("amplitude", [1, 3])
def test_columns_that_are_too_bright(amplitude: int):
    """Of every four columns two are brighter and two darker by the amplitude, in one tile."""
    plane = np.full((192, 192), 100.0)
    plane[:96, 96:] += amplitude * np.array([1, 1, -1, -1])[np.arange(96) % 4]
    found = pattern(grey(plane))[0]
    assert found[0, 1].item() == pytest.approx(amplitude, abs=1e-4)
    found[0, 1] = 0
    assert found.max() < 1e-4
    figures = METRICS["pattern"].measure(grey(plane), None)
    assert figures["pattern_tiles"] == 0.25
    assert figures["pattern_mean"] == pytest.approx(amplitude / 4, abs=1e-4)


def test_one_pixel_of_sixteen():
    """A bright dot in each 4x4: the deviation of one value among sixteen, a sqrt(15) / 16."""
    plane = np.full((96, 96), 50.0)
    plane[1::4, 2::4] += 8
    assert pattern(grey(plane)).item() == pytest.approx(8 * 15**0.5 / 16, abs=1e-4)


def test_a_pattern_is_found_under_noise():
    noise = np.random.default_rng(0).normal(0, 4, (96, 960)).round()
    stripes = 2.0 * np.array([1, 1, -1, -1])[np.arange(960) % 4]
    assert pattern(grey(120 + noise)).max() < 0.6
    assert pattern(grey(120 + noise + stripes)).mean().item() == pytest.approx(2, abs=0.3)


def test_odd_periods_cancel_out():
    columns = np.arange(96)
    for period in (3, 5, 7):
        plane = np.tile(100 + 20.0 * (columns % period == 0), (96, 1))
        assert pattern(grey(plane)).max() < 1e-4, period


def test_a_ramp_has_next_to_none():
    """Rounded to levels, as a sky is in a file."""
    y, x = np.mgrid[:192, :288]
    assert pattern(grey((40 + 0.37 * x + 0.21 * y).round())).max() < 0.1


def test_what_is_no_clip():
    with pytest.raises(MetricError, match="a pattern needs at least 4 pixels a side, not 9x3"):
        pattern(torch.rand(1, 3, 3, 9))
    with pytest.raises(MetricError, match="cut both to one size"):
        METRICS["pattern"].measure(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))
