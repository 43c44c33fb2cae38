"""What causal layers remember stays on the device as long as there is room."""

import gc

import pytest
import torch

from skipsr.backbones.seedvr2.canvas_levels import CanvasLevels
from skipsr.backbones.seedvr2.regional_tails import RegionalTails
from skipsr.nn.causal import CausalConv3d
from skipsr.nn.tails import HostMemory, TailMemory

CARD = torch.empty(0, dtype=torch.bfloat16, device="meta")


@pytest.fixture
def pieces() -> list[int]:
    """Bytes of all pieces that `host` has asked for."""
    return []


@pytest.fixture
def host(pieces: list[int]) -> HostMemory:
    def empty(size: int) -> torch.Tensor:
        pieces.append(size)
        return torch.zeros(size, dtype=torch.uint8)

    return HostMemory(empty)


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
    tails = RegionalTails(TailMemory(2 * height * width * 3 * 4))
    for levels, after in ((more, more), (more, more), (more, less), (less, less)):
        seen = torch.empty(3, *levels.plan(16).shape, 3, device=device)
        tails.keep(conv, seen, 2, levels, after, 16)
        assert tails._tails[conv].device == device
        assert tails._tails[conv].shape == (2, *after.plan(16).shape, 3)


def test_on_the_host_tails_lie_side_by_side(host: HostMemory, pieces: list[int]):
    """Of sixteen that are a little over a power of two, few bytes are left over."""
    shapes = [(2, 9, 257)] * 16
    expected = sum(2 * 2 * 9 * 257 for _ in shapes)
    memory = TailMemory(0, host, expected)
    found = [memory.take(CARD, shape) for shape in shapes]
    for number, tail in enumerate(found):
        assert tail.shape == shapes[number]
        tail.fill_(number)
    assert all((tail == number).all() for number, tail in enumerate(found))
    assert {tail.data_ptr() % 64 for tail in found} == {found[0].data_ptr() % 64}
    assert expected <= sum(pieces) < 1.2 * expected
    assert all(size & (size - 1) == 0 for size in pieces)  # to which torch would round them


def test_the_next_clip_s_tails_wait_where_the_last_one_s_did(host: HostMemory, pieces: list[int]):
    """Whichever share of them is there: what is pinned once is all there is."""
    whole = 4096
    TailMemory(0, host, 8 * 2 * whole).take(CARD, (whole,))  # a clip that ended early
    first = None
    for share in (1.0, 0.3, 0.7, 0.55, 0.9, 1.0):
        memory = TailMemory(0, host, 8 * 2 * whole)
        tails = [memory.take(CARD, (int(share * whole),)) for _ in range(8)]
        first = first or tails[0].data_ptr()
        assert tails[0].data_ptr() == first
        del memory, tails
    assert pieces == [8 * 2 * whole]


def test_two_clips_at_a_time_share_no_memory(host: HostMemory, pieces: list[int]):
    one, other = TailMemory(0, host, 512), TailMemory(0, host, 512)
    a, b = one.take(CARD, (256,)), other.take(CARD, (256,))
    a.fill_(1)
    b.fill_(2)
    assert bool((a == 1).all())
    assert pieces == [512, 512]
    del one
    gc.collect()
    assert TailMemory(0, host, 512).take(CARD, (256,)).data_ptr() == a.data_ptr()


def test_more_than_was_expected_gets_memory_of_its_own(host: HostMemory, pieces: list[int]):
    memory = TailMemory(0, host, 100)
    for count in (40, 200, 1000):
        assert memory.take(CARD, (count,)).shape == (count,)
    assert pieces == [256, 512, 2048]


def test_memory_that_was_taken_in_inference_serves_outside_of_it():
    host = HostMemory()
    with torch.inference_mode():
        TailMemory(0, host).take(CARD, (4,)).fill_(1)
    TailMemory(0, host).take(CARD, (4,)).fill_(2)
