"""Models that enlarge by two: the networks of four, on frames folded two by two."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_models import perturb
from torch import Tensor

from skipsr.backbones.basicvsr.config import PRESETS, BasicVSRConfig
from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.backbones.basicvsr.network import BasicVSR

TINY = replace(PRESETS["tiny"], unshuffle=2)
CONFIGS = {"planes": TINY, "full size": replace(TINY, hr_feat=6)}
each_end = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def make(config: BasicVSRConfig, spread: float = 0.02) -> BasicVSR:
    torch.manual_seed(0)
    model = BasicVSR(config)
    perturb(model, spread=spread)
    return model.eval()


def frames(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@each_end
@torch.no_grad()
def test_frames_come_out_twice_as_large(config: BasicVSRConfig):
    result = make(config)(frames(2, 3, 3, 20, 26))
    assert result.shape == (2, 3, 3, 40, 52)
    assert result.isfinite().all()


@each_end
@torch.no_grad()
def test_a_last_layer_of_zeros_leaves_the_bilinear_frame(config: BasicVSRConfig):
    model, clip = make(config), frames(1, 3, 3, 20, 26)
    model.conv_last.weight.zero_()
    model.conv_last.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    plain = F.interpolate(clip[0], scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(clip)[0], plain, rtol=0, atol=1e-6)


@torch.no_grad()
def test_what_is_added_lies_where_its_pixels_lie():
    """One pixel of the input moves the result around its own place only."""
    model, clip = make(replace(TINY, num_block=1), spread=0.2), frames(1, 1, 3, 40, 64)
    other = clip.clone()
    other[..., 21, 40] += 0.5
    moved = (model(other) - model(clip)).abs().amax((0, 1, 2))
    assert moved[40:44, 80:84].max() > 0.01
    moved[24:60, 64:100] = 0  # and what four convolutions reach, four pixels each
    assert moved.max() == 0


@torch.no_grad()
def test_flow_is_that_of_the_halved_frames():
    folded, plain = make(TINY), make(PRESETS["tiny"])
    plain.spynet.load_state_dict(folded.spynet.state_dict())
    clip = frames(1, 3, 3, 32, 48)
    halved = F.avg_pool2d(clip[0], 2)[None]
    for found, expected in zip(folded.flows(clip), plain.flows(halved), strict=True):
        assert found.shape == (1, 2, 2, 16, 24)
        torch.testing.assert_close(found, expected)


def test_odd_sides_cannot_be_folded():
    with pytest.raises(ValueError, match="21x20 cannot be folded by 2"):
        make(TINY)(frames(1, 2, 3, 20, 21))


def test_it_learns_in_bfloat16():
    model, clip = make(TINY), frames(1, 3, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        result = model(clip)
    result.square().mean().backward()
    assert result.dtype == torch.float32
    used = [p.grad for name, p in model.named_parameters() if not name.startswith("router_")]
    assert all(grad is not None and grad.isfinite().all() for grad in used)
    entered = model.forward_trunk.main[0]
    assert isinstance(entered, torch.nn.Conv2d)
    assert entered.weight.grad is not None
    assert entered.weight.grad[:, :12].abs().amax((0, 2, 3)).min() > 0  # every folded channel


@pytest.mark.parametrize("name", ["nano", "small"])
def test_a_pixel_of_the_result_costs_the_same_at_two_as_at_four(name: str):
    four, two = cost_of(PRESETS[name]), cost_of(PRESETS[f"{name}-x2"])
    assert two.dense == pytest.approx(four.dense, rel=0.02)


def test_small_is_at_most_five_times_nano():
    assert cost_of(PRESETS["small"]).dense <= 5 * cost_of(PRESETS["nano"]).dense
