"""The table of metrics holds together."""

import pytest
import torch
from made_models import make_clip

from skipsr.errors import SkipsrError
from skipsr.metrics import METRICS, MetricError

DEFAULTS = {"fidelity", "vmaf", "niqe", "brisque", "temporal", "pattern"}


def test_names_and_columns():
    assert all(metric.name == name for name, metric in METRICS.items())
    columns = [column for metric in METRICS.values() for column in metric.columns]
    assert len(columns) == len(set(columns))
    assert {better for m in METRICS.values() for better in m.columns.values()} == {
        "higher",
        "lower",
    }
    assert {name for name, metric in METRICS.items() if metric.default} == DEFAULTS


def test_a_missing_truth_is_refused():
    clip = make_clip(2, 64, 64).frames
    for metric in METRICS.values():
        if metric.needs_truth:
            with pytest.raises(MetricError, match="compares with the truth"):
                metric.measure(clip, None)


@pytest.mark.parametrize("name", METRICS)
def test_no_clip_is_refused(name: str):
    with pytest.raises(MetricError, match="metrics take t 3 h w floats"):
        METRICS[name].measure(torch.rand(3, 64, 64), torch.rand(3, 64, 64))


@pytest.mark.parametrize("name", sorted(DEFAULTS - {"vmaf"}))
def test_measured_columns_are_those_promised(name: str):
    clip, truth = make_clip(2, 200, 200).frames, make_clip(2, 200, 200, seed=1).frames
    found = METRICS[name].measure(clip, truth)
    assert found.keys() == METRICS[name].columns.keys()
    assert all(torch.isfinite(torch.tensor(value)) for value in found.values())


def test_errors_are_for_people():
    assert issubclass(MetricError, SkipsrError)
