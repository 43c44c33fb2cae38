"""Single frames, odd sides and sides of 32 pixels and less, where the original cannot go."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_models import perturb
from torch import Tensor, nn

from skipsr.backbones.basicvsr.config import PRESETS, SCALE, BasicVSRConfig, FlowConfig
from skipsr.backbones.basicvsr.flow import SPyNet
from skipsr.backbones.basicvsr.network import BasicVSR

PUBLISHED = BasicVSRConfig(num_feat=4, num_block=2)  # its parts, with few channels
SMALL = [(8, 8), (32, 32), (20, 64), (5, 7), (33, 47)]


def make(config: BasicVSRConfig) -> BasicVSR:
    torch.manual_seed(0)
    model = BasicVSR(config)
    perturb(model, spread=0.02)
    return model.eval().requires_grad_(False)


def make_spynet(levels: int = 6) -> SPyNet:
    torch.manual_seed(0)
    return SPyNet(FlowConfig(levels=levels)).eval().requires_grad_(False)


def frames(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.rand(1, count, 3, *size, generator=torch.Generator().manual_seed(seed))


def pictures(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    first, second = frames(2, size).unbind(1)
    return first, second


def clear(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()


@pytest.mark.parametrize("size", [(37, 53), (33, 70), (8, 20), (1, 40)])
def test_flow_of_odd_sides_is_that_of_resized_pictures(size: tuple[int, int]):
    """Sides grow to multiples of 32, and vectors shrink with them again."""
    spynet = make_spynet()
    ref, supp = pictures(size)
    h, w = (-(-side // 32) * 32 for side in size)
    wide = [F.interpolate(x, (h, w), mode="bilinear", align_corners=False) for x in (ref, supp)]
    flow = F.interpolate(spynet(*wide), size, mode="bilinear", align_corners=False)
    flow[:, 0] *= size[1] / w
    flow[:, 1] *= size[0] / h
    found = spynet(ref, supp)
    assert found.shape == (1, 2, *size)
    assert found.abs().max() > 0.01
    assert torch.allclose(found, flow, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (32, 96)])
def test_a_coarsest_level_of_one_pixel_that_adds_nothing(size: tuple[int, int]):
    """Then five levels give the same as six, whose sides need only be multiples of 16."""
    six, five = make_spynet(), make_spynet(levels=5)
    clear(six.basic_module[0])
    for level, other in zip(six.basic_module[1:], five.basic_module, strict=True):
        other.load_state_dict(level.state_dict())
    ref, supp = pictures(size)
    assert five(ref, supp).abs().max() > 0.01
    assert torch.equal(six(ref, supp), five(ref, supp))


def test_a_coarsest_level_of_one_pixel_moves_everything():
    """What it adds, in its pixels, doubles at each of five finer levels."""
    spynet = make_spynet()
    clear(spynet)
    last = spynet.basic_module[0].basic_module[-1]
    last.bias.copy_(torch.tensor([0.25, -0.5]))
    flow = spynet(*pictures((32, 32)))
    moved = torch.tensor([8.0, -16.0]).reshape(1, 2, 1, 1).expand(1, 2, 32, 32)
    assert torch.allclose(flow, moved, atol=1e-4)


def test_equal_networks_of_two_pictures_in_a_batch():
    spynet = make_spynet()
    (a, b), (c, d) = pictures((40, 33)), frames(2, (40, 33), seed=1).unbind(1)
    together = spynet(torch.cat((a, c)), torch.cat((b, d)))
    alone = torch.cat((spynet(a, b), spynet(c, d)))
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("config", [PUBLISHED, PRESETS["tiny"]], ids=["published", "tiny"])
@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("count", [1, 3])
def test_a_clip_and_its_mirror_in_time(config: BasicVSRConfig, size: tuple[int, int], count: int):
    """A network with its directions exchanged does to the reversed clip what the other did."""
    model, mirrored = make(config), BasicVSR(config).eval()
    state = model.state_dict()
    ways = {"backward_trunk": "forward_trunk", "forward_trunk": "backward_trunk"}
    swapped = {
        ".".join((ways.get(first, first), rest)) if rest else first: value
        for name, value in state.items()
        for first, _, rest in [name.partition(".")]
    }
    swapped["fusion.weight"] = state["fusion.weight"].roll(config.num_feat, 1)
    mirrored.load_state_dict(swapped)
    clip = frames(count, size)
    with torch.no_grad():
        result, reverse = model(clip), mirrored(clip.flip(1)).flip(1)
    assert result.shape == (1, count, 3, SCALE * size[0], SCALE * size[1])
    assert result.isfinite().all()
    assert torch.allclose(result, reverse, atol=1e-5)


@pytest.mark.parametrize("size", SMALL)
def test_one_frame_starts_both_directions_from_nothing(size: tuple[int, int]):
    model = make(PUBLISHED)
    frame = frames(1, size)[:, 0]
    nothing = torch.zeros(1, PUBLISHED.num_feat, *size)
    later, earlier = model.backward_trunk(frame, nothing), model.forward_trunk(frame, nothing)
    result = model(frame[:, None])[:, 0]
    assert torch.allclose(result, model.reconstruct(frame, later, earlier), atol=1e-6)
    before, after = model.flows(frame[:, None])
    assert before.shape == after.shape == (1, 0, 2, *size)


def test_frames_inform_each_other_from_both_ends():
    """Each frame of the result changes with each frame of the clip, however far away."""
    model = make(replace(PUBLISHED, num_block=1))
    clip = frames(4, (12, 12))
    result = model(clip)
    for changed in (0, 3):
        other = clip.clone()
        other[:, changed] = 1 - other[:, changed]
        moved = (model(other) - result).abs().amax((0, 2, 3, 4))
        assert (moved > 0).all()
