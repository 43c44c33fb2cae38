"""Windows tile the grid: every token lies in exactly one, regular or shifted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_models import random_mask

from skipsr.backbones.seedvr2.windows import geometry_of, window_size, windows
from skipsr.nn.rope import language_frequencies, pixel_frequencies
from skipsr.skipping.route import Route

grids = st.tuples(st.integers(1, 40), st.integers(1, 50), st.integers(1, 50))
counts = st.sampled_from([(4, 3, 3), (2, 9, 9), (2, 20, 15), (1, 1, 1)])


@given(grid=grids, counts=counts, shifted=st.booleans())
def test_every_token_in_exactly_one_window(grid, counts, shifted):
    times = torch.zeros(grid, dtype=torch.int)
    for (t0, t1), (h0, h1), (w0, w1) in windows(grid, counts, shifted=shifted):
        assert 0 <= t0 < t1 <= grid[0]
        assert 0 <= h0 < h1 <= grid[1]
        assert 0 <= w0 < w1 <= grid[2]
        times[t0:t1, h0:h1, w0:w1] += 1
    assert (times == 1).all()


@given(grid=grids, counts=counts, shifted=st.booleans())
def test_no_window_is_larger_than_the_size(grid, counts, shifted):
    size = window_size(grid, counts)
    for window in windows(grid, counts, shifted=shifted):
        assert all(end - start <= n for (start, end), n in zip(window, size, strict=True))


def test_regular_windows_at_720p():
    """45 x 80 tokens of 1280x720 in 3 x 3 windows of 15 x 27."""
    assert window_size((30, 45, 80), (4, 3, 3)) == (8, 15, 27)
    assert window_size((1, 45, 80), (4, 3, 3)) == (1, 15, 27)
    assert window_size((40, 45, 80), (4, 3, 3)) == (8, 15, 27)  # as 30, the longest
    assert len(list(windows((30, 45, 80), (4, 3, 3), shifted=False))) == 4 * 3 * 3


@pytest.mark.parametrize("rotary", ["language", "pixel"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_layouts_say_where_tokens_stand(rotary, shifted, share):
    """Sequences, places and angles of a layout against a loop over windows."""
    grid, text, counts = (4, 6, 7), 3, (2, 20, 15)
    route = Route(random_mask(grid, share, 1))
    frequencies = language_frequencies(8) if rotary == "language" else pixel_frequencies(4)
    layout = geometry_of(route, text, counts, rotary, frequencies).layouts[int(shifted)]
    number = {tuple(place): i for i, place in enumerate(route.positions.tolist())}
    order, lengths, angles = [], [], {}
    for spans in windows(grid, counts, shifted=shifted):
        ranges = [range(*span) for span in spans]
        inside = [
            (t, h, w)
            for t in ranges[0]
            for h in ranges[1]
            for w in ranges[2]
            if (t, h, w) in number
        ]
        for place in inside:
            local = [p - span[0] for p, span in zip(place, spans, strict=True)]
            if rotary == "language":
                position = [local[0] + text, *local[1:]]
            else:
                extent = [b - a for a, b in spans]
                position = [-1 + 2 * p / max(1, n - 1) for p, n in zip(local, extent, strict=True)]
            angles[number[place]] = [p * f for p in position for f in frequencies.tolist()]
        if inside:
            order += [number[place] for place in inside] + [route.kept + i for i in range(text)]
            lengths.append(len(inside) + text)
    assert layout.order.tolist() == order
    assert layout.lengths.total == sum(lengths)
    assert layout.lengths.cumulative.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert layout.order[layout.video].tolist() == list(range(route.kept))
    assert (layout.order[layout.text] == route.kept + torch.arange(text)).all()
    cosines = [[math.cos(a) for a in angles[i]] for i in range(route.kept)]
    torch.testing.assert_close(layout.rotation.cos[:, 0], torch.tensor(cosines), atol=1e-4, rtol=0)
