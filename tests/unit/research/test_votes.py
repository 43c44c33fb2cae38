"""Votes and key against hand-computed scores; bad files end in one sentence."""

import json
import math
from pathlib import Path

import pytest

from skipsr.errors import SettingsError
from skipsr.research.votes import VoteCount, score_votes

KEY = {"study": "abc", "a": "new", "b": "old", "left": {"one": "a", "two": "b", "three": "a"}}


def save(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return save(tmp_path / "study-key.json", KEY)


def test_scores_by_hand(key: Path, tmp_path: Path):
    # A is left, right, left: rater 1 votes good, good, same; rater 2 votes bad, good
    first = {"study": "abc", "votes": {"one": "left", "two": "right", "three": "same"}}
    second = {"study": "abc", "votes": {"one": "right", "two": "right"}}
    files = [save(tmp_path / "1.json", first), save(tmp_path / "2.json", second)]
    score = score_votes(files, key)
    assert (score.a, score.b, score.raters) == ("new", "old", 2)
    assert score.total == VoteCount(good=3, same=1, bad=1)
    assert score.total.score == pytest.approx((3 - 1) / 5)
    assert score.clips == {
        "one": VoteCount(1, 0, 1),
        "two": VoteCount(2, 0, 0),
        "three": VoteCount(0, 1, 0),
    }
    assert score.as_dict()["clips"]["two"]["score"] == 1


@pytest.mark.parametrize(
    "tally", [VoteCount(12, 5, 3), VoteCount(3, 1, 1), VoteCount(0, 4, 9), VoteCount(5, 0, 0)]
)
def test_an_interval_is_where_the_test_just_rejects(tally: VoteCount):
    """Likelihoods maximised by search: at both ends the standardised distance is 1.96."""
    low, high = tally.interval()
    assert -1 <= low <= tally.score <= high <= 1
    for end in (low, high):
        if -1 < end < 1:
            assert _distance(tally, end) == pytest.approx(1.96, abs=0.02)
        else:
            assert tally.score == end


def _distance(tally: VoteCount, difference: float) -> float:
    """|G - B - n d| over its standard deviation, at the likeliest shares with p_G - p_B = d."""
    n = tally.votes
    lowest, highest = max(0.0, -difference), (1 - difference) / 2
    shares = [lowest + (highest - lowest) * (i + 0.5) / 20000 for i in range(20000)]

    def likelihood(bad: float) -> float:
        parts = ((tally.good, bad + difference), (tally.bad, bad))
        rest = (tally.same, 1 - 2 * bad - difference)
        return sum(count * math.log(max(p, 1e-300)) for count, p in (*parts, rest) if count)

    bad = max(shares, key=likelihood)
    variance = n * (2 * bad + difference - difference**2)
    return abs(tally.good - tally.bad - n * difference) / math.sqrt(variance)


def test_the_interval_is_symmetric_and_narrows():
    low, high = VoteCount(7, 3, 2).interval()
    assert VoteCount(2, 3, 7).interval() == pytest.approx((-high, -low), abs=1e-6)
    wide, narrow = VoteCount(6, 2, 2).interval(), VoteCount(600, 200, 200).interval()
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 5
    assert VoteCount(0, 1, 0).interval()[0] < 0 < VoteCount(0, 1, 0).interval()[1]


BAD = {
    "another study": ({"study": "xyz", "votes": {"one": "left"}}, "another study"),
    "unknown clip": ({"study": "abc", "votes": {"four": "left"}}, "'four'"),
    "unknown choice": ({"study": "abc", "votes": {"one": "up"}}, "'up'"),
    "no votes": ({"study": "abc", "votes": {}}, "no vote"),
    "a list": ([1, 2], "no votes.json"),
    "votes as a list": ({"study": "abc", "votes": ["left"]}, "no votes.json"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_votes(what: str, key: Path, tmp_path: Path):
    content, words = BAD[what]
    with pytest.raises(SettingsError, match=words):
        score_votes([save(tmp_path / "votes.json", content)], key)


def test_bad_files(key: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="does not exist"):
        score_votes([tmp_path / "nowhere.json"], key)
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(SettingsError, match="cannot be read as JSON"):
        score_votes([tmp_path / "text.json"], key)
    with pytest.raises(SettingsError, match=r"no study-key\.json"):
        score_votes([key], save(tmp_path / "other.json", {"study": "abc"}))
