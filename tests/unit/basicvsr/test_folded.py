"""Models that enlarge by two: the networks of four, on frames folded two by two."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip, perturb
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from skipsr.backbones.basicvsr.block_skipping import BlockSkippingUpscaler
from skipsr.backbones.basicvsr.config import PRESETS, BasicVSRConfig
from skipsr.backbones.basicvsr.cost import cost_of
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.patches import run_patches
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.clip import Clip
from skipsr.settings import SkipSettings
from skipsr.skipping.reuse import still_cells

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


class _Ops(TorchDispatchMode):
    """Notes the names of what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@each_end
def test_a_step_of_training_looks_at_no_value(config: BasicVSRConfig):
    """A device need not be waited for, and its work can be recorded."""
    model, clip = make(config), frames(1, 3, 3, 16, 16)
    model(clip)  # constants are made once
    with _Ops() as ops, torch.autocast("cpu", torch.bfloat16):
        model(clip).square().mean().backward()
    assert "convolution" in ops.names
    assert not ops.names & {"_local_scalar_dense", "nonzero", "lift_fresh", "item"}


@pytest.mark.parametrize("name", ["nano", "small"])
def test_a_pixel_of_the_result_costs_the_same_at_two_as_at_four(name: str):
    four, two = cost_of(PRESETS[name]), cost_of(PRESETS[f"{name}-x2"])
    assert two.dense == pytest.approx(four.dense, rel=0.02)


def test_small_is_at_most_five_times_nano():
    assert cost_of(PRESETS["small"]).dense <= 5 * cost_of(PRESETS["nano"]).dense


ODD = (37, 50)


def upscaler(**skip: object) -> BasicVSRUpscaler:
    model = make(TINY, spread=0.1).requires_grad_(False)
    return BasicVSRUpscaler("basicvsr:tiny", model, SkipSettings(**skip))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(74, 100), (111, 150), (148, 200), (50, 71)])
@pytest.mark.parametrize("skip", [{"dense": True}, {"quality": 1.0}])
def test_odd_sides_grow_by_one_and_are_cut_off_again(
    size: tuple[int, int], skip: dict[str, object]
):
    clip = make_clip(3, *ODD, start=5)
    found = upscaler(**skip).upscale(clip, size)
    padded = F.pad(clip.frames, (0, 0, 0, 1), mode="replicate")
    with torch.no_grad():
        expected = make(TINY, spread=0.1)(padded[None])[0][..., :74, :]
    if size != (74, 100):
        expected = F.interpolate(
            expected, size, mode="bicubic", antialias=True, align_corners=False
        )
    assert found.clip.start == 5
    torch.testing.assert_close(found.clip.frames, expected.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("skip", [{}, {"dense": True}, {"budget": 0.5}])
def test_work_is_what_upscaling_reports(skip: dict[str, object]):
    """A cell is again 16 pixels of the result a side: eight of the clip."""
    model, clip = upscaler(**skip), make_clip(3, *ODD)
    done = model.upscale(clip, (74, 100)).compute_map
    foretold = model.compute_map(clip, (74, 100))
    assert torch.equal(done.fractions, foretold.fractions)
    assert done.cell_size == (16, 16)
    assert done.fractions.shape == (3, 5, 7)
    assert done.units_total == 3 * 5 * 7


def test_flat_places_are_the_plain_picture():
    frames = torch.rand(3, 3, *ODD, generator=torch.Generator().manual_seed(0))
    frames[..., 16:] = 0.5
    model, clip = upscaler(), Clip(frames)
    found = model.upscale(clip, (74, 100))
    assert (found.compute_map.fractions[:, :, 5:] == 0).all()
    assert (found.compute_map.fractions[:, :, :2] == 1).all()
    plain = model.upsample(clip, (74, 100)).frames
    assert torch.equal(found.clip.frames[..., 80:], plain[..., 80:])
    assert not torch.equal(found.clip.frames[..., :32], plain[..., :32])


def test_the_plain_picture_is_the_bicubic_one():
    clip = make_clip(2, *ODD)
    plain = upscaler().upsample(clip, (74, 100)).frames
    larger = F.pad(clip.frames, (4,) * 4, mode="replicate")
    expected = F.interpolate(larger, scale_factor=2, mode="bicubic", antialias=True)  # a = -0.5
    torch.testing.assert_close(plain, expected[..., 8:-8, 8:-8].clamp(0, 1), atol=1e-5, rtol=0)


def test_a_change_that_the_mean_hides_is_no_standstill():
    frames = torch.full((2, 3, 128, 64), 0.5)
    frames[1, :, 4, 4] += 0.1
    frames[1, :, 4, 5] -= 0.1
    (_, still) = still_cells(frames, (8, 8))
    assert still is not None
    assert still.shape == (16, 8)
    assert not still[:4, :4].any()
    assert still[4:].all()


def test_patches_are_those_of_the_picture():
    model = make(TINY).requires_grad_(False)
    clip = frames(1, 2, 3, 48, 94)
    steps = [model.dense_step(which) for which in ("backward", "forward")]
    found = torch.stack(list(run_patches(model, clip, *steps)), 1)
    assert found.shape == (1, 2, 3, 96, 188)
    flows = tuple(flow[..., :24] for flow in model.flows(clip))
    first = torch.stack(list(model.run(clip[..., :48], *steps, flows=flows)), 1)  # type: ignore[arg-type]
    torch.testing.assert_close(found[..., :92], first[..., :92], atol=1e-5, rtol=0)


@pytest.mark.parametrize("patches", [False, True])
def test_blocks_are_skipped_by_tiles_of_folded_pixels(patches: bool):
    model = make(TINY).requires_grad_(False)
    skip = SkipSettings(threshold=0.5)
    found = BlockSkippingUpscaler("basicvsr:tiny", model, skip, patches=patches)
    done = found.upscale(make_clip(3, 97, 100), (194, 200))
    assert done.clip.size == (194, 200)
    assert done.compute_map.fractions.shape == ((3, 3, 3) if patches else (3, 2, 2))
