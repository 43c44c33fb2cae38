"""What causal layers remember stays on the device as long as there is room."""

import pytest
import torch

from skipsr.backbones.seedvr2.canvas_levels import CanvasLevels
from skipsr.backbones.seedvr2.regional_tails import RegionalTails
from skipsr.nn.causal import CausalConv3d
from skipsr.nn.tails import TailMemory


def test_tails_wait_in_the_hosts_memory_where_there_is_no_room_beside_those_before():
    memory, like = TailMemory(100), torch.empty(1, dtype=torch.bfloat16, device="meta")
    found = [memory.take(like, (2, count)) for count in (10, 10, 10, 5, 1)]
    assert [tail.device.type for tail in found] == ["meta", "meta", "cpu", "meta", "cpu"]
    assert [tail.shape for tail in found] == [(2, count) for count in (10, 10, 10, 5, 1)]
    assert {tail.dtype for tail in found} == {torch.bfloat16}


def test_without_a_limit_all_tails_stay():
    like = torch.empty(1, device="meta")
    memory = TailMemory()
    assert {memory.take(like, (2**30,)).device.type for _ in range(3)} == {"meta"}


def test_a_processor_has_its_tails_in_plain_memory(monkeypatch: pytest.MonkeyPatch):
    """Also beside a card, for which memory would be pinned, as cannot be done here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert TailMemory(0).take(torch.empty(1), (2, 3)).shape == (2, 3)


def test_the_tail_of_the_next_slice_takes_the_place_of_the_one_before():
    """Also where less is kept; so there is room for it."""
    conv, device = CausalConv3d(3, 3, (3, 3, 3)), torch.device("meta")
    keep = torch.ones(4, 8, dtype=torch.bool)
    keep[:2, 4:] = False
    fewer = keep.clone()
    fewer[:2] = False
    more, less = (CanvasLevels(mask, 2, (8, 16), device) for mask in (keep, fewer))
    plans = more.plan(16), less.plan(16)
    height, width = plans[0].shape
    assert plans[1].shape[1] < width
    tails = RegionalTails(2 * height * width * 3 * 4)
    for levels, after in ((more, more), (more, more), (more, less), (less, less)):
        seen = torch.empty(3, *levels.plan(16).shape, 3, device=device)
        tails.keep(conv, seen, 2, levels, after, 16)
        assert tails._tails[conv].device == device
        assert tails._tails[conv].shape == (2, *after.plan(16).shape, 3)
