"""Clips in, larger clips out: the heart of every job. It knows no file."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from skipsr.backbones.contract import Upscaled
from skipsr.clip import Clip
from skipsr.pipeline.crossfade import Joined, crossfade
from skipsr.skipping.compute_map import ComputeMap


@dataclass(slots=True)
class Tally:
    """Running totals of what was computed of a stream.

    Attributes:
        computed, total: units of the model that ran, and those that there are.
        spent: share of the dense model's compute, as a budget counts it, 0 to 1.
        stages: the share of each stage that ran.
    """

    computed: int = 0
    total: int = 0
    spent: float = 0.0
    stages: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def fraction(self) -> float:
        """Share of the units that ran, 0 to 1; 0 before anything did."""
        return self.computed / self.total if self.total else 0.0

    def add(self, computed: ComputeMap) -> None:
        """Count one window, which weighs as much as it has units."""
        spent = computed.fraction if computed.spent is None else computed.spent
        self.merge(Tally(computed.units_run, computed.units_total, spent, dict(computed.stages)))

    def merge(self, other: "Tally") -> None:
        """Count what another has counted."""
        whole = self.total + other.total
        if not whole:
            return

        def mean(before: float, share: float) -> float:
            return (before * self.total + share * other.total) / whole

        for stage, share in other.stages.items():
            self.stages[stage] = mean(self.stages.get(stage, 0.0), share)
        self.spent = mean(self.spent, other.spent)
        self.computed += other.computed
        self.total = whole


@dataclass(slots=True)
class Reach:
    """Progress through the windows, in frames; those that two windows share count once.

    Attributes:
        done: frames of the windows that have run.
    """

    done: int = 0
    _coming: int = 0  # frames that the window at work adds to `done`
    _end: int = 0  # the frame after its last

    def enter(self, clip: Clip, first: int = 0, stop: int | None = None) -> None:
        """A window begins, and the one before has run; only frames `[first, stop)` count."""
        end = clip.end if stop is None else min(clip.end, stop)
        self.done += self._coming
        self._coming = max(0, end - max(self._end, first))
        self._end = max(self._end, end)

    def frames(self, share: float) -> float:
        """Frames' worth of work that is done, with that share of the window at work."""
        return self.done + share * self._coming


def stream(
    clips: Iterable[Clip],
    run: Callable[[Clip], Upscaled],
    note: Callable[[Upscaled], None] = lambda _: None,
    rest: Clip | None = None,
) -> Iterator[Joined]:
    """Run every clip and join the results, cross-fading where clips share frames.

    One clip and one result are held at a time, so that memory does not grow with the stream. A
    result is passed on once the next clip was read, which tells how many frames they share.

    Args:
        clips: in order; see `crossfade`.
        run: makes a clip of the same frames larger.
        note: told every result before it is passed on.
        rest: see `crossfade`.

    Yields:
        Frames that follow one another without gap or overlap, at the times of their sources.
    """

    def enlarge(clip: Clip) -> Clip:
        result = run(clip)
        note(result)
        return replace(result.clip, times=clip.times)

    def results() -> Iterator[tuple[Clip, int]]:
        coming = iter(clips)
        clip = next(coming, None)
        while clip is not None:
            larger, end = enlarge(clip), clip.end
            clip = next(coming, None)
            yield larger, 0 if clip is None else end - clip.start
            del larger  # before the next one is made

    return crossfade(results(), rest)
