"""Joining overlapping clips into one gapless stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from skipsr.clip import Clip


@dataclass(frozen=True, slots=True)
class Joined:
    """The next frames of a stream.

    Attributes:
        clip: frames that are final.
        rest: the frames right after them, into which the next clip will be blended, as they are
            before that; None where it shares none.
    """

    clip: Clip
    rest: Clip | None


def crossfade(clips: Iterable[tuple[Clip, int]], rest: Clip | None = None) -> Iterator[Joined]:
    """Blend neighbours linearly over the frames they share.

    Inside an overlap of n frames the later clip weighs 1/(n+1), 2/(n+1), ..., n/(n+1): the weights
    of both sum to one and none is zero or one. Of a clip that was passed on only the frames shared
    with the next are held.

    Args:
        clips: in order, each with the number of its last frames that the next one begins with.
        rest: the `rest` after which an earlier call of the same stream ended.

    Yields:
        Frames that follow one another without gap or overlap.

    Raises:
        ValueError: when clips leave a gap, share other frames than was said, or one lies inside
            another.
    """
    due = None if rest is None else rest.start
    for clip, shared in clips:
        before = 0 if rest is None else len(rest)
        follows = due is None or clip.start == due
        if not (follows and before < len(clip) and 0 <= shared < len(clip)):
            raise ValueError(
                f"a clip of {len(clip)} frames from {clip.start}, {shared} of them the next one's, "
                f"does not continue what ended at {due}, with {before} frames to share"
            )
        if rest is not None:
            clip = _blend(rest, clip)
        whole = len(clip) - shared
        due, rest = clip.start + whole, _copy(clip, whole) if shared else None
        yield Joined(clip.part(0, whole), rest)
        del clip  # before the next one is made


def _blend(rest: Clip, clip: Clip) -> Clip:
    shared = len(rest)
    places = torch.arange(1, shared + 1, dtype=torch.float32, device="cpu")
    weight = places.reshape(-1, 1, 1, 1) / (shared + 1)
    blended = torch.lerp(rest.frames, clip.frames[:shared], weight)
    return replace(clip, frames=torch.cat((blended, clip.frames[shared:])))


def _copy(clip: Clip, first: int) -> Clip:
    """The frames from `first` on; a view of them would keep all."""
    part = clip.part(first, len(clip))
    return replace(part, frames=part.frames.clone())
