"""Counting the votes of a blind study: (G - B) / (G + S + B), the paper's score."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from skipsr.errors import SettingsError

_CHOICES = ("left", "same", "right")
_Z = 1.959964  # 95 %


@dataclass(frozen=True, slots=True)
class VoteCount:
    """Votes for model A: it is better, the same, or worse than B."""

    good: int = 0
    same: int = 0
    bad: int = 0

    def __add__(self, other: "VoteCount") -> "VoteCount":
        return VoteCount(self.good + other.good, self.same + other.same, self.bad + other.bad)

    @property
    def votes(self) -> int:
        return self.good + self.same + self.bad

    @property
    def score(self) -> float:
        """(G - B) / (G + S + B), -1 to 1."""
        return (self.good - self.bad) / self.votes

    def interval(self) -> tuple[float, float]:
        """95 % score interval of a difference of paired proportions.

        It is Tango's (Statistics in Medicine 17, 1998), which, like Wilson's, stays inside -1 to 1;
        votes count as independent.
        """
        return (
            -1.0 if self.score == -1 else _solve(lambda d: self._statistic(d) - _Z, self.score, -1),
            1.0 if self.score == 1 else _solve(lambda d: self._statistic(d) + _Z, self.score, 1),
        )

    def as_dict(self) -> dict[str, float]:
        low, high = self.interval()
        return {**asdict(self), "score": self.score, "low": low, "high": high}

    def _statistic(self, difference: float) -> float:
        """Standardised distance of the counts from a true difference; falls from + to -."""
        n, good, bad = self.votes, self.good, self.bad
        # the likeliest share of bad votes, given the difference: a root of a x^2 + b x + c
        b = (2 * n - good + bad) * difference - good - bad
        c = -bad * difference * (1 - difference)
        share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        distance = good - bad - n * difference
        if variance <= 0:
            return 0.0 if distance == 0 else math.copysign(math.inf, distance)
        return distance / math.sqrt(variance)


@dataclass(frozen=True, slots=True)
class Score:
    """What the raters found: model A against model B."""

    a: str
    b: str
    raters: int
    clips: Mapping[str, VoteCount]  # of the clips that have votes

    @property
    def total(self) -> VoteCount:
        return sum(self.clips.values(), VoteCount())

    def as_dict(self) -> dict[str, Any]:
        clips = {clip: tally.as_dict() for clip, tally in self.clips.items()}
        head = {"a": self.a, "b": self.b, "raters": self.raters}
        return {**head, "total": self.total.as_dict(), "clips": clips}


def score_votes(files: Sequence[Path], key_file: Path) -> Score:
    """Join votes with the key.

    Args:
        files: one `votes.json` for each rater.
        key_file: the `study-key.json` written beside the page.

    Raises:
        SettingsError: for a file that cannot be read, is of another study, holds a vote for an
            unknown clip or an unknown choice, or when there is no vote at all.
    """
    key = _read(key_file, ("study", "a", "b", "left"), "study-key.json")
    left = cast(dict[str, str], key["left"])
    tallies = dict.fromkeys(left, VoteCount())
    for file in files:
        ballot = _read(file, ("study", "votes"), "votes.json")
        if ballot["study"] != key["study"]:
            raise SettingsError(f"{file} belongs to another study than {key_file}")
        for clip, choice in cast(dict[str, str], ballot["votes"]).items():
            if clip not in left or choice not in _CHOICES:
                raise SettingsError(
                    f"{file} has the vote {choice!r} for {clip!r}, which this study does not know"
                )
            tallies[clip] += _tally(choice, left[clip])
    voted = {clip: tally for clip, tally in tallies.items() if tally.votes}
    if not voted:
        raise SettingsError(f"{', '.join(map(str, files))}: no vote in it")
    return Score(str(key["a"]), str(key["b"]), len(files), voted)


def _tally(choice: str, left: str) -> VoteCount:
    if choice == "same":
        return VoteCount(same=1)
    return VoteCount(good=1) if (choice == "left") == (left == "a") else VoteCount(bad=1)


def _read(path: Path, names: Sequence[str], kind: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist") from None
    except (OSError, ValueError):
        raise SettingsError(f"{path} cannot be read as JSON: give a {kind}") from None
    if not isinstance(found, dict) or any(name not in found for name in names):
        raise SettingsError(f"{path} is no {kind} of a study")
    entries = cast(dict[str, Any], found)
    if not isinstance(entries[names[-1]], dict):
        raise SettingsError(f"{path} is no {kind} of a study")
    return entries


def _solve(function: Callable[[float], float], inside: float, outside: float) -> float:
    """The root between `inside` and `outside` of a monotonic function, by bisection."""
    sign = function(inside) > 0
    for _ in range(60):
        middle = (inside + outside) / 2
        if (function(middle) > 0) == sign:
            inside = middle
        else:
            outside = middle
    return (inside + outside) / 2
