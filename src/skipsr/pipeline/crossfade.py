"""Joining overlapping clips into one gapless stream."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from skipsr.clip import Clip


def crossfade(clips: Iterable[Clip]) -> Iterator[Clip]:
    """Blend neighbours linearly over the frames they share.

    Inside an overlap of n frames the later clip weighs 1/(n+1), 2/(n+1), ..., n/(n+1): the weights
    of both sum to one and none is zero or one. At most one overlap is held back.

    Args:
        clips: in order; each starts inside or right after the one before and reaches beyond it.

    Yields:
        Clips that follow one another without gap or overlap.

    Raises:
        ValueError: when clips leave a gap, or one lies inside another.
    """
    held: Clip | None = None
    for clip in clips:
        if held is None:
            held = clip
            continue
        shared = held.start + len(held) - clip.start
        if not 0 <= shared < len(clip) or clip.start < held.start:
            raise ValueError(f"clip at frame {clip.start} does not continue frames {held.start} to "
                             f"{held.start + len(held)}")  # fmt: skip
        if len(held) > shared:
            yield held.part(0, len(held) - shared)
        if shared:
            weight = torch.arange(1, shared + 1).reshape(-1, 1, 1, 1) / (shared + 1)
            blended = torch.lerp(held.frames[-shared:], clip.frames[:shared], weight)
            clip = replace(clip, frames=torch.cat((blended, clip.frames[shared:])))
        held = clip
    if held is not None:
        yield held
