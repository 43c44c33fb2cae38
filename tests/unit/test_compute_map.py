"""Compute maps: tokens laid over frames, fractions, and what is refused."""

import pytest
import torch

from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.route import Route


def test_the_first_layer_of_tokens_is_one_frame_the_others_four():
    keep = torch.zeros(3, 1, 2, dtype=torch.bool)
    keep[0, 0, 0] = keep[1, 0, 1] = True
    computed = ComputeMap.of_route(Route(keep), 7)  # the last layer reaches beyond the clip
    assert computed.cell_size == (16, 16)
    assert computed.fractions.dtype == torch.float32
    assert computed.fractions[:, 0].tolist() == [[1, 0]] + [[0, 1]] * 4 + [[0, 0]] * 2
    assert (computed.units_run, computed.units_total, computed.fraction) == (2, 6, 2 / 6)


def test_a_cell_counts_as_computed_from_a_half_on():
    share = torch.tensor([[[0.0, 0.49, 0.5, 1.0]]])
    computed = ComputeMap(fractions=share, cell_size=(64, 64), units_run=3, units_total=12)
    assert computed.keep.tolist() == [[[False, False, True, True]]]
    assert computed.fraction == 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": torch.ones(2, 3)}, r"not torch.float32 \(2, 3\)"),
        ({"fractions": torch.ones(1, 2, 3, dtype=torch.bool)}, "not torch.bool"),
        ({"fractions": torch.ones(1, 2, 3, device="meta")}, "on meta"),
        ({"cell_size": (0, 16)}, "cannot be"),
        ({"units_run": 7}, "7 units of 6"),
        ({"units_run": -1}, "-1 units of 6"),
        ({"units_run": 0, "units_total": 0}, "0 units of 0"),
    ],
)
def test_what_cannot_be(change: dict, message: str):
    right = {
        "fractions": torch.ones(1, 2, 3),
        "cell_size": (16, 16),
        "units_run": 6,
        "units_total": 6,
    }
    ComputeMap(**right)
    with pytest.raises(ValueError, match=message):
        ComputeMap(**(right | change))
