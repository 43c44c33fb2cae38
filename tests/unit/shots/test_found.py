"""Shots that are found: at cuts, not at flashes or pans, a frame or two late and wherever one
begins to read."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pytest
from numpy.typing import NDArray

from skipsr.shots import AHEAD, BEHIND, FoundShots

Frame = NDArray[np.uint8]
COUNT = 12


def scene(seed: int, *, height: int = 90, width: int = 160, count: int = COUNT) -> list[Frame]:
    """Soft blobs of all sizes that drift a little, under noise."""
    rng = np.random.default_rng(seed)
    whole = np.full((height, width + COUNT, 3), 120.0)
    for cells in (3, 7, 15):
        down, across = between(cells, height), between(2 * cells, width + COUNT)
        blobs = rng.normal(0, 45, (cells, 2 * cells, 3))
        whole += np.einsum("yi,ijc,xj->yxc", down, blobs, across, optimize=True)
    shown = np.stack([whole[:, i : i + width] for i in range(count)])
    return list((shown + rng.normal(0, 3, shown.shape)).clip(0, 255).astype(np.uint8))


def between(cells: int, pixels: int) -> NDArray[np.float64]:
    """Weights of cells at pixels, linear."""
    places = np.linspace(0, cells - 1, pixels)
    return np.stack([np.interp(places, range(cells), row) for row in np.eye(cells)], 1)


def found(frames: Sequence[NDArray[np.generic]]) -> list[int]:
    marked = list(FoundShots().mark(frames, lambda frame: frame))
    assert all(frame is given for (frame, _), given in zip(marked, frames, strict=True))
    return [place for place, (_, begins) in enumerate(marked) if begins]


@pytest.mark.parametrize("seed", range(8))
def test_shots_begin_at_cuts(seed: int):
    shots = [scene(3 * seed + i, count=count) for i, count in enumerate((5, 1, 2, 12))]
    assert found(list(chain.from_iterable(shots))) == [0, 5, 6, 8]


def test_a_cut_is_found_at_every_size_and_depth():
    frames = scene(0) + scene(1)
    assert found([frame.astype(np.uint16) * 257 for frame in frames]) == [0, COUNT]
    for height, width in ((8, 8), (16, 100), (300, 40)):
        joined = scene(2, height=height, width=width) + scene(3, height=height, width=width)
        assert found(joined) == [0, COUNT]


def test_cuts_to_and_from_black_are_found():
    black = [np.zeros((90, 160, 3), np.uint8)] * 5
    assert found(scene(0) + black + scene(1)) == [0, COUNT, COUNT + 5]


@pytest.mark.parametrize("long", [1, 2])
@pytest.mark.parametrize("light", [0.5, 1.0])
def test_a_flash_is_no_cut(long: int, light: float):
    frames = scene(4)
    for i in range(5, 5 + long):
        frames[i] = (frames[i] + light * (255.0 - frames[i])).astype(np.uint8)
    assert found(frames) == [0]


@pytest.mark.parametrize("speed", [-8, 3, 10])  # pixels of 160 a frame
def test_a_pan_is_no_cut(speed: int):
    wide = scene(5, width=300, count=1)[0]
    places = range(0, 130, abs(speed)) if speed > 0 else range(130, 0, speed)
    assert found([wide[:, place : place + 160] for place in places]) == [0]


@pytest.mark.parametrize("frames", [[], scene(6)[:1], [np.zeros((9, 9, 3), np.uint8)] * 6])
def test_nothing_much_is_one_shot(frames: list[Frame]):
    assert found(frames) == [0][: len(frames)]


def test_few_frames_are_held_and_none_where_no_cut_is_near():
    asked = 0

    def read() -> Iterator[Frame]:
        nonlocal asked
        for frame in scene(7) + scene(8) + scene(9):
            asked += 1
            yield frame

    ahead = [
        asked - given
        for given, _ in enumerate(FoundShots().mark(read(), lambda frame: frame), start=1)
    ]
    assert max(ahead) == AHEAD
    assert [place for place, held in enumerate(ahead) if held] == [12, 13, 24, 25]


def test_where_reading_begins_matters_to_the_first_frames_alone():
    frames = scene(10) + scene(11) + scene(10)[:2] + scene(11) + scene(12)
    whole = set(found(frames))
    for start in range(1, len(frames), 2):
        later = {start + place for place in found(frames[start:])}
        assert {p for p in later if p >= start + BEHIND} == {
            p for p in whole if p >= start + BEHIND
        }


def test_a_fade_is_no_row_of_cuts():
    light = np.concatenate((np.linspace(1, 0, 8), np.linspace(0, 1, 8)))
    frames = scene(13, count=8) + scene(13, count=8)
    dimmed = [(frame * share).astype(np.uint8) for frame, share in zip(frames, light, strict=True)]
    assert found(dimmed)[2:] == []
    flat = [np.full((90, 160, 3), 8 * i, np.uint8) for i in range(30)]
    assert found(flat) == [0]
