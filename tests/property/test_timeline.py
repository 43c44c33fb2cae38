"""Windows over a stream and their cross-fade: nothing lost, weights that sum to one."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_models import make_clip

from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.limits import Footprint, Limits
from skipsr.pipeline.crossfade import crossfade
from skipsr.timeline import Window, check_causal, check_windows, cut, split_shots

T = TypeVar("T")


def joined(clips: Iterable[Clip]) -> list[Clip]:
    """What `crossfade` makes of clips, which are told what they share with the next."""
    every = list(clips)
    shared = [a.start + len(a) - b.start for a, b in itertools.pairwise(every)]
    return [one.clip for one in crossfade(zip(every, [*shared, 0], strict=bool(every)))]


def split(frames: Iterable[T], window: int, overlap: int) -> Iterator[tuple[Window, list[T]]]:
    """The windows of one shot."""
    return split_shots(((frame, False) for frame in frames), window, overlap)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int]:
    """Frames, window, overlap."""
    window = draw(st.integers(1, 20))
    return draw(st.integers(0, 70)), window, draw(st.integers(0, window // 2))


@given(layout=layouts())
def test_split_covers_in_order_and_only_neighbours_overlap(layout):
    frames, window, overlap = layout
    parts = list(split(iter(range(frames)), window, overlap))
    seen: list[int] = []
    for place, held in parts:
        assert held == list(range(place.start, place.end))
        assert 1 <= place.frames <= window
        seen += held
    assert sorted(set(seen)) == list(range(frames))
    for (a, _), (b, _) in itertools.pairwise(parts):
        assert a.end - b.start == overlap
        assert a.frames == window
        assert b.end > a.end
    for (a, _), (_, _), (c, _) in zip(parts, parts[1:], parts[2:], strict=False):
        assert c.start >= a.end
    if frames:
        assert parts[-1][0].end == frames


@given(layout=layouts(), firsts=st.sets(st.integers(0, 75)))
def test_windows_of_shots_are_those_of_each_shot_alone(layout, firsts):
    frames, window, overlap = layout
    marked = ((place, place in firsts) for place in range(frames))
    parts = list(split_shots(marked, window, overlap))
    starts = sorted({0, *(first for first in firsts if first < frames)}) if frames else []
    expected: list[tuple[Window, list[int]]] = []
    for start, end in itertools.pairwise([*starts, frames]):
        for place, held in split(range(start, end), window, overlap):
            expected.append((Window(place.start + start, place.end + start), held))
    assert parts == expected
    for place, held in parts:
        assert held == list(range(place.start, place.end))
        assert not firsts.intersection(held[1:])
    assert list(cut(frames, window, overlap, firsts)) == [place for place, _ in parts]


@given(layout=layouts(), firsts=st.sets(st.integers(0, 75)))
def test_crossfade_joins_shots_without_mixing_them(layout, firsts):
    """Each shot is a grey of its own."""
    frames, window, overlap = layout
    greys = [sum(first <= place for first in firsts) / 100 for place in range(frames)]
    marked = ((torch.full((3, 1, 1), grey), i in firsts) for i, grey in enumerate(greys))
    clips = (Clip(torch.stack(held), w.start) for w, held in split_shots(marked, window, overlap))
    shown = [frame for clip in joined(clips) for frame in clip.frames[:, 0, 0, 0].tolist()]
    assert shown == pytest.approx(greys, abs=1e-6)


@given(layout=layouts())
def test_split_then_crossfade_gives_the_stream_back(layout):
    frames, window, overlap = layout
    stream = torch.rand((frames, 3, 2, 3), generator=torch.Generator().manual_seed(frames))
    clips = (Clip(torch.stack(held), place.start) for place, held in split(stream, window, overlap))
    found = joined(clips)
    position = 0
    for clip in found:
        assert clip.start == position
        position += len(clip)
    assert position == frames
    if frames:
        whole = torch.cat([clip.frames for clip in found])
        torch.testing.assert_close(whole, stream, atol=1e-6, rtol=0)


def test_what_is_causal_has_a_frame_more_and_whole_tokens():
    for shape in ((1, 16, 16), (1, 3, 9, 32, 48)):
        check_causal(shape, 4, 16)
    for shape in ((8, 32, 48), (9, 40, 48), (9, 32, 40)):
        with pytest.raises(ValueError, match=r"are not 4n\+1 frames with sides in steps of 16"):
            check_causal(shape, 4, 16)


@pytest.mark.parametrize(
    ("limits", "pixels", "window", "overlap"),
    [
        (Limits(step=4), 640 * 360, 25, 5),
        (Limits(step=4), 1920 * 1080, 13, 5),
        (Limits(step=4), 3840 * 2160, 5, 1),
        (Limits(), 640 * 360, 25, 5),
        (Limits(longest_window=100, overlap=2), 640 * 360, 100, 2),
        (Limits(longest_window=100, window_pixels=2_304_000, overlap=2), 640 * 360, 10, 2),
        (Limits(longest_window=100, overlap=0), 640 * 360, 100, 0),
    ],
)
def test_default_windows(limits: Limits, pixels: int, window: int, overlap: int):
    assert limits.window(pixels) == window
    assert limits.overlap_of(window) == overlap


@given(st.integers(1, 200), st.integers(64, 10**6), st.integers(64, 10**7))
def test_a_footprint_holds_the_frames_that_it_says(frames: int, source: int, result: int):
    footprint = Footprint(base=1000, source=50, source_frame=7, result=9, result_frame=3)
    memory = footprint.of(frames, source, result)
    assert footprint.frames(memory, source, result) == frames
    assert footprint.frames(memory - 1, source, result) == frames - 1


@pytest.mark.parametrize(("frames", "fit"), [(-3, 5), (4, 5), (8, 5), (9, 9), (1000, 25)])
def test_windows_fit_what_can_be_held(frames: int, fit: int):
    assert Limits(step=4).fit(frames) == fit


@pytest.mark.parametrize("overlap", [0, 1, 2, 5, 9])
def test_default_overlaps_fit_every_window(overlap: int):
    limits = Limits(overlap=overlap)
    for window in range(1, 40):
        check_windows(window, limits.overlap_of(window))
    assert limits.overlap_of(1) == 0


def test_split_reads_lazily_and_keeps_what_it_gave():
    read: list[int] = []

    def source():
        for i in range(100):
            read.append(i)
            yield i

    parts = split(source(), 5, 2)
    first = next(parts)[1]
    assert read == list(range(5))
    next(parts)
    assert read == list(range(8))
    assert first == list(range(5))


@pytest.mark.parametrize("shared", [1, 2, 3, 5])
def test_weights_of_an_overlap(shared):
    """From a black clip to a white one: a ramp strictly between 0 and 1, symmetric and even."""
    black = Clip(torch.zeros(8, 3, 2, 2))
    white = Clip(torch.ones(8, 3, 2, 2), 8 - shared)
    frames = torch.cat([clip.frames for clip in joined([black, white])])[:, 0, 0, 0]
    ramp = frames[8 - shared : 8]
    expected = torch.tensor([(i + 1) / (shared + 1) for i in range(shared)])
    torch.testing.assert_close(ramp, expected, atol=1e-6, rtol=0)
    assert ((ramp > 0) & (ramp < 1)).all()
    assert (frames[: 8 - shared] == 0).all()
    assert (frames[8:] == 1).all()
    turned = joined([Clip(white.frames), Clip(black.frames, 8 - shared)])
    back = torch.cat([clip.frames for clip in turned])
    torch.testing.assert_close(back[:, 0, 0, 0] + frames, torch.ones(16 - shared))


@given(layout=layouts())
def test_constant_clips_stay_constant(layout):
    frames, window, overlap = layout
    grey = torch.full((frames, 3, 1, 1), 0.7)
    clips = (Clip(torch.stack(held), place.start) for place, held in split(grey, window, overlap))
    for clip in joined(clips):
        torch.testing.assert_close(
            clip.frames, torch.full_like(clip.frames, 0.7), atol=1e-7, rtol=0
        )


def test_crossfade_leaves_its_input_alone():
    clips = [make_clip(6, 4, 4, 0), make_clip(6, 4, 4, 4, seed=1)]
    copies = [clip.frames.clone() for clip in clips]
    joined(clips)
    assert all(torch.equal(clip.frames, copy) for clip, copy in zip(clips, copies, strict=True))


@pytest.mark.parametrize("start", [6, 20, -1])
def test_a_gap_or_a_step_back_is_refused(start):
    with pytest.raises(ValueError, match="does not continue"):
        joined([make_clip(5, 4, 4, 0), make_clip(9, 4, 4, start)])


def test_a_clip_inside_another_is_refused():
    with pytest.raises(ValueError, match="does not continue"):
        joined([make_clip(9, 4, 4, 0), make_clip(3, 4, 4, 2)])


@pytest.mark.parametrize(
    ("shared", "frames", "start"),
    [(2, 5, 4), (5, 6, 0), (2, 2, 3)],  # others than was said, all of one, all of the next
)
def test_frames_that_cannot_be_shared_are_refused(shared: int, frames: int, start: int):
    with pytest.raises(ValueError, match="does not continue"):
        list(crossfade([(make_clip(5, 4, 4, 0), shared), (make_clip(frames, 4, 4, start), 0)]))


@given(layout=layouts(), cut_after=st.integers(0, 20))
def test_a_stream_goes_on_from_what_was_kept_of_it(layout, cut_after):
    """Split after any clip, and resumed with the frames held there."""
    frames, window, overlap = layout
    stream = torch.rand((frames, 3, 1, 2), generator=torch.Generator().manual_seed(frames))
    windows = [(place, torch.stack(held)) for place, held in split(stream, window, overlap)]
    # neighbours differ, so that a blend of others shows
    clips = [Clip(held * (i % 3 + 1) / 3, place.start) for i, (place, held) in enumerate(windows)]
    last = len(clips) - 1
    pairs = [(clip, overlap if i < last else 0) for i, clip in enumerate(clips)]
    whole = list(crossfade(pairs))
    first = whole[:cut_after]
    rest = first[-1].rest if first else None
    again = list(crossfade(pairs[cut_after:], rest))
    for a, b in zip(whole[cut_after:], again, strict=True):
        assert a.clip.start == b.clip.start
        assert torch.equal(a.clip.frames, b.clip.frames)


@pytest.mark.parametrize(("window", "overlap"), [(0, 0), (-1, 0), (4, 3), (5, -1), (1, 1)])
def test_windows_that_cannot_work(window, overlap):
    with pytest.raises(SettingsError, match=r"`window`|`overlap`"):
        check_windows(window, overlap)
    with pytest.raises(SettingsError, match=r"`window`|`overlap`"):
        next(split([0], window, overlap))


@given(frames=st.integers(1, 200), step=st.integers(1, 9), side=st.integers(1, 64))
def test_padding_is_the_least_that_fits(frames, step, side):
    limits = Limits(step=step, side=side)
    count, pixels = limits.pad_frames(frames), limits.pad_side(frames)
    assert (count - 1) % step == 0
    assert frames <= count < frames + step
    assert pixels % side == 0
    assert frames <= pixels < frames + side


def test_window_counts_its_frames():
    assert Window(3, 10).frames == 7
