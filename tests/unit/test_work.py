"""Work: tokens laid over frames, shares, and what is refused."""

import pytest
import torch

from skipsr.skipping.route import Route
from skipsr.skipping.work import Work


def test_the_first_layer_of_tokens_is_one_frame_the_others_four():
    keep = torch.zeros(3, 1, 2, dtype=torch.bool)
    keep[0, 0, 0] = keep[1, 0, 1] = True
    work = Work.of_route(Route(keep), 7)  # the last layer reaches beyond the clip
    assert work.cell == (16, 16)
    assert work.share.dtype == torch.float32
    assert work.share[:, 0].tolist() == [[1, 0]] + [[0, 1]] * 4 + [[0, 0]] * 2
    assert (work.computed, work.total, work.fraction) == (2, 6, 2 / 6)


def test_a_place_counts_as_computed_from_a_half_on():
    share = torch.tensor([[[0.0, 0.49, 0.5, 1.0]]])
    work = Work(share=share, cell=(64, 64), computed=3, total=12)
    assert work.keep.tolist() == [[[False, False, True, True]]]
    assert work.fraction == 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": torch.ones(2, 3)}, r"not torch.float32 \(2, 3\)"),
        ({"share": torch.ones(1, 2, 3, dtype=torch.bool)}, "not torch.bool"),
        ({"share": torch.ones(1, 2, 3, device="meta")}, "on meta"),
        ({"cell": (0, 16)}, "cannot be"),
        ({"computed": 7}, "7 units of 6"),
        ({"computed": -1}, "-1 units of 6"),
        ({"computed": 0, "total": 0}, "0 units of 0"),
    ],
)
def test_what_cannot_be(change: dict, message: str):
    right = {"share": torch.ones(1, 2, 3), "cell": (16, 16), "computed": 6, "total": 6}
    Work(**right)
    with pytest.raises(ValueError, match=message):
        Work(**(right | change))
