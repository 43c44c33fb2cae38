"""Precision, recall and average precision against hand-computed numbers."""

import pytest
import torch

from skipsr.evaluation.ranking import Counts, average_precision


def test_average_precision_by_hand():
    # ranked: keep, skip, keep, skip: precision 1 at recall 1/2, 2/3 at recall 1
    scores = torch.tensor([[0.9, 0.8], [0.7, 0.1]])
    keep = torch.tensor([[True, False], [True, False]])
    assert average_precision(scores, keep) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_equal_scores_are_one_threshold():
    # all tied: one threshold with precision 1/4 at recall 1, whatever the order
    for place in range(4):
        keep = torch.arange(4) == place
        assert average_precision(torch.ones(4), keep) == pytest.approx(0.25)
    # a tie of one right and one wrong above a right one: 1/2 at recall 1/2, 2/3 at recall 1
    scores, keep = torch.tensor([0.9, 0.9, 0.3]), torch.tensor([True, False, True])
    assert average_precision(scores, keep) == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 3)


def test_extremes():
    keep = torch.tensor([True, True, False, False])
    assert average_precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), keep) == 1
    assert average_precision(torch.tensor([1.0, 2.0, 3.0, 4.0]), keep) == pytest.approx(
        0.5 * (1 / 3) + 0.5 * (2 / 4)
    )
    assert average_precision(torch.rand(4), torch.zeros(4, dtype=torch.bool)) is None


def test_counts_by_hand():
    found = torch.tensor([True, True, True, False, False, False, False, False])
    keep = torch.tensor([True, True, False, True, False, False, False, False])
    counts = Counts.of(found, keep)
    assert (counts.hits, counts.extra, counts.missed, counts.spared) == (2, 1, 1, 4)
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == pytest.approx(2 / 3)
    assert counts.f1 == pytest.approx(2 / 3)
    assert counts.skipped == 5 / 8
    assert counts.skippable == 5 / 8


def test_what_is_undefined_is_none():
    none, every = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    assert Counts.of(none, every).precision is None
    assert Counts.of(every, none).recall is None
    assert Counts.of(none, none).f1 is None
    assert Counts.of(none, every).f1 == 0
